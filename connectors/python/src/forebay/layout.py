"""Where the rows of a version lie, and reading a range of them.

A reader that begins in the middle needs to know which batch has its first row. The server tells how many rows a part has; the batches of
one part are counted by reading that part without a column, which brings nothing but numbers. What is not needed is not counted.

A range is read ahead of its consumer by threads, also into the next part, up to a bound of bytes. What lies behind its last row is not
asked for: so a part is begun early only where the rows of those before it are known.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from .ahead import InOrder
from .connection import Connection
from .reading import Chunk, EndpointStream, Plan

BYTES_AHEAD = 64 << 20  # in each process that reads
STREAMS = 2  # the part that is consumed, and the one after it


class Layout:
    """The rows of one version, or of what a filter leaves of it, by number.

    Args:
        connection: to the server.
        path: the dataset.
        version: its version; None: what others wrote as files, which has none and is read as it is now.
        columns: what a reader gets; None: all.
        filter: SQL expression; rows are numbered among those that it leaves.
        bytes_ahead: bytes of batches that `read` keeps before they are wanted; the batch that goes beyond them is kept too, and each of
            two streams has one in hand.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        version: int | None,
        columns: list[str] | None,
        filter: str | None,
        bytes_ahead: int = BYTES_AHEAD,
    ) -> None:
        self._connection, self._path, self._version = connection, path, version
        self._columns, self._filter, self._bytes_ahead = columns, filter, bytes_ahead
        self._counts: dict[int, list[int]] = {}
        self._plan, self._numbers = self._ask(columns), self._ask([])
        self._told = [_told(endpoint) if filter is None else None for endpoint in self._plan.endpoints]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_plan", "_numbers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._plan, self._numbers = self._ask(self._columns), self._ask([])

    @property
    def schema(self) -> pa.Schema:
        """Of what a reader gets."""
        return self._plan.schema

    @property
    def rows(self) -> int:
        """Rows in all. With a filter they are counted first."""
        if self._plan.rows is not None:
            return self._plan.rows
        return sum(map(self.rows_of_part, range(len(self._plan.endpoints))))

    def rows_of_part(self, part: int) -> int:
        """Rows of a part."""
        told = self._told[part]
        if told and part not in self._counts:
            return told["rows"]
        if len(self._told) == 1 and self._plan.rows is not None:
            return self._plan.rows
        return sum(self.batches_of_part(part))

    def batches_of_part(self, part: int) -> list[int]:
        """How many rows each batch of a part has; those without a row may be missing."""
        if part not in self._counts:
            self._counts[part] = [batch.num_rows for batch, _ in EndpointStream(self._numbers, part)]
        return self._counts[part]

    def read(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """The rows from `start` up to `end`, as slices of the batches that have them. Batches are read ahead of the one given last."""
        if start >= end:
            return
        part, offset = self.place_of(start)
        plan, index, skip = self._place(start)
        # Endpoints from here on are those of the parts, so that it is known how many rows each has.
        aligned, before = len(plan.endpoints) - index == len(self._told) - part, offset - skip
        while start < end and index < len(plan.endpoints):
            wanted = self._wanted(part, before, skip + end - start) if aligned else [skip + end - start]
            openers = [partial(_FirstRows, plan, index + k, k % STREAMS, rows) for k, rows in enumerate(wanted)]
            chunks = InOrder(openers, min(STREAMS, len(openers)), self._bytes_ahead)
            # Also where the process ends while a consumer stands in the middle.
            close = weakref.finalize(self, chunks.close)
            try:
                for batch, _ in chunks:
                    rows = batch.slice(skip, end - start)
                    skip = max(0, skip - batch.num_rows)
                    start += rows.num_rows
                    if rows.num_rows:
                        yield rows
            finally:
                close()
            part, index, before = part + len(wanted), index + len(wanted), 0

    def _wanted(self, part: int, before: int, rows: int) -> list[int]:
        """How many of `rows` rows come from `part`, behind its row `before`, and from each part after it, as far as is known unasked."""
        wanted: list[int] = []
        while rows > 0 and part < len(self._told):
            told = self._told[part]
            known = told["rows"] if told else sum(self._counts[part]) if part in self._counts else None
            if known is None:
                return [*wanted, rows]
            wanted.append(min(rows, known - before))
            rows, part, before = rows - wanted[-1], part + 1, 0
        return wanted

    def place_of(self, row: int) -> tuple[int, int]:
        """The part that has a row, and which of its rows it is."""
        part = 0
        while row >= (rows := self.rows_of_part(part)):
            row, part = row - rows, part + 1
        return part, row

    def _place(self, row: int) -> tuple[Plan, int, int]:
        """A plan, which of its endpoints comes first, and how many rows of that come before `row`."""
        part, offset = self.place_of(row)
        is_counted = offset and self._version is not None and self._filter is None
        before = self._batches_before(part) if is_counted else None
        if before is None:
            return self._plan, part, offset
        batch, offset = _batch_of(self.batches_of_part(part), offset)
        return self._ask(self._columns, f"{self._version}:{before + batch}"), 0, offset

    def _batches_before(self, part: int) -> int | None:
        """Batches of the parts before it; None where some may not have been counted, being empty."""
        told = [each["batches"] for each in self._told[: part + 1] if each]
        if len(told) == part + 1 and len(self.batches_of_part(part)) == told[part]:
            return sum(told[:part])
        counted = [len(self.batches_of_part(k)) for k in range(len(self._told))]
        return sum(counted[:part]) if sum(counted) == self._plan.note["batches"] else None

    def _ask(self, columns: list[str] | None, at: str | None = None) -> Plan:
        keys = {"kind": "dataset", "version": None if at else self._version, "columns": columns, "filter": self._filter, "from": at}
        return Plan(self._connection, self._path, keys, self._connection.options.timeout)


class _FirstRows:
    """The chunks of an endpoint that have its first `rows` rows."""

    def __init__(self, plan: Plan, index: int, lane: int, rows: int) -> None:
        self._stream, self._left = EndpointStream(plan, index, lane), rows

    def __iter__(self) -> _FirstRows:
        return self

    def __next__(self) -> Chunk:
        if self._left <= 0:
            raise StopIteration
        chunk = next(self._stream)
        self._left -= chunk[0].num_rows
        return chunk

    def close(self) -> None:
        self._stream.close()


def _batch_of(counts: list[int], row: int) -> tuple[int, int]:
    batch = 0
    while row >= counts[batch]:
        row, batch = row - counts[batch], batch + 1
    return batch, row


def _told(endpoint: Any) -> dict[str, int] | None:
    """What an endpoint says of its part: `{"rows", "batches"}`; None where the server does not."""
    note = bytes(getattr(endpoint, "app_metadata", b"") or b"")
    told = json.loads(note) if note.startswith(b"{") else {}
    return told if {"rows", "batches"} <= told.keys() else None
