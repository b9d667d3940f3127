"""Connections to a server, shared by threads, opened when they are needed, and left behind at a fork.

Owns: pyarrow's Flight clients, credentials on every call, response metadata (which pyarrow only shows to middleware), the way from its
exceptions to ours, and repeating what is safe to repeat. It does not know what is asked.

# Forks
gRPC cannot go on in a process that was forked while it ran: the first call there hangs for ever. PyTorch's DataLoader forks. So right
before a fork all connections without a call are closed, which ends gRPC's threads within milliseconds; both sides open new ones when they
need them. Where a stream is open at that moment, or a Flight client of the program's own is, the child refuses to connect with an error
that says what to do, instead of hanging. An object of pyarrow's that is merely kept, in a frame of an error's traceback too, keeps gRPC
running: so a call drops all of them when it ends.
"""

from __future__ import annotations

import glob
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import pyarrow.flight as fl

from .address import Address, Options, pem
from .errors import FailedPrecondition, InvalidArgument, Unavailable, from_arrow

T = TypeVar("T")
_PAUSE, _PAUSE_MAX = 0.05, 2.0  # seconds between attempts, doubled each time
_REUSE = "arrow-flight-reuse-connection:"
_GENERIC_OPTIONS: list[tuple[str, str | int]] = [
    # A peer whose machine is gone is noticed within a minute, also by a follower who waits for the next batch.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that was restarted is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Connection:
    """Everything that is needed to call a server. Threads may share it; it survives forks and can be pickled.

    Args:
        address: where the server is.
        options: credentials and patience.
    """

    def __init__(self, address: Address, options: Options) -> None:
        self.address, self.options = address, options
        self._clients: dict[tuple[str, int], fl.FlightClient] = {}
        self._lock, self._busy = threading.Lock(), 0
        _live.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Connection, (self.address, self.options)

    def call(self, timeout: float | None = None, *, locations: Sequence[Any] = (), lane: int = 0) -> Call:
        """One call, as a context manager: in it pyarrow's exceptions become ours.

        Args:
            timeout: seconds that it may take; None: no end.
            locations: where an endpoint says that it can be read; none: here.
            lane: calls of different lanes have different connections, so that they do not share one core of the server.
        """
        return Call(self, timeout, _uri_of(locations) or self.address.uri, lane)

    def short(self) -> Call:
        """A call that does not stream: the options say how long it may take."""
        return self.call(self.options.timeout)

    def repeat(self, ask: Callable[[], T]) -> T:
        """Calls `ask`, and again while the server is away, for `retry_for` seconds."""
        end, pause = time.monotonic() + self.options.retry_for, _PAUSE
        while True:
            try:
                return ask()
            except Unavailable as away:
                wait = max(pause, away.retry_after or 0) * random.uniform(0.75, 1.25)
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait)
            pause = min(2 * pause, _PAUSE_MAX)

    def close(self) -> None:
        """Closes what is open; a later call opens it anew."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    # ---- what a call needs

    def _client(self, uri: str, lane: int) -> fl.FlightClient:
        _refuse_after_a_bad_fork()
        with self._lock:
            client = self._clients.get((uri, lane))
            if client is None:
                client = self._clients[uri, lane] = self._connect(uri)
            self._busy += 1
            return client

    def _connect(self, uri: str) -> fl.FlightClient:
        options = self.options
        keywords: dict[str, Any] = {}
        if uri.startswith("grpc+tls:"):
            keywords = {
                "tls_root_certs": pem(options.tls_ca),
                "cert_chain": pem(options.tls_cert),
                "private_key": pem(options.tls_key),
                "override_hostname": options.tls_domain,
                "disable_server_verification": options.tls_insecure or None,
            }
        return fl.FlightClient(uri, middleware=[_Listening()], generic_options=_GENERIC_OPTIONS, **keywords)

    def _ended(self) -> None:
        with self._lock:
            self._busy -= 1

    def _rest(self) -> None:
        """Closes what no call needs."""
        if self._busy == 0:
            self.close()

    def _leave_to_parent(self) -> None:
        """In a forked child: what the parent had open is the parent's, and must not even be closed."""
        _parents.extend(self._clients.values())
        self._lock, self._busy, self._clients = threading.Lock(), 0, {}


class Call:
    """One call. `trailers` has the response metadata that came so far, name to values; `stream` is what a stream keeps until it ends."""

    def __init__(self, connection: Connection, timeout: float | None, uri: str, lane: int) -> None:
        self._connection, self._timeout, self._uri, self._lane = connection, timeout, uri, lane
        self._open = False
        self.stream: Any = None
        self.trailers: dict[str, Sequence[str | bytes]] = {}

    def __enter__(self) -> Call:
        self.flight = self._connection._client(self._uri, self._lane)
        self._open = True
        token = self._connection.options.token
        try:
            headers = [(b"authorization", f"Bearer {token}".encode("ascii"))] if token else []
        except UnicodeEncodeError:
            self.end()
            raise InvalidArgument("the token has characters that no token has") from None
        self.options = fl.FlightCallOptions(timeout=self._timeout, headers=headers)
        _starting.trailers = self.trailers
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end()
        if error is not None:
            self.raise_from(error)

    def raise_from(self, error: BaseException) -> None:
        """Raises what `error` means; returns where it means nothing else than it says."""
        ours = from_arrow(error, self.trailers)
        if ours is not error:
            raise ours from None

    def end(self) -> None:
        """Says that the call is over. It may be said twice."""
        if self._open:
            self._open = False
            self.flight, self.stream = None, None
            self._connection._ended()

    def trailer(self, name: str) -> str | None:
        """A value of the response metadata."""
        values = self.trailers.get(name)
        return str(values[-1]) if values else None


