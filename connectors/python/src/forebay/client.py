"""The client: everything a server offers, a method each."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.flight as fl

from .address import Address, Options
from .commands import Task, span, task
from .connection import Connection
from .errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotADirectory, NotFound
from .files import FileReader, FileWriter, open_file, read_bytes, text_stream
from .following import Follow
from .reading import BYTES_AHEAD, PARALLEL, Scan, read_table
from .sessions import Session, publish
from .writing import Source, put

# These may be asked again after a lost answer: they change nothing, or the second time gives what the first did.
_REPEATABLE = frozenset({"list", "stat", "versions", "status", "under_list", "policy_get", "policy_explain", "publish", "abort"})
_BUFFER_BYTES = 1 << 20


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    tls_ca: str | bytes | None = None,
    tls_cert: str | bytes | None = None,
    tls_key: str | bytes | None = None,
    tls_domain: str | None = None,
    tls_insecure: bool = False,
    timeout: float | None = None,
    retry_for: float = 30.0,
) -> Client:
    """A client of the server at `url`. The connection comes about with the first call.

    Args:
        url: `"grpc://host:port"`, `"grpc+tls://host:port"` or `"grpc+unix:///path"`; None: `FOREBAY_ADDR`, else `grpc://127.0.0.1:47470`.
        token: bearer token; None: `FOREBAY_TOKEN`, or the content of the file that `FOREBAY_TOKEN_FILE` names.
        tls_ca: authorities that sign the server's certificate, PEM or a file's name; None: `FOREBAY_CA`, else the system's.
        tls_cert: our own certificate where the server asks for one, PEM or a file's name.
        tls_key: its private key, PEM or a file's name.
        tls_domain: the name in the server's certificate, where it is not the URL's host.
        tls_insecure: takes any certificate. For experiments only.
        timeout: seconds that a short call may take; None: no end.
        retry_for: seconds for which what is safe to repeat is repeated while the server is away; 0: not at all.

    Raises:
        InvalidArgument: `url` is no address.
    """
    options = Options(token, tls_ca, tls_cert, tls_key, tls_domain, tls_insecure, timeout, retry_for)
    return Client(Connection(Address.parse(url), options.with_environment()))


class Results(list[dict[str, Any]]):
    """What an action answers: one dict a result. Where there is one result, its keys can be asked for at once: `results["version"]`."""

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if len(self) != 1:
            raise KeyError(f"{key!r} of {len(self)} results; take one of them")
        return super().__getitem__(0)[key]


class Client:
    """A client; made by `connect`. Threads may share it, and it survives forks. Also a context manager that closes it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"forebay.Client({self.connection.address.uri!r})"

    def close(self) -> None:
        """Closes the connections. A later call opens them anew."""
        self.connection.close()

    @property
    def flight(self) -> fl.FlightClient:
        """A new `pyarrow.flight` client of the same server, for calls that have no method here. It is the caller's to close."""
        with self.connection.call():
            return self.connection._connect(self.connection.address.uri)

    def login(self, user: str, password: str) -> str:
        """Trades a password for a bearer token (good for a day), which this client sends from then on.

        Raises:
            Unauthenticated: wrong user or password.
        """
        with self.connection.short() as call:
            _, value = call.flight.authenticate_basic_token(user, password)
        token = str(value, "ascii").removeprefix("Bearer ")
        self.close()
        options = self.connection.options
        self.connection = Connection(self.connection.address, Options(**{**options.__dict__, "token": token}))
        return token

    # ---- datasets

    def put(
        self,
        path: str,
        data: Any,
        mode: str | None = None,
        *,
        session: str | None = None,
        task: Task | None = None,
        format: str | None = None,
        compression: str | None = None,
        ack: str | None = None,
        token: str | None = None,
        schema: pa.Schema | None = None,
        app_metadata: Iterable[bytes] | None = None,
    ) -> int | None:
        """Writes a dataset's next version, durable when this returns. Nothing is visible before, except to followers.

        Batches go as they are; those above 64 MiB are cut. A table is put again after a lost connection, and is there once. A reader can
        not be: then the error names the token to ask with.

        Args:
            path: `"/features/day=1"`; parents are made.
            data: a `pyarrow.Table`, `RecordBatch` or `RecordBatchReader`, a `Scan` or `Follow`, a pandas or Polars data frame or anything
                else with an Arrow stream, a dict of columns, or an iterable of batches or tables. An exception in one leaves nothing.
            mode: `"append"` (the default), `"overwrite"`, or `"create"`, which fails where something is.
            session: puts into this session instead; see `session()`.
            task: within a session: the task's number, or `{"job", "stage", "task", "attempt"}`.
            format: how parts are stored: `"arrow"` (the default; keeps batches and app_metadata) or `"parquet"`.
            compression: of stored parts: `"none"` (the default), `"lz4"` or `"zstd"`.
            ack: level: `"memory"`, `"local"`, `"replicated(n)"` or `"persisted"`; None: the server's default.
            token: idempotency key: a unit that is put again with its token is there once.
            schema: for an iterable that may be empty.
            app_metadata: bytes for each batch, which readers get back as `Scan.app_metadata`. Batches are not cut then.

        Returns:
            The version; None within a session, which is published later.

        Raises:
            FailedPrecondition: another schema than the dataset's.
            AlreadyExists: mode create, and something is there.
            InvalidArgument: for format parquet a type that it cannot hold, with the column's name; any other wrong argument.
            Aborted: another attempt of this task won, or the session has ended.
            ResourceExhausted: no room, also after waiting.
            DeadlineExceeded: the outcome is unknown; `token` of the error is what to ask with.
        """
        keys = {"mode": mode, "session": session, "task": _task(task), "format": format, "compression": compression}
        keys |= {"ack": ack, "token": token}
        return put(self.connection, path, Source(data, schema), keys, app_metadata).version

    def read(
        self,
        path: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        limit: int | None = None,
        *,
        session: str | None = None,
        resume: str | None = None,
        wait: float | str | None = None,
        parallel: int = PARALLEL,
    ) -> pa.Table:
        """Reads a dataset as one table, in its order. Parts are read at once.

        Args:
            path: the dataset, or one Arrow or Parquet file.
            version: a published version that is still kept; None: the newest.
            columns: names, in the order wanted; None: all.
            filter: SQL expression over the columns, `"id > 7 AND label = 'cat'"`.
            limit: most rows.
            session: reads what this session has so far instead.
            resume: a token of `Scan` or `Follow`: what comes behind it.
            wait: how long to wait for the dataset to come into being, seconds or `"10s"`; None: not at all.
            parallel: how many parts are read at once, over connections of their own; half of the cores unless given, at most 4.

        Raises:
            NotFound: there is no dataset, or no such version.
            InvalidArgument: no such column, or a filter that is not understood.
        """
        return read_table(self.connection, path, _read_keys(version, columns, filter, limit, session, resume, wait), parallel)

    def scan(
        self,
        path: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        limit: int | None = None,
        *,
        session: str | None = None,
        resume: str | None = None,
        wait: float | str | None = None,
        parallel: int = PARALLEL,
        bytes_ahead: int = BYTES_AHEAD,
    ) -> Scan:
        """Reads a dataset batch by batch, in bounded memory, in its order. Parts are read at once, ahead of the caller.

        Args:
            bytes_ahead: bytes of batches that may wait to be taken, over all parts; 256 MiB unless given.
            The others: as for `read`.

        Returns:
            An iterator of `pyarrow.RecordBatch`; its `token` says where to go on. Also what DuckDB and Polars take as an Arrow stream.
        """
        keys = _read_keys(version, columns, filter, limit, session, resume, wait)
        return Scan(self.connection, path, keys, parallel, bytes_ahead)

    def follow(
        self,
        path: str,
        resume: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        limit: int | None = None,
        session: str | None = None,
        wait: float | str | None = None,
    ) -> Follow:
        """Reads a dataset while it is written: the newest version, then the live session batch by batch, to its publish.

        Without a live session it ends after the newest version. A lost connection, or a restart of the server, is mended for `retry_for`
        seconds, and each batch comes once.

        Args:
            path: the dataset.
            resume: `token` of an earlier follower: goes on behind what that one gave.
            columns: names, in the order wanted; None: all.
            filter: SQL expression over the columns.
            limit: most rows.
            session: only this session's batches.
            wait: how long to wait for the dataset or a session to come into being, seconds or `"10s"`; None: not at all.

        Returns:
            An iterator of `pyarrow.RecordBatch` with `token`.

        Raises:
            Aborted: the session was aborted. It may come at any batch.
            NotFound: there is neither a version nor a session, also after `wait`.
        """
        return Follow(self.connection, path, _read_keys(None, columns, filter, limit, session, resume, wait))

    def session(
        self,
        path: str,
        mode: str | None = None,
        *,
        format: str | None = None,
        compression: str | None = None,
        ack: str | None = None,
        timeout: float | str | None = None,
        job: str | None = None,
        success_file: bool = False,
    ) -> Session:
        """Begins a session: many puts that become one version in one instant.

        >>> with client.session("/features/day=1", mode="overwrite") as session:    # doctest: +SKIP
        ...     for number, part in enumerate(parts):
        ...         session.put(part, task=number)
        >>> session.version                                                        # doctest: +SKIP
        3

        Args:
            path: the dataset; parents are made.
            mode: what the publish does with what is there, as for `put`.
            format, compression, ack: as for `put`; they hold for all puts of the session.
            timeout: without a writer for so long it is aborted, seconds or `"10min"`; None: ten minutes.
            job: a name for whoever looks.
            success_file: the publish also writes `_SUCCESS`.
        """
        keys = {"mode": mode, "format": format, "compression": compression, "ack": ack, "timeout": span(timeout), "job": job}
        [begun] = self.act("begin", path=path, **{k: v for k, v in keys.items() if v is not None})
        return Session(self, path, begun["session"], success_file)

    def publish(
        self,
        sessions: Sequence[Session],
        tasks: Mapping[str, Sequence[Task]] | None = None,
        success_file: bool | None = None,
    ) -> list[int]:
        """Publishes sessions of different datasets at one instant: readers see the versions of all of them or none.

        >>> days = [client.session(f"/features/day={day}") for day in (1, 2)]     # doctest: +SKIP
        >>> for day in days: day.put(table)                                        # doctest: +SKIP
        >>> client.publish(days)                                                   # doctest: +SKIP
        [1, 1]

        Args:
            sessions: at most 1,000, one of each dataset.
            tasks: by the ids of sessions the attempts that count; of those that are not named the first attempt of each task that ended
                well.
            success_file: also writes `_SUCCESS` beside each version; None: when `Client.session` said so for one of them.

        Returns:
            The versions, in the order of the sessions. Twice gives the same.

        Raises:
            FailedPrecondition: one of them has ended in another way, or a put of it is under way. Then none is published, and all are open.
        """
        if not sessions:
            return []
        return publish(self, sessions, tasks or {}, success_file)

    def versions(self, path: str) -> list[dict[str, Any]]:
        """The versions that are kept, oldest first: `version`, `session`, `published`, `rows`, `bytes`, `parts`."""
        return self.act("versions", path=path)

    # ---- actions

    def status(self) -> dict[str, Any]:
        """What is dirty, cached, queued, blocked and in conflict; `dirty_bytes`, `oldest_dirty_seconds` and so on. Times are in seconds."""
        [status] = self.act("status")
        return status

    def act(self, name: str, **body: Any) -> Results:
        """Any action by its name: `client.act("rename", **{"from": "/a", "to": "/b"})`.

        Those that change nothing, and `publish` and `abort`, are asked again while the server is away.

        Returns:
            A list with one dict a result; of a single result also its keys, `client.act("stat", path="/a")["size"]`.

        Raises:
            Unimplemented: there is no such action; `actions()` tells all.
        """
        payload = json.dumps(body).encode()

        def ask() -> Results:
            # `wait_persisted` has a timeout of its own in its body.
            with self.connection.call(None if body.get("wait") or name == "wait_persisted" else self.connection.options.timeout) as call:
                results = call.flight.do_action(fl.Action(name, payload), call.options)
                return Results(json.loads(result.body.to_pybytes()) for result in results)

        return self.connection.repeat(ask) if name in _REPEATABLE else ask()

    def actions(self) -> dict[str, str]:
        """All actions of this server, with what each takes and does."""
        with self.connection.short() as call:
            return {action.type: action.description for action in call.flight.list_actions(call.options)}

    # ---- files

    def open(self, path: str, mode: str = "rb", *, ack: str | None = None, buffering: int = _BUFFER_BYTES, **text: Any) -> IO[Any]:
        """A file as a stream: `"rb"`, `"wb"`, `"ab"` or `"xb"`, or the same without `b` for text.

        Args:
            path: the file; parents are made.
            mode: `x` fails where something is.
            ack: level of a write; None: the server's default.
            buffering: bytes; 0: reads and writes go as they are.
            text: `encoding`, `errors`, `newline` for text.

        Returns:
            A buffered stream. A written file is visible with `close()`; left by an exception it is given up.
        """
        raw = open_file(self.connection, path, mode.replace("t", ""), self.stat, ack=ack)
        if mode.startswith("x") and self.exists(path):
            raw.discard()  # type: ignore[union-attr]
            raise AlreadyExists(f"{path} exists already")
        stream: Any = raw
        if isinstance(raw, FileReader):
            stream = io.BufferedReader(raw, buffering) if buffering else raw
        return stream if "b" in mode else text_stream(stream, text)

    def read_bytes(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file, or `length` bytes from `offset` on; short only at the end of the file."""
        return self.connection.repeat(lambda: read_bytes(self.connection, path, offset, length))

    def write_bytes(
        self, path: str, content: Any, mode: str = "overwrite", *, if_etag: str | None = None, ack: str | None = None
    ) -> None:
        """Writes a whole file; mode as for `put`.

        With `if_etag` it overwrites the file that has this etag, which `stat` and `list` tell, and no other.

        Raises:
            FailedPrecondition: the file has another etag by now, or is not there; nothing has changed.
        """
        with FileWriter(self.connection, path, mode, if_etag=if_etag, ack=ack) as file:
            file.write(content)

    def stat(self, path: str) -> dict[str, Any]:
        """One entry: `path`, `kind` (`file`, `dir`, `symlink`), `size` in bytes, `mtime` (RFC 3339), `mode`, `state`, `etag`, `version`,
        `attributes` (extended ones, `user.NAME` by NAME, where there are any).

        Raises:
            NotFound: there is nothing.
            NotADirectory: the path leads through a file.
        """
        try:
            [entry] = self.act("stat", path=path)
        except FailedPrecondition as error:
            raise NotADirectory(str(error)) from error  # the one state that a look can meet
        return entry

    def exists(self, path: str) -> bool:
        """Whether there is something."""
        try:
            self.stat(path)
        except (NotFound, NotADirectory):
            return False
        return True

    def list(self, path: str, recursive: bool = False, page: int = 10_000) -> Iterator[dict[str, Any]]:
        """The entries of a directory, as `stat` has them, by path; with `recursive` all under it. They are asked for in pages."""
        after: dict[str, Any] = {}
        while True:
            entries = self.act("list", path=path, recursive=recursive, limit=page, **after)
            yield from entries
            if len(entries) < page:
                return
            after = {"after": entries[-1]["path"]}


def _task(of: Task | None) -> dict[str, Any] | None:
    return task(of)


def _read_keys(
    version: int | None,
    columns: Sequence[str] | None,
    filter: str | None,
    limit: int | None,
    session: str | None,
    resume: str | None,
    wait: float | str | None,
) -> dict[str, Any]:
    if isinstance(columns, str):
        raise InvalidArgument(f"columns is a list of names; write [{columns!r}]")
    keys = {"version": version, "columns": None if columns is None else list(columns), "filter": filter, "limit": limit}
    return keys | {"session": session, "from": resume, "wait": span(wait)}
