"""Descriptors, resume tokens and paths: the words of the protocol. Calls nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.flight as fl

from .errors import InvalidArgument

Task = int | Mapping[str, Any]


def descriptor(path: str, **keys: Any) -> fl.FlightDescriptor:
    """The command with those keys that are not None."""
    return fl.FlightDescriptor.for_command(json.dumps({"path": path} | {k: v for k, v in keys.items() if v is not None}))


def task(of: Task | None) -> dict[str, Any] | None:
    """A task's number, or the whole `{"job", "stage", "task", "attempt"}`, as the protocol has it."""
    if of is None:
        return None
    return {"task": of} if isinstance(of, int) else dict(of)


def span(seconds: float | str | None) -> str | None:
    """A time as the protocol has it: "30s"; numbers are seconds."""
    return seconds if seconds is None or isinstance(seconds, str) else f"{round(seconds * 1000)}ms"


@dataclass(frozen=True)
class Resume:
    """`"<version or session>:<batches of it already read>"`."""

    of: str
    batches: int

    @classmethod
    def parse(cls, text: str) -> Resume:
        of, colon, batches = text.partition(":")
        if not (of and colon and batches.isdecimal() and batches.isascii()):
            raise InvalidArgument(f'{text[:80]!r} is no resume token; it is "<version or session>:<batches read>"')
        return cls(of, int(batches))

    def __str__(self) -> str:
        return f"{self.of}:{self.batches}"


class Position:
    """Counts what was read, in terms of resume tokens: the version's batches, then those of the live session behind it.

    Args:
        version: the version that is read, with the number of its batches; None: only a session is read.
        session: the session that is read, behind the version if there is one.
        at: where the reading begins, when not at the beginning.
    """

    def __init__(self, version: tuple[int, int] | None, session: str | None, at: Resume | None) -> None:
        self._version, self._session = version, session
        first = str(version[0]) if version else session
        if at is None and first is None:
            raise InvalidArgument("there is neither a version nor a session to count in")
        self._at = at or Resume(first or "", 0)
        self._settle()

    def count(self) -> None:
        """One more batch was read."""
        self._at = Resume(self._at.of, self._at.batches + 1)
        self._settle()

    @property
    def token(self) -> str:
        """Where to go on."""
        return str(self._at)

    def _settle(self) -> None:
        """Past the version's last batch the session's first is next."""
        if self._version and self._session and self._at.of == str(self._version[0]) and self._at.batches >= self._version[1]:
            self._at = Resume(self._session, 0)
