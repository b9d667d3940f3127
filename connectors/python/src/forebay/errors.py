"""One exception for each kind of error that a server tells, so that a caller can say what it does about which.

Each is a `ForebayError`; most are also the built-in exception that Python programs expect in such a place, so `except FileNotFoundError`
catches a `NotFound`. The text is the server's: what happened, where, and what to do.

This module owns the way from pyarrow's exceptions to ours. It does not retry; `forebay.connection` does.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence

import pyarrow.flight as fl


class ForebayError(Exception):
    """Something went wrong at the server or on the way to it.

    Attributes:
        code: the gRPC code's name, `"NOT_FOUND"`.
        token: the idempotency token to ask again with, where the outcome of a write is unknown; else None.
        retry_after: seconds that the server asks to wait before another attempt; None where it does not say.
    """

    code = "UNKNOWN"
    token: str | None = None
    retry_after: float | None = None


class InvalidArgument(ForebayError, ValueError):
    """The request is wrong: correct it."""

    code = "INVALID_ARGUMENT"


class NotFound(ForebayError, FileNotFoundError):
    """There is nothing of that name, or no such version or session."""

    code = "NOT_FOUND"


class AlreadyExists(ForebayError, FileExistsError):
    """There is something of that name already."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(ForebayError):
    """What is there is not in the state that the request needs: another schema, a session that ended, a directory that is not empty."""

    code = "FAILED_PRECONDITION"


class NotADirectory(FailedPrecondition, NotADirectoryError):
    """The path leads through a file."""


class IsADirectory(FailedPrecondition, IsADirectoryError):
    """There is a directory where a file is needed."""


class NotEmpty(FailedPrecondition, OSError):
    """The directory has entries; `errno` is `ENOTEMPTY`."""

    def __init__(self, *text: object) -> None:
        super().__init__(*text)
        self.errno = errno.ENOTEMPTY


class Aborted(ForebayError):
    """Lost to another attempt, or the session that was followed was aborted: begin anew."""

    code = "ABORTED"


class ResourceExhausted(ForebayError):
    """The cache is full of what exists only there, or a limit is reached: wait `retry_after` seconds, or send less at once."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ForebayError, ConnectionError):
    """The server, or a store behind it, is away: try again."""

    code = "UNAVAILABLE"


class Unimplemented(ForebayError, NotImplementedError):
    """This server does not offer that."""

    code = "UNIMPLEMENTED"


class PermissionDenied(ForebayError, PermissionError):
    """This user may not do that there."""

    code = "PERMISSION_DENIED"


class Unauthenticated(ForebayError, PermissionError):
    """The server does not know who asks: give a token or a certificate. Also a ticket that is forged or has expired."""

    code = "UNAUTHENTICATED"


class DataLoss(ForebayError, OSError):
    """Stored bytes are damaged; the text names the file and the range."""

    code = "DATA_LOSS"


class DeadlineExceeded(ForebayError, TimeoutError):
    """Not in time. The outcome of a write is unknown: ask again with `token`."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(ForebayError):
    """The call was given up by this side."""

    code = "CANCELLED"


class Internal(ForebayError):
    """A defect, of the server or of this client; the server's log says more."""

    code = "INTERNAL"


# How pyarrow names the codes in its texts. The text is all it gives: four of them are one exception there.
_NAMES: dict[str, type[ForebayError]] = {
    "invalid argument": InvalidArgument,
    "out-of-range": InvalidArgument,
    "not found": NotFound,
    "already exists": AlreadyExists,
    "precondition failed": FailedPrecondition,
    "aborted": Aborted,
    "resource exhausted": ResourceExhausted,
    "unavailable": Unavailable,
    "unimplemented": Unimplemented,
    "unauthorized": PermissionDenied,
    "unauthenticated": Unauthenticated,
    "data loss": DataLoss,
    "timeout": DeadlineExceeded,
    "internal": Internal,
}
_TYPES: list[tuple[type[BaseException], type[ForebayError]]] = [
    (fl.FlightUnavailableError, Unavailable),
    (fl.FlightUnauthenticatedError, Unauthenticated),
    (fl.FlightUnauthorizedError, PermissionDenied),
    (fl.FlightTimedOutError, DeadlineExceeded),
    (fl.FlightCancelledError, Cancelled),
    (fl.FlightError, Internal),
]
_TOLD = re.compile(r"(?:Flight|gRPC) returned (?P<name>[a-z -]+?) error, with message: (?P<text>.*)", re.S)
_OTHERWISE = re.compile(r"Flight (?:cancelled call, |RPC failed )with message: (?P<text>.*)", re.S)
_BEHIND = re.compile(r"\.? (?:gRPC client debug context|Client context|Detail):.*", re.S)
# A connection that breaks in the middle is told in many ways; all of them mean that the other side is away.
_BROKEN = re.compile(
    r"stream removed|rst_stream|connection reset|socket closed|broken pipe|goaway|ping timeout|connection (?:was )?(?:lost|refused)", re.I
)


def from_arrow(error: BaseException, trailers: Mapping[str, Sequence[str | bytes]] | None = None) -> BaseException:
    """The exception of ours that says what pyarrow's `error` does; `error` itself where it is no answer of a server.

    Args:
        error: what pyarrow raised.
        trailers: response metadata of the call, name to values; tells the token and how long to wait.
    """
    found = _understood(str(error))
    if found is None:
        kind = next((ours for theirs, ours in _TYPES if isinstance(error, theirs)), None)
        found = (kind, str(error)) if kind else None
    if found is None:
        return error
    kind, text = found
    if kind in (Internal, Cancelled, ForebayError) and _BROKEN.search(text):
        kind = Unavailable
    ours = kind(text)
    ours.token = _trailer(trailers, "forebay-token")
    waits = _trailer(trailers, "retry-after-ms")
    ours.retry_after = int(waits) / 1000 if waits and waits.isdigit() else None
    return ours


def _understood(text: str) -> tuple[type[ForebayError], str] | None:
    if told := _TOLD.search(text):
        return _NAMES.get(told["name"], ForebayError), _BEHIND.sub("", told["text"])
    if told := _OTHERWISE.search(text):
        return (Cancelled if "cancelled call" in told[0] else Internal), _BEHIND.sub("", told["text"])
    return None


def _trailer(trailers: Mapping[str, Sequence[str | bytes]] | None, name: str) -> str | None:
    values = (trailers or {}).get(name)
    if not values:
        return None
    value = values[-1]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
