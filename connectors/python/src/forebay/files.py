"""Files as streams of bytes. Over Flight they travel as batches of one `data: large_binary` column.

Reading asks for ranges that double as long as it goes on, each one stream, and begins small where it jumps: a Parquet footer costs 256 KiB,
a whole file a few streams. Writing sends pieces as they fill; the file is visible whole with `close()`, or not at all.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from .connection import Connection
from .errors import FailedPrecondition, ForebayError, InvalidArgument, IsADirectory, NotADirectory, NotFound, Unavailable
from .reading import EndpointStream, Plan
from .writing import PutStream, unknown_outcome

PIECE_BYTES = 4 << 20
_RANGE_BYTES_MIN = 256 << 10  # after a jump; a range costs three round trips
_RANGE_BYTES_MAX = 256 << 20
_FORWARD_BYTES = 1 << 20  # a jump forward no longer than this goes on in the open stream
_SCHEMA = pa.schema([("data", pa.large_binary())])


def pieces(connection: Connection, path: str, offset: int = 0, length: int | None = None) -> Iterator[pa.Buffer]:
    """The bytes of a file, or of a range of it, as they arrive; short only at the end of the file."""
    plan = Plan(connection, path, {"kind": "file", "offset": offset or None, "length": length}, connection.options.timeout)
    for index in range(len(plan.endpoints)):
        stream = EndpointStream(plan, index)
        try:
            for batch, _ in stream:
                for value in batch.column(0):
                    if (buffer := value.as_buffer()) is not None and buffer.size:
                        yield buffer
        finally:
            stream.close()


def read_bytes(connection: Connection, path: str, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or of a range of it, in one piece."""
    return b"" if length == 0 else b"".join(memoryview(buffer) for buffer in pieces(connection, path, offset, length))


class FileReader(io.RawIOBase):
    """A file that is read. Seekable; memory is bounded by the pieces under way.

    A file that is changed while it is read is not mixed up: reading on by another range or stream raises `FailedPrecondition`.

    Args:
        connection: where to.
        path: the file.
        stat: what `stat` says of it.

    Attributes:
        size: bytes.
    """

    def __init__(self, connection: Connection, path: str, stat: Any) -> None:
        super().__init__()
        self._connection, self.path, self._stat = connection, path, stat
        entry: dict[str, Any] = stat(path)
        if entry["kind"] == "dir":
            raise IsADirectory(f"{path} is a directory; list it, or read it as a dataset")
        self.size, self._facts = int(entry["size"]), _facts(entry)
        self._at = 0
        self._stream: Iterator[pa.Buffer] | None = None
        self._piece, self._stream_at = memoryview(b""), 0
        self._read_end, self._range = 0, PIECE_BYTES // 2

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"{self.path}: a position of {at} lies before the file")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self.size - self._at)
        if wanted <= 0:
            return 0
        piece = self._next_piece(wanted)
        count = min(wanted, len(piece))
        target[:count] = piece[:count]
        self._piece, self._stream_at = piece[count:], self._stream_at + count
        self._at += count
        self._read_end = self._at
        return count

    def readall(self) -> bytes:
        parts = []
        while self._at < self.size:
            piece = self._next_piece(self.size - self._at)
            parts.append(piece)
            self._at += len(piece)
            self._piece, self._stream_at, self._read_end = memoryview(b""), self._at, self._at
        return b"".join(parts)

    def close(self) -> None:
        self._end_stream()
        super().close()

    def _next_piece(self, wanted: int) -> memoryview:
        """Bytes at the position, at least one. Raises where the file has become shorter."""
        if self._stream is None or not self._stream_at <= self._at <= self._stream_at + _FORWARD_BYTES:
            self._open(wanted)
        while True:
            piece = self._skipped()
            if len(piece):
                return piece
            try:
                self._piece = _bytes_of(next(self._stream)) if self._stream else memoryview(b"")
            except StopIteration:
                self._end_stream()
                self._open(wanted)  # the range is used up
            except Unavailable:
                self._end_stream()
                self._open(wanted)

    def _skipped(self) -> memoryview:
        """What is left of the piece behind the position."""
        ahead = min(self._at - self._stream_at, len(self._piece))
        self._piece, self._stream_at = self._piece[ahead:], self._stream_at + ahead
        return self._piece

    def _open(self, wanted: int) -> None:
        """The next range: twice the last one where reading goes on, a small one where it jumped."""
        self._end_stream()
        self._range = min(2 * self._range, _RANGE_BYTES_MAX) if self._at == self._read_end else _RANGE_BYTES_MIN
        # Somewhat more than is wanted: buffers ask for a long read in two.
        stream = pieces(self._connection, self.path, self._at, max(wanted + _RANGE_BYTES_MIN, self._range))
        first = next(stream, None)
        # After the stream has begun: then what it gives is what `stat` speaks of.
        if first is None or self._facts != _facts(self._stat(self.path)):
            stream.close()  # type: ignore[attr-defined]
            raise FailedPrecondition(f"{self.path} was changed while it was read; open it anew")
        self._stream, self._piece, self._stream_at = stream, _bytes_of(first), self._at

    def _end_stream(self) -> None:
        stream, self._stream, self._piece = self._stream, None, memoryview(b"")
        if stream is not None:
            stream.close()  # type: ignore[attr-defined]


