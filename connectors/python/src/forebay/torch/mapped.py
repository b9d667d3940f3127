"""`MapDataset`: rows by number, or batches of them, for samplers that shuffle.

A row comes in the batch that has it, so batches are kept, the least lately used given up first. Shuffling over everything wants
`cache_bytes` above what a rank reads, or small batches; where neither is to be had, read with `IterableDataset` and shuffle in a buffer.
"""

from __future__ import annotations

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import torch.utils.data

from ..address import split_url
from ..client import connect
from ..errors import FailedPrecondition, InvalidArgument
from ..reading import EndpointStream, Plan
from . import tensors
from .batches import exactly
from .place import in_worker


class MapDataset(torch.utils.data.Dataset):  # type: ignore[misc]
    """The rows of a version by number, or batches of them; an item is a dict of column to tensor. Ranks are the sampler's business:
    `DistributedSampler`.

    Args:
        url: `"forebay://host:port/features/day=1"`, or a bare path on the server of `FOREBAY_ADDR`.
        columns: names; None: all.
        batch_size: rows in an item, of which the last has what is left: item k begins with row `k * batch_size`. With `DataLoader` give it
            `batch_size=None`. None: an item is one row.
        version: a published version; None: the newest when this is made.
        filter: SQL expression; the rows that it leaves are read into memory when the first is wanted.
        cache_bytes: bytes of batches that are kept, in each process; 1 GiB unless given.
        connection: `token`, `tls_ca`, `retry_for` and so on, as for `forebay.connect`.

    Raises:
        NotFound: there is no such dataset or version.
        IndexError: no such item.
        InvalidArgument: a null that no tensor can hold; a `batch_size` below 1.
    """

    def __init__(
        self,
        url: str,
        columns: Sequence[str] | None = None,
        batch_size: int | None = None,
        *,
        version: int | None = None,
        filter: str | None = None,
        cache_bytes: int = 1 << 30,
        **connection: Any,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidArgument(f"batch_size is {batch_size}; it is at least 1, or None for rows")
        server, self.path = split_url(url)
        self.client = connect(server, **connection)
        self.columns, self.filter, self.cache_bytes = None if columns is None else list(columns), filter, cache_bytes
        self.batch_size = batch_size
        self._settle(version)

    def __len__(self) -> int:
        """Items: rows, or batches of them."""
        return -(-self._rows() // (self.batch_size or 1))

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int]) -> list[dict[str, Any]]:
        """Several items; PyTorch asks so for a whole batch. Each stored batch that has some of their rows is read once."""
        count = len(self)
        wanted = [int(item) + count if item < 0 else int(item) for item in items]
        if wrong := [item for item in wanted if not 0 <= item < count]:
            kind = "rows" if self.batch_size is None else f"batches of {self.batch_size} rows"
            raise IndexError(f"{self.path} has {count} {kind}, and none with the number {wrong[0]}")
        size, rows = self.batch_size or 1, self._rows()
        found: dict[int, dict[str, Any]] = {}
        for item in sorted(set(wanted)):  # so that one kept batch is enough to read each once
            [batch] = exactly(self._slices(item * size, min(item * size + size, rows)), size)
            converted = tensors.columns(batch)
            if self.batch_size is None:
                found[item] = next(tensors.rows(converted, 1, in_worker()))
            else:
                found[item] = tensors.owned(converted) if in_worker() else converted
        return [found[item] for item in wanted]

    def state_dict(self) -> dict[str, Any]:
        """Which rows the numbers mean. Where a sampler stands is the sampler's to say."""
        size = {} if self.batch_size is None else {"batch_size": self.batch_size}
        return {"path": self.path, "version": self.version, **size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the version that `state` was of.

        Raises:
            FailedPrecondition: the state is of another dataset, or counts in batches of another size.
        """
        of, here = (state.get("path"), state.get("batch_size")), (self.path, self.batch_size)
        if of != here:
            raise FailedPrecondition(f"this state is of (path, batch_size) = {of}; the dataset is of {here}")
        if state["version"] != self.version:
            self._settle(state["version"])

    # ---- batches

    def _rows(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _slices(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows `start` to `end`, a piece of each batch that has some."""
        while start < end:
            number = bisect.bisect_right(self._ends, start)
            begin, stop = self._ends[number - 1] if number else 0, min(end, self._ends[number])
            yield self._batch(number).slice(start - begin, stop - start)
            start = stop

    def _settle(self, version: int | None) -> None:
        plan = self._plan(columns=[], version=version)
        self.version = plan.note.get("version")
        counts = [[batch.num_rows for batch, _ in EndpointStream(plan, k)] for k in range(len(plan.endpoints))]
        # A token counts all batches. Where empty ones were not told, a batch is found by its number among the others of its part.
        self._tokens = sum(map(len, counts)) == plan.note["batches"] and self.filter is None and self.version is not None
        counts = counts if self._tokens else [[rows for rows in each if rows] for each in counts]
        self._where = [(part, k) for part, each in enumerate(counts) for k in range(len(each))]
        self._ends = list(itertools.accumulate(itertools.chain.from_iterable(counts)))
        self._cache: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._cached = 0
        self._read: Plan | None = None

    def _plan(self, columns: Sequence[str] | None, version: int | None = None, at: str | None = None) -> Plan:
        keys = {"kind": "dataset", "version": version, "columns": columns, "filter": self.filter, "from": at}
        return Plan(self.client.connection, self.path, keys, self.client.connection.options.timeout)

    def _batch(self, number: int) -> pa.RecordBatch:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        if self.filter is not None:
            return self._all_batches()[number]
        batch = self._fetch(number)
        self._cache[number] = batch
        self._cached += batch.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return batch

    def _fetch(self, number: int) -> pa.RecordBatch:
        if self._tokens:
            plan, part, skip = self._plan(self.columns, at=f"{self.version}:{number}"), 0, 0
        else:
            self._read = self._read or self._plan(self.columns, self.version)
            plan, (part, skip) = self._read, self._where[number]
        stream = EndpointStream(plan, part)
        try:
            return next(itertools.islice(_with_rows(stream) if not self._tokens else (batch for batch, _ in stream), skip, None))
        finally:
            stream.close()

    def _all_batches(self) -> OrderedDict[int, pa.RecordBatch]:
        plan = self._plan(self.columns, self.version)
        streams = (EndpointStream(plan, part) for part in range(len(plan.endpoints)))
        self._cache.update(enumerate(itertools.chain.from_iterable(map(_with_rows, streams))))
        return self._cache

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict(), "_cached": 0, "_read": None}


def _with_rows(stream: EndpointStream) -> Iterator[pa.RecordBatch]:
    return (batch for batch, _ in stream if batch.num_rows)
