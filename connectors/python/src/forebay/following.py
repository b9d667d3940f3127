"""Following a dataset while it is written, over lost connections and restarts of the server: every batch once, in order.

Owns where a follower stands, and what is left to read when the connection comes back: the session may have been published meanwhile, or
another one begun behind it.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from .commands import Position, Resume
from .connection import Call, Connection
from .errors import FailedPrecondition, ForebayError, Unavailable
from .reading import AGAIN, Batches, Chunk, Plan, end_stream, is_counted, next_chunk, open_stream


class Follow(Batches):
    """The head version's batches, then those of the live session as they are acknowledged, to its publish. See `Client.follow`.

    A broken connection is mended with the resume token. What is followed stays the same: the session that was live at the beginning. If it
    was published while the connection was down, its rest is read and the follower ends, whatever session is live by then.

    Attributes:
        start: the token of where it began, also where batches are not counted; None where there is nothing to count in.
    """

    def __init__(self, connection: Connection, path: str, keys: dict[str, Any]) -> None:
        self._connection, self._path, self._keys = connection, path, keys
        plan = self._plan(keys.get("from"))
        self.schema, self.version = plan.schema, None if keys.get("session") else plan.note.get("version")
        self.session = keys.get("session") or plan.note.get("session")
        self._counted = is_counted(keys)
        version = (self.version, plan.note["batches"]) if self.version else None
        resume = Resume.parse(keys["from"]) if keys.get("from") else None
        if resume and version and _is_version(resume.of):
            resume = Resume(str(version[0]), resume.batches)  # a later version only appended to it
        # What others wrote as files has neither versions nor sessions, so there is nothing to count in.
        place = Position(version, self.session, resume) if version or self.session or resume else None
        self._position = place if self._counted else None
        # Where the server's stream begins, and batches given since. Where they are not counted the beginning stays, and they are skipped.
        self.start: str | None = keys.get("from") or (place.token if place else None)
        self._from, self._since = self.start, 0
        self._legs: deque[tuple[Plan, int | None]] = deque([(plan, None)])
        self._call: Call | None = None
        self._skip = 0
        self._left: int | None = None
        self._broken: float | None = None

    def __next__(self) -> pa.RecordBatch:
        while self._legs:
            try:
                try:
                    chunk = self._next_of_leg()
                except Unavailable as away:
                    self._stop()
                    self._mend(away)
                    continue
            except ForebayError:
                self.close()
                raise
            if chunk is None:
                self._stop()
                self._legs.popleft()
                continue
            if self._skip:
                self._skip -= 1
                continue
            self._broken = None
            return self._deliver(chunk)
        raise StopIteration

    def close(self) -> None:
        self._stop()
        self._legs.clear()

    def __del__(self) -> None:
        if hasattr(self, "_legs"):
            self.close()

    def _deliver(self, chunk: Chunk) -> pa.RecordBatch:
        self._since += 1
        batch = self.given(chunk)
        if self._position:
            self._from, self._since = self._position.token, 0
        return batch

    def _next_of_leg(self) -> Chunk | None:
        """The next chunk of the first leg; None at its end."""
        plan, count = self._legs[0]
        if self._call is None:
            if not plan.endpoints:
                return None
            self._call, self._left = open_stream(plan, 0), count
        if self._left == 0:
            return None
        try:
            chunk = next_chunk(self._call)
        except StopIteration:
            return None
        self._left = None if self._left is None else self._left - 1
        return chunk

    def _stop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            end_stream(call)

    def _plan(self, at: str | None, **other: Any) -> Plan:
        """A follower's call waits at the server until there is a schema, so it has no end of its own."""
        return Plan(self._connection, self._path, self._keys | {"follow": True, "from": at} | other, None)

    def _mend(self, away: Unavailable) -> None:
        now = time.monotonic()
        self._broken = self._broken or now
        if now - self._broken >= self._connection.options.retry_for:
            raise away
        time.sleep(AGAIN)
        self._skip = self._since
        plan = self._plan(self._from)
        if plan.note.get("session") == self.session or self._keys.get("session"):
            self._legs = deque([(plan, None)])
        elif self._from and (self._counted or self._is_last(plan)):
            self._legs = self._rest(Resume.parse(self._from))
        else:
            raise FailedPrecondition(
                f"{self._path}: what was followed ended while the connection was down, others have written since, and with a filter or a "
                "limit it is not known where it ends; read it anew"
            )

    def _is_last(self, plan: Plan) -> bool:
        """Whether nothing was written behind the session, so that what it has ends where the dataset does."""
        if plan.note.get("session") or self._keys.get("limit") is not None:
            return False
        with self._connection.short() as call:
            body = json.dumps({"path": self._path}).encode()
            results = call.flight.do_action(fl.Action("versions", body), call.options)
            return bool([json.loads(result.body.to_pybytes()) for result in results][-1]["session"] == self.session)

    def _rest(self, at: Resume) -> deque[tuple[Plan, int | None]]:
        """What is left of a session that has ended meanwhile: in the order in which it was delivered, and nothing behind it."""
        legs: deque[tuple[Plan, int | None]] = deque()
        if at.of != self.session:
            legs.extend(self._version_legs(at))
            at = Resume(self.session, 0) if self.session else at
        if self.session:
            whole = Plan(self._connection, self._path, {"session": self.session}, None).note["batches"]
            legs.append((self._plan(str(at)), whole - at.batches if self._counted else None))
        return legs

    def _version_legs(self, at: Resume) -> Iterator[tuple[Plan, int | None]]:
        """The rest of the version, an endpoint a leg."""
        keys = {"from": str(at), "columns": self._keys.get("columns"), "filter": self._keys.get("filter")}
        plan = Plan(self._connection, self._path, keys, None)
        for endpoint in plan.endpoints:
            one = Plan.__new__(Plan)
            one.__dict__.update(plan.__dict__, endpoints=[endpoint])
            yield one, None


def _is_version(of: str) -> bool:
    """Session ids have at least twelve characters, so a short number is a version."""
    return of.isdecimal() and len(of) < 12
