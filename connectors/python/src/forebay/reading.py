"""Reading datasets: a whole table, or a scan. Both give batches in the dataset's order, each once. (Followers are in `following`.)

Owns what happens between GetFlightInfo and the last batch: streams that are opened again where a connection broke, several endpoints read
at once but given in order, tickets that are renewed, and resume tokens, which the reader counts. Rows are not looked at here.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from .ahead import InOrder
from .commands import Position, Resume, descriptor
from .connection import Call, Connection
from .errors import FailedPrecondition, ForebayError, Unauthenticated, Unavailable

# Streams read at once: each keeps a core busy here, and one at the server, which may be this machine.
PARALLEL = max(1, min(4, (os.cpu_count() or 2) // 2))
BYTES_AHEAD = 256 << 20
AGAIN = 0.05  # seconds before a broken stream is opened again: a server that has just come back may cut it once more

Chunk = tuple[pa.RecordBatch, pa.Buffer | None]


class Plan:
    """What can be read: the answer to GetFlightInfo, which can be had again when its tickets have expired.

    Attributes:
        schema: of the batches.
        note: `{"path", "version", "session", "state", "parts", "batches"}`.
        rows: rows in all; None where nobody can know (a follower, a filter, a resume token).
        nbytes: stored bytes in all; None where nobody can know.
    """

    def __init__(self, connection: Connection, path: str, keys: dict[str, Any], timeout: float | None) -> None:
        self.connection, self.path, self._keys, self._timeout = connection, path, keys, timeout
        self._take(connection.repeat(self._ask))
        self.note: dict[str, Any] = json.loads(self._info.app_metadata) if self._info.app_metadata else {}
        self.schema: pa.Schema = self._info.schema
        self.rows: int | None = self._info.total_records if self._info.total_records >= 0 else None
        self.nbytes: int | None = self._info.total_bytes if self._info.total_bytes >= 0 else None

    def _ask(self) -> fl.FlightInfo:
        with self.connection.call(self._timeout) as call:
            return call.flight.get_flight_info(descriptor(self.path, **self._keys), call.options)

    def _take(self, info: fl.FlightInfo) -> None:
        self._info, self.endpoints = info, list(info.endpoints)

    def renew(self) -> None:
        """Asks for new tickets of the same state."""
        keys, count = dict(self._keys), len(self.endpoints)
        if self.note.get("version") and not any(keys.get(k) for k in ("version", "session", "follow", "from")):
            self._keys = keys | {"version": self.note["version"]}
        self._take(self.connection.repeat(self._ask))
        if len(self.endpoints) != count:
            raise FailedPrecondition(f"{self.path}: it has changed since its reading began; read it anew")


class EndpointStream:
    """The chunks of one endpoint. A broken connection is mended: the stream is opened again, and what was given is skipped."""

    def __init__(self, plan: Plan, index: int, lane: int = 0, skip: int = 0) -> None:
        self._plan, self._index, self._lane = plan, index, lane
        # Chunks that are done with, from the endpoint's first, and how many the open stream has brought.
        self._done, self._brought = skip, 0
        self._call: Call | None = None
        self._broken: float | None = None

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        while True:
            try:
                chunk = self._read()
            except Unavailable as away:
                self.close()
                self._wait(away)
            except Unauthenticated:
                self.close()
                if not self._may_renew():
                    raise
            except BaseException:  # the end of the stream, too
                self.close()
                raise
            else:
                self._brought += 1
                if self._brought > self._done:
                    self._done, self._broken, self._renewed = self._brought, None, False
                    return chunk

    _renewed = False

    def _may_renew(self) -> bool:
        """An expired ticket is asked for again, once."""
        if self._renewed:
            return False
        self._renewed = True
        self._plan.renew()
        return True

    def _read(self) -> Chunk:
        if self._call is None:
            self._call = open_stream(self._plan, self._index, self._lane)
            self._brought = 0
        return next_chunk(self._call)

    def _wait(self, away: Unavailable) -> None:
        now = time.monotonic()
        self._broken = self._broken or now
        if now - self._broken >= self._plan.connection.options.retry_for:
            raise away
        time.sleep(max(AGAIN, away.retry_after or 0) if self._broken != now else AGAIN)

    def close(self) -> None:
        """Ends the stream; what has not come is not waited for."""
        call, self._call = self._call, None
        if call is not None:
            end_stream(call)

    def __del__(self) -> None:
        self.close()


def open_stream(plan: Plan, index: int, lane: int = 0) -> Call:
    """The call that reads an endpoint."""
    endpoint = plan.endpoints[index]
    call = plan.connection.call(locations=endpoint.locations, lane=lane).__enter__()
    try:
        call.stream = call.flight.do_get(endpoint.ticket, call.options)
    except BaseException as error:
        call.end()
        call.raise_from(error)
        raise
    return call


def next_chunk(call: Call) -> Chunk:
    """The next batch of a stream with its app_metadata. StopIteration at a good end."""
    while True:
        try:
            chunk = call.stream.read_chunk()
        except StopIteration:
            raise
        except Exception as error:
            call.raise_from(error)
            raise
        if chunk.data is not None:
            return chunk.data, chunk.app_metadata


def end_stream(call: Call) -> None:
    """Ends a stream, wherever it stands."""
    if call.stream is not None:
        call.stream.cancel()
    call.end()


class Batches(Iterator[pa.RecordBatch]):
    """An iterator of batches that knows where it stands. Also a context manager, and an Arrow stream for other libraries.

    Attributes:
        schema: of the batches.
        version: the published version that is read; None where there is none yet.
        session: the live session, if one is read.
        app_metadata: bytes that the writer gave with the batch given last; None if none.
    """

    schema: pa.Schema
    version: int | None = None
    session: str | None = None
    app_metadata: bytes | None = None
    _position: Position | None = None

    @property
    def token(self) -> str | None:
        """Where to go on after the batches given so far: `resume=` of a later `scan` or `follow`.

        None where batches cannot be counted: with a filter or a limit.
        """
        return self._position.token if self._position else None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading."""
        raise NotImplementedError

    def to_reader(self) -> pa.RecordBatchReader:
        """The same as pyarrow's reader, which DuckDB, Polars and others take."""
        return pa.RecordBatchReader.from_batches(self.schema, self)

    def read_all(self) -> pa.Table:
        """What is left, as a table."""
        return pa.Table.from_batches(list(self), self.schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def given(self, chunk: Chunk) -> pa.RecordBatch:
        batch, metadata = chunk
        self.app_metadata = metadata.to_pybytes() if metadata is not None and metadata.size else None
        if self._position:
            self._position.count()
        return batch


def is_counted(keys: dict[str, Any]) -> bool:
    return keys.get("filter") is None and keys.get("limit") is None


class Scan(Batches):
    """The batches of a published version (or of one session), in order. See `Client.scan`."""

    def __init__(self, connection: Connection, path: str, keys: dict[str, Any], parallel: int, bytes_ahead: int) -> None:
        plan = Plan(connection, path, keys, None if keys.get("wait") else connection.options.timeout)
        self.schema, self.version, self.session = plan.schema, plan.note.get("version"), keys.get("session")
        self.rows, self.nbytes = plan.rows, plan.nbytes
        if is_counted(keys):
            version = (self.version, plan.note["batches"]) if self.version and not self.session else None
            resume = Resume.parse(keys["from"]) if keys.get("from") else None
            self._position = Position(version, self.session, resume) if version or self.session or resume else None
        count = len(plan.endpoints)
        if count > 1 and parallel > 1:
            lanes = min(parallel, count)
            self._chunks: Any = InOrder([_opener(plan, k, k % lanes) for k in range(count)], lanes, bytes_ahead)
        else:
            self._chunks = OneByOne(plan)
        weakref.finalize(self, self._chunks.close)

    def __next__(self) -> pa.RecordBatch:
        return self.given(next(self._chunks))

    def close(self) -> None:
        self._chunks.close()


def _opener(plan: Plan, index: int, lane: int) -> Any:
    return lambda: EndpointStream(plan, index, lane)


class OneByOne:
    """Endpoint after endpoint, without threads. It can be handed to another thread, as the consumer's."""

    def __init__(self, plan: Plan, skip: int = 0) -> None:
        self._waiting = deque(EndpointStream(plan, k, skip=skip if k == 0 else 0) for k in range(len(plan.endpoints)))

    def __iter__(self) -> OneByOne:
        return self

    def __next__(self) -> Chunk:
        while self._waiting:
            try:
                return next(self._waiting[0])
            except StopIteration:
                self._waiting.popleft()
            except ForebayError:
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        for stream in self._waiting:
            stream.close()
        self._waiting.clear()


def read_table(connection: Connection, path: str, keys: dict[str, Any], parallel: int) -> pa.Table:
    """Everything as one table; several endpoints are read at once."""
    plan = Plan(connection, path, keys, None if keys.get("wait") else connection.options.timeout)
    count = len(plan.endpoints)
    lanes = max(1, min(parallel, count))

    def one(index: int) -> pa.Table:
        return connection.repeat(lambda: _read_endpoint(plan, index, index % lanes))

    if lanes == 1:
        tables = [one(k) for k in range(count)]
    else:
        with ThreadPoolExecutor(lanes, "forebay-read") as pool:
            tables = list(pool.map(one, range(count)))
    return pa.concat_tables(tables) if tables else plan.schema.empty_table()


def _read_endpoint(plan: Plan, index: int, lane: int) -> pa.Table:
    for last in (False, True):
        endpoint = plan.endpoints[index]
        try:
            with plan.connection.call(locations=endpoint.locations, lane=lane) as call:
                return call.flight.do_get(endpoint.ticket, call.options).read_all()
        except Unauthenticated:
            if last:
                raise
            plan.renew()
    raise AssertionError("the second attempt returns or raises")