def _uri_of(locations: Sequence[Any]) -> str | None:
    """The first place that an endpoint names; None: the one that was asked."""
    for location in locations:
        uri = location.uri.decode() if isinstance(location.uri, bytes) else str(location.uri)
        if not uri.startswith(_REUSE):
            return uri.replace("grpc://", "grpc+tcp://", 1)
        return None
    return None


# ---- response metadata: middleware is made where a call starts, in its thread, and filled wherever the call goes on

_starting = threading.local()


class _Listening(fl.ClientMiddlewareFactory):  # type: ignore[misc]
    def start_call(self, info: Any) -> fl.ClientMiddleware:
        return _Listener(getattr(_starting, "trailers", {}))


class _Listener(fl.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, trailers: dict[str, Sequence[str | bytes]]) -> None:
        super().__init__()
        self._trailers = trailers

    def received_headers(self, headers: dict[str, Sequence[str | bytes]]) -> None:
        self._trailers.update(headers)


# ---- forks

_live: weakref.WeakSet[Connection] = weakref.WeakSet()
_parents: list[Any] = []
_unusable: str | None = None
# Each runtime of gRPC (pyarrow has its own, grpcio another) has one thread of such a name, the older ones of the second.
_ONE_OF_A_RUNTIME = ("lifeguard", "timer_manager")
_OTHERS_OF_A_RUNTIME = ("event_engine", "default-executo", "resolver-execut")
_GRPC_ENDS_WITHIN = 5.0  # seconds; three milliseconds are usual, more where the machine is busy
_POLL = 0.002
_ALIKE = 3  # looks in a row that find the same, where nothing of gRPC is left
_ALIKE_WITH_OTHERS = 20  # and where another runtime goes on


def _threads() -> dict[int, str]:
    """The threads of this process by number, with their names. Linux tells; elsewhere none are known."""
    found = {}
    for file in glob.glob("/proc/self/task/*/comm"):
        try:
            with open(file) as comm:
                found[int(file.split("/")[4])] = comm.read().strip()
        except OSError:  # it has just ended
            continue
    return found


def _of_grpc(threads: dict[int, str]) -> set[int]:
    names = _ONE_OF_A_RUNTIME + _OTHERS_OF_A_RUNTIME
    return {number for number, name in threads.items() if name in names or name.startswith("grpc")}


def _runtimes(threads: dict[int, str]) -> list[int]:
    """How many runtimes of gRPC there are, by kind."""
    names = list(threads.values())
    return [names.count(name) for name in _ONE_OF_A_RUNTIME]


def _before_fork() -> None:
    global _unusable
    open_here = [connection for connection in list(_live) if connection._clients]
    if not open_here:
        return
    before = _threads()
    for connection in open_here:
        connection._rest()
    if any(connection._clients for connection in open_here):
        _unusable = "while a stream from Forebay was open"
    elif _of_grpc(before) and not _ended_within(_GRPC_ENDS_WITHIN, before):
        _unusable = "while something else in it used pyarrow.flight"


def _ended_within(seconds: float, before: dict[int, str]) -> bool:
    """Waits until our runtime has ended: none is left, or one less than before, and no thread is at work to end it."""
    end, last, alike = time.monotonic() + seconds, None, 0
    while time.monotonic() < end:
        threads = _threads()
        of_grpc, runtimes = _of_grpc(threads), zip(_runtimes(threads), _runtimes(before), strict=True)
        new = threads.keys() - before.keys() - {thread.native_id for thread in threading.enumerate()}
        alike = alike + 1 if of_grpc == last else 0
        last = of_grpc
        if not new and (not of_grpc or any(now < then for now, then in runtimes)):
            if alike >= (_ALIKE_WITH_OTHERS if of_grpc else _ALIKE):
                return True
        time.sleep(_POLL)
    return False


def _after_fork_in_child() -> None:
    for connection in list(_live):
        connection._leave_to_parent()


def _after_fork_in_parent() -> None:
    global _unusable
    _unusable = None


def _refuse_after_a_bad_fork() -> None:
    if _unusable:
        raise FailedPrecondition(
            f"this process was forked {_unusable}, and gRPC cannot go on in such a process; close what is open before the fork, or start "
            "workers with multiprocessing_context='forkserver' or 'spawn'"
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child, after_in_parent=_after_fork_in_parent)