def _facts(entry: dict[str, Any]) -> tuple[str, int]:
    """What a file has while it is the same. Its etag may be another one, once only the under-store has it."""
    return entry["mtime"], entry["size"]


class FileWriter(io.RawIOBase):
    """A file that is written, at its end only. Nothing is visible before `close()`; an exception within `with` leaves what was there.

    Up to 4 MiB are held here; a file that is no longer is put again after a lost connection, and is there once.

    Args:
        connection: where to.
        path: the file; its parents are made.
        mode: `"overwrite"`, `"append"` or `"create"`.
        offset: for append: the size that the file has, so that a repetition is refused.
        if_etag: for overwrite: the etag that the file has. Where it has another one, or is not there, it ends with `FailedPrecondition`.
        ack: the level; None: the server's default.
        token: idempotency key; one is made when left out.
        autocommit: False: `close()` leaves it to `commit()` or `discard()`.
        stat: what `stat` says of a path; with it `IsADirectory` and `NotADirectory` are told apart from other preconditions.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        mode: str = "overwrite",
        *,
        offset: int | None = None,
        if_etag: str | None = None,
        ack: str | None = None,
        token: str | None = None,
        autocommit: bool = True,
        stat: Any = None,
    ) -> None:
        super().__init__()
        self._connection, self.path, self._stat = connection, path, stat
        keys = {"offset": offset, "if_etag": if_etag, "ack": ack, "token": token or uuid.uuid4().hex}
        self._keys: dict[str, Any] = {"kind": "file", "mode": mode, **keys}
        self._waiting, self._sent, self._begin = bytearray(), 0, offset or 0
        self._put: PutStream | None = None
        self._ended, self._autocommit = False, autocommit

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._begin + self._sent + len(self._waiting)

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError(f"{self.path}: the file is closed")
        view = memoryview(data).cast("B")
        rest = view
        while len(rest):
            if not self._waiting and len(rest) >= PIECE_BYTES:
                self._send(rest[:PIECE_BYTES])
                rest = rest[PIECE_BYTES:]
                continue
            room = PIECE_BYTES - len(self._waiting)
            self._waiting += rest[:room]
            rest = rest[room:]
            if len(self._waiting) == PIECE_BYTES:
                waiting, self._waiting = self._waiting, bytearray()
                self._send(memoryview(waiting))
        return len(view)

    def close(self) -> None:
        """Commits the file: durable at its level, and visible whole."""
        if not self.closed:
            try:
                if self._autocommit:
                    self.commit()
            finally:
                super().close()

    def commit(self) -> None:
        """What `close()` does, where it was told to leave it."""
        if self._ended:
            return
        self._ended = True
        try:
            self._commit()
        except FailedPrecondition as error:
            raise self._reason(error) from None

    def _commit(self) -> None:
        if self._put is None:
            content = bytes(self._waiting)
            self._connection.repeat(lambda: self._put_all(content))
            return
        if self._waiting:
            self._send(memoryview(self._waiting))
        try:
            self._put.commit()
        except Unavailable as away:
            raise unknown_outcome(away, str(self._keys["token"])) from None

    def discard(self) -> None:
        """Gives the file up: what was there stays."""
        if not self._ended:
            self._ended = True
            if self._put is not None:
                self._put.give_up()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _send(self, piece: memoryview) -> None:
        try:
            if self._put is None:
                self._put = PutStream(self._connection, self.path, _SCHEMA, self._keys)
            self._put.write(_batch(piece))
        except BaseException as error:
            self._ended = True
            if self._put is not None:
                self._put.give_up()
            if isinstance(error, FailedPrecondition):
                raise self._reason(error) from None
            raise
        self._sent += len(piece)

    def _reason(self, error: ForebayError) -> ForebayError:
        return error if self._stat is None else reason(error, self.path, self._stat)

    def _put_all(self, content: bytes) -> None:
        with PutStream(self._connection, self.path, _SCHEMA, self._keys) as put:
            if content:
                put.write(_batch(memoryview(content)))
            put.commit()


def _batch(piece: memoryview) -> pa.RecordBatch:
    """One value, whose bytes stay where they are."""
    offsets = pa.py_buffer((0).to_bytes(8, "little") + len(piece).to_bytes(8, "little"))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(piece)])
    return pa.record_batch([column], schema=_SCHEMA)


def reason(error: ForebayError, path: str, stat: Any) -> ForebayError:
    """The exception that file systems raise, where what is at `path` explains why a file there was refused; else `error`."""
    try:
        return IsADirectory(str(error)) if stat(path)["kind"] == "dir" else error
    except NotADirectory:
        return NotADirectory(str(error))
    except ForebayError:
        return error


def open_file(
    connection: Connection, path: str, mode: str, stat: Any, *, ack: str | None = None, autocommit: bool = True
) -> FileReader | FileWriter:
    """A file in mode `"rb"`, `"wb"`, `"ab"` or `"xb"`."""
    match "".join(sorted(mode.replace("b", ""))):
        case "r":
            return FileReader(connection, path, stat)
        case "w":
            return FileWriter(connection, path, "overwrite", ack=ack, autocommit=autocommit, stat=stat)
        case "x":
            return FileWriter(connection, path, "create", ack=ack, autocommit=autocommit, stat=stat)
        case "a":
            try:
                size = stat(path)["size"]
            except NotFound:
                size = 0
            return FileWriter(connection, path, "append", offset=size, ack=ack, autocommit=autocommit, stat=stat)
    raise InvalidArgument(f"mode {mode!r} is none of rb, wb, ab, xb; a file is changed in the middle through a mount")


def _bytes_of(buffer: pa.Buffer) -> memoryview:
    return memoryview(buffer).cast("B")


class _TextWriter(io.TextIOWrapper):
    """Text over a `FileWriter`: an exception gives the file up, as it does for bytes."""

    def __init__(self, file: FileWriter, **options: Any) -> None:
        super().__init__(io.BufferedWriter(file, PIECE_BYTES // 4), **options)
        self._file = file

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.discard()


def text_stream(stream: Any, options: dict[str, Any]) -> IO[str]:
    """Text of a stream of bytes; options are `encoding`, `errors`, `newline`."""
    if isinstance(stream, FileWriter):
        return _TextWriter(stream, **options)
    return io.TextIOWrapper(stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream), **options)
