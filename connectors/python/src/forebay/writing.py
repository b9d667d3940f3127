"""Writing datasets: one DoPut from anything that has batches. Visible whole or not at all.

A stream that is given up must not look finished: pyarrow closes forgotten writers well, and the server would commit. So it is broken off by
a message that no batch is, which the server refuses, with everything before it.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .commands import descriptor
from .connection import Call, Connection
from .errors import DeadlineExceeded, ForebayError, InvalidArgument, Unavailable

# A batch goes as one message; the server takes up to 512 MiB, and smaller ones can be followed sooner.
BATCH_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class Done:
    """How a put ended: the version it made (None within a session), the session it wrote into, and the level it was committed at."""

    version: int | None
    session: str | None
    level: str | None


class Source:
    """Batches of one schema, from what a caller has.

    Args:
        data: a Table, a RecordBatch, a RecordBatchReader, a `Scan` or `Follow`, a pandas or Polars data frame or anything else with an
            Arrow stream, a dict of columns, or an iterable of batches or tables.
        schema: for an iterable that may be empty; else its first element tells.
    """

    def __init__(self, data: Any, schema: pa.Schema | None = None) -> None:
        self.schema: pa.Schema
        self.repeatable = False
        if isinstance(data, Mapping):
            data = pa.table(dict(data), schema=schema)
        elif type(data).__module__.partition(".")[0] == "pandas":
            data = pa.Table.from_pandas(data, schema=schema)
        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        if isinstance(data, pa.Table):
            self.schema, self.repeatable = data.schema, True
            self._batches: Callable[[], Iterator[pa.RecordBatch]] = lambda: iter(data.to_batches())
            return
        if isinstance(data, pa.RecordBatchReader):
            reader = data
        elif isinstance(getattr(data, "schema", None), pa.Schema) and hasattr(data, "__next__"):
            self.schema, self._batches = data.schema, lambda: data
            return
        elif hasattr(data, "to_reader"):
            reader = data.to_reader()
        elif hasattr(data, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(data)
        elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
            self._of_iterable(iter(data), schema)
            return
        else:
            raise InvalidArgument(f"a {type(data).__name__} has no batches; give a pyarrow Table, a reader, or an iterable of batches")
        self.schema, self._batches = reader.schema, lambda: iter(reader)

    def _of_iterable(self, items: Iterator[Any], schema: pa.Schema | None) -> None:
        first: Any = next(items, None)
        if first is None and schema is None:
            raise InvalidArgument("the iterable is empty and there is no schema; give schema=")
        begin = [] if first is None else _batches_of(first)
        self.schema = schema if schema is not None else first.schema

        def batches() -> Iterator[pa.RecordBatch]:
            yield from begin
            for item in items:
                yield from _batches_of(item)

        self._batches = batches

    def batches(self, cut: bool = True) -> Iterator[pa.RecordBatch]:
        """The batches; those above 64 MiB are cut by rows, where `cut` says so."""
        for batch in self._batches():
            yield from _cut(batch) if cut else (batch,)


def _batches_of(item: Any) -> list[pa.RecordBatch]:
    if isinstance(item, pa.RecordBatch):
        return [item]
    if isinstance(item, pa.Table):
        return list(item.to_batches())
    raise InvalidArgument(f"an iterable to put has batches or tables, not a {type(item).__name__}")


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    try:
        size = batch.nbytes
    except pa.ArrowException:  # not known for every type
        size = batch.get_total_buffer_size()
    if size <= BATCH_BYTES_MAX or batch.num_rows < 2:
        yield batch
        return
    rows = max(1, batch.num_rows * BATCH_BYTES_MAX // size)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def put(connection: Connection, path: str, source: Source, keys: dict[str, Any], app_metadata: Iterable[bytes] | None = None) -> Done:
    """Writes everything as one unit, with a token: what can be given again is put again after a lost connection, and is there once."""
    keys = keys | {"token": keys.get("token") or uuid.uuid4().hex}
    if source.repeatable and app_metadata is None:
        return connection.repeat(lambda: _put_once(connection, path, source, keys, None))
    try:
        return _put_once(connection, path, source, keys, iter(app_metadata) if app_metadata is not None else None)
    except ForebayError as error:
        error.token = error.token or keys["token"]
        raise


def _put_once(connection: Connection, path: str, source: Source, keys: dict[str, Any], metadata: Iterator[bytes] | None) -> Done:
    stream = PutStream(connection, path, source.schema, keys, answers=metadata is not None)
    with stream:
        for batch in source.batches(cut=metadata is None):
            if not stream.write(batch, next(metadata, None) if metadata else None):
                break
        try:
            return stream.commit()
        except Unavailable as away:
            if source.repeatable:
                raise
            raise unknown_outcome(away, keys["token"]) from None


class PutStream:
    """An open DoPut. Committed by `commit()`; left by an exception, or by `give_up()`, nothing of it is ever visible.

    Args:
        answers: whether PutResults are read while writing; needed where batches have app_metadata, else the server would hold us up.
    """

    def __init__(self, connection: Connection, path: str, schema: pa.Schema, keys: dict[str, Any], answers: bool = False) -> None:
        self._call: Call = connection.call().__enter__()
        self._done: Done | None = None
        try:
            self._call.stream = self._call.flight.do_put(descriptor(path, **keys), schema, self._call.options)
        except BaseException as error:
            self._call.end()
            self._call.raise_from(error)
            raise
        self._drain = threading.Thread(target=self._read_answers, name="forebay-put", daemon=True) if answers else None
        if self._drain:
            self._drain.start()

    def __enter__(self) -> PutStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.give_up()

    def write(self, batch: pa.RecordBatch, app_metadata: bytes | None = None) -> bool:
        """Sends a batch. False: the server has ended the call well already, because it has the unit by its token."""
        try:
            if app_metadata is None:
                self._call.stream[0].write_batch(batch)
            else:
                self._call.stream[0].write_with_metadata(batch, app_metadata)
        except Exception as error:
            self._ended_early(error)
            return False
        return True

    def commit(self) -> Done:
        """Ends the write well: all of it is durable at its level, and visible.

        Raises:
            DeadlineExceeded: the connection was lost at the end, so the outcome is unknown; asked again with the token it is there once.
        """
        if self._done:
            return self._done
        try:
            self._call.stream[0].done_writing()
            if self._drain:
                self._drain.join()
            self._call.stream[0].close()
        except BaseException as error:
            self._call.end()
            self._call.raise_from(error)
            raise
        return self._finish()

    def give_up(self) -> None:
        """Breaks the stream off."""
        if self._done or not self._call._open:
            return
        with contextlib.suppress(Exception):
            self._call.stream[0].write_metadata(pa.py_buffer(b"given up"))
        with contextlib.suppress(Exception):  # says that it was refused, as was meant
            self._call.stream[0].close()
        self._call.end()

    def _ended_early(self, error: Exception) -> None:
        """The call's own status says why; the writer's error only that it could not write."""
        try:
            self._call.stream[0].close()
        except Exception as status:
            self._call.end()
            self._call.raise_from(status)
            raise
        self._finish()
        if self._done is None or (self._done.version is None and self._done.session is None):
            raise error

    def _finish(self) -> Done:
        version = self._call.trailer("forebay-version")
        self._done = Done(int(version) if version else None, self._call.trailer("forebay-session"), self._call.trailer("forebay-level"))
        self._call.end()
        return self._done

    def _read_answers(self) -> None:
        answers = self._call.stream[1]
        with contextlib.suppress(Exception):  # close() raises the same
            while answers.read() is not None:
                pass


def unknown_outcome(away: Unavailable, token: str | None) -> DeadlineExceeded:
    """What a connection that was lost at the end means for a unit that cannot be sent again."""
    error = DeadlineExceeded(f"the outcome is unknown: {away}; ask again with the token {token}")
    error.token = token
    return error
