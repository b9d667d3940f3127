"""`IterableDataset`: a version's rows, shared out among ranks and workers, or a dataset while it is written.

# Who reads what
Of a version each rank has a contiguous range of rows, and of that each DataLoader worker a contiguous run of batches: every reader asks the
server only for its own. A follower can not know how much will come, so every reader follows the whole stream and keeps its turn: batch j
(or row j) of the stream goes to reader j modulo the number of readers, ranks first.

# What state_dict says
What is left: ranges of rows, or for a follower how many items each reader has had since where. In a worker (torchdata's
StatefulDataLoader asks there) it is the worker's own; in the training process it is the rank's. PyTorch's own DataLoader reads ahead in its
workers and tells the dataset nothing, so its iterator is watched here: what counts is what the loop was given.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch.utils.data
from torch.utils.data.dataloader import _BaseDataLoaderIter

from .. import shares
from ..address import split_url
from ..client import connect
from ..errors import FailedPrecondition, InvalidArgument
from ..layout import BYTES_AHEAD, Layout
from ..reading import Plan
from . import tensors
from .batches import exactly, in_turn
from .place import in_worker, rank_and_world, worker_and_count


class IterableDataset(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """Rows or batches of a dataset. With `DataLoader` give it `batch_size=None`, and the size here, which copies less.

    The version is settled when this is made, so all epochs and workers read the same; `refresh()` goes to the newest. Ranks that are
    started while someone publishes should be given the same `version`. A directory of files that others wrote has no versions: it is read
    as it is, and must not be changed meanwhile.

    Args:
        url: `"forebay://host:port/features/day=1"`, or a bare path on the server of `FOREBAY_ADDR`.
        columns: names; None: all.
        batch_size: rows in an item; None: an item is one row.
        follow: reads the newest version and then the live session while it is written, to its publish.
        version: a published version; None: the newest.
        filter: SQL expression over the columns. Matching rows are counted first, so that they can be shared out.
        wait: seconds to wait for the dataset to come into being, where it is not there yet.
        drop_last: leaves out a rank's last batch where it is short.
        even: leaves out the last `rows % world` rows, so that all ranks have as many.
        bytes_ahead: bytes of batches of a version that each process keeps before they are wanted, 64 MiB unless given. They are read while
            the loop computes, also from the next part. What a follower has not been asked for waits at the server.
        rank, world: which reader of how many this process is; None: from `torch.distributed`, else RANK and WORLD_SIZE.
        connection: `token`, `tls_ca`, `retry_for` and so on, as for `forebay.connect`.

    Raises:
        NotFound: there is no such dataset or version.
        InvalidArgument: a wrong argument or column; while reading: a null that no tensor can hold.

    Attributes:
        schema: Arrow's, of the columns.
        version: what is read; None for a follower, and for what others wrote as files.
    """

    def __init__(
        self,
        url: str,
        columns: Sequence[str] | None = None,
        batch_size: int | None = None,
        follow: bool = False,
        *,
        version: int | None = None,
        filter: str | None = None,
        wait: float | None = None,
        drop_last: bool = False,
        even: bool = False,
        bytes_ahead: int = BYTES_AHEAD,
        rank: int | None = None,
        world: int | None = None,
        **connection: Any,
    ) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise InvalidArgument(f"batch_size is {batch_size}; it is at least 1, or None for rows")
        if (rank is None) != (world is None) or (world is not None and rank is not None and not 0 <= rank < world):
            raise InvalidArgument(f"rank={rank} and world={world} do not name one of several readers")
        if follow and (version is not None or even):
            raise InvalidArgument("a follower reads what comes: `version` and `even` do not go with it")
        server, self.path = split_url(url)
        self.client = connect(server, **connection)
        self.columns, self.batch_size, self.follow = None if columns is None else list(columns), batch_size, follow
        self.filter, self.drop_last, self.even, self.bytes_ahead = filter, drop_last, even, bytes_ahead
        self._place = (rank, world) if rank is not None and world is not None else None
        self._layout: Layout | None = None
        self._begin_follow(wait) if follow else self._settle(version, wait)
        self._resume: dict[str, Any] | None = None
        self._forget_epoch()

    # What this process has had of the epoch, by its own iteration or from a loader with workers.
    _own: list[shares.Range] | None
    _follow_taken: dict[str, int] | None
    _loader: weakref.ref[Any] | None
    _loader_base: dict[str, Any] | None
    _loader_kind: tuple[int, int | None, bool]

    def refresh(self) -> int | None:
        """Goes to the newest version for the epochs to come; the version. A follower begins with what is newest then."""
        self._begin_follow(None) if self.follow else self._settle(None, None)
        self._resume = None
        self._forget_epoch()
        return self.version

    def __len__(self) -> int:
        """Items of this rank in an epoch. A follower has no length."""
        if self.follow:
            raise TypeError("nobody knows how long a dataset that is followed will be")
        return shares.items(self._rank_rows(), self._block, self.drop_last)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        resume, self._resume = self._resume, None
        self._forget_epoch()
        return self._followed(resume) if self.follow else self._read(resume)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """What is left of the epoch, as plain data. It holds for another number of workers too, except for a follower."""
        about = {"path": self.path, "version": self.version, "batch_size": self.batch_size}
        if self.follow:
            return about | {"follow": self._follow_state()}
        return about | {"left": [list(each) for each in self._left()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration reads what `state` says is left; those after it everything.

        Raises:
            FailedPrecondition: the state is of another dataset, version or kind of reading.
        """
        of, here = (state.get("path"), state.get("batch_size"), "follow" in state), (self.path, self.batch_size, self.follow)
        if of != here:
            what = "(path, batch_size, follow)"
            raise FailedPrecondition(f"this state is of another way of reading: its {what} is {of}, the dataset's {here}")
        if not self.follow and state["version"] != self.version:
            self._settle(state["version"], None)
        self._forget_epoch()
        self._resume = state | {"own": in_worker()}

    # ---- a version

    @property
    def _block(self) -> int:
        return self.batch_size or 1

    def _settle(self, version: int | None, wait: float | None) -> None:
        keys = {"kind": "dataset", "version": version, "columns": self.columns, "filter": self.filter, "wait": f"{wait}s" if wait else None}
        plan = Plan(self.client.connection, self.path, keys, None if wait else self.client.connection.options.timeout)
        self.schema, self.version, self._rows = plan.schema, plan.note.get("version"), plan.rows
        self._layout = None

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        if self._layout is None:
            self._layout = Layout(self.client.connection, self.path, self.version, self.columns, self.filter, self.bytes_ahead)
        return self._layout

    def _rank_rows(self) -> list[shares.Range]:
        if self._rows is None:
            self._rows = self.layout.rows
        rank, world = self._place or rank_and_world()
        return shares.of_rank(self._rows, world, rank, self.even)

    def _read(self, resume: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """This process's share, item by item; what is left is right while the consumer has the last one."""
        self._own = mine = self._mine(resume)
        for position, (start, end) in enumerate(mine):
            batches = exactly(self.layout.read(start, end), self._block if self.batch_size else None)
            for batch in batches:
                if self.drop_last and batch.num_rows < self._block and self.batch_size:
                    continue
                converted = tensors.columns(batch)
                if self.batch_size:
                    start += batch.num_rows
                    self._own = [(start, end), *mine[position + 1 :]]
                    yield tensors.owned(converted) if in_worker() else converted
                    continue
                for row in tensors.rows(converted, batch.num_rows, in_worker()):
                    start += 1
                    self._own = [(start, end), *mine[position + 1 :]]
                    yield row
        self._own = []

    def _mine(self, resume: dict[str, Any] | None) -> list[shares.Range]:
        """The ranges of this process: the rank's, or a worker's share of them."""
        whole = [(a, b) for a, b in resume["left"]] if resume else self._rank_rows()
        # What a worker is told itself (by StatefulDataLoader) is its own already.
        if resume and resume["own"]:
            return whole
        worker, workers = worker_and_count()
        return shares.split(whole, self._block, workers, worker)

    def _left(self) -> list[shares.Range]:
        """Ranges that the consumer has not had yet."""
        if self._loader is not None:
            return self._left_of_loader()
        if self._own is not None:
            return [each for each in self._own if each[0] < each[1]]
        return self._mine(self._resume)

    def _left_of_loader(self) -> list[shares.Range]:
        workers, size, drop = self._loader_kind
        base = self._loader_base
        whole = [(a, b) for a, b in base["left"]] if base else self._rank_rows()
        each = [shares.split(whole, self._block, workers, k) for k in range(workers)]
        counts = [shares.items(ranges, self._block, self._drops) for ranges in each]
        taken = shares.taken_by_each(counts, self._loader_yielded, size, drop)
        return [left for ranges, used in zip(each, taken, strict=True) for left in shares.behind(ranges, self._block, used, self._drops)]

    @property
    def _drops(self) -> bool:
        return self.drop_last and self.batch_size is not None

    # ---- a follower

    def _begin_follow(self, wait: float | None) -> None:
        follow = self.client.follow(self.path, columns=self.columns, filter=self.filter, wait=wait)
        self.schema, self.version = follow.schema, None
        self._start = follow.start
        follow.close()

    def _followed(self, resume: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        rank, world = self._place or rank_and_world()
        worker, workers = worker_and_count()
        state = resume["follow"] if resume else {"start": self._start, "readers": world * workers, "taken": {}}
        if state["taken"] and state["readers"] != world * workers:
            raise FailedPrecondition(
                f"this state of a follower is for {state['readers']} readers (ranks times workers), and here are {world * workers}; "
                "what each had can not be shared out anew"
            )
        self._start = state["start"]
        reader = worker * world + rank
        taken = state["taken"].get(str(reader), 0)
        given = self._follow_taken = {str(reader): taken}
        self._follow_readers = world * workers
        follow = self.client.follow(self.path, self._start, columns=self.columns, filter=self.filter)
        try:
            for batch in in_turn(follow, self._block, reader, world * workers, skip=taken):
                if self._drops and batch.num_rows < self._block:
                    continue
                converted = tensors.columns(batch)
                for item in [converted] if self.batch_size else tensors.rows(converted, batch.num_rows, False):
                    given[str(reader)] += 1
                    yield tensors.owned(item) if in_worker() and self.batch_size else item
        finally:
            follow.close()

    def _follow_state(self) -> dict[str, Any]:
        if self._loader is not None:
            workers, size, _ = self._loader_kind
            rank, world = self._place or rank_and_world()
            before = self._loader_base["follow"]["taken"] if self._loader_base else {}
            rounds, some = divmod(self._loader_yielded, workers)
            given = {str(k * world + rank): (rounds + (k < some)) * (size or 1) for k in range(workers)}
            taken = {reader: before.get(reader, 0) + count for reader, count in given.items()}
            return {"start": self._start, "readers": world * workers, "taken": taken}
        if self._follow_taken is not None:
            return {"start": self._start, "readers": self._follow_readers, "taken": dict(self._follow_taken)}
        if self._resume is not None:
            return dict(self._resume["follow"])
        rank, world = self._place or rank_and_world()
        return {"start": self._start, "readers": world, "taken": {}}

    # ---- loaders

    def _forget_epoch(self) -> None:
        self._own, self._follow_taken, self._follow_readers = None, None, 1
        self._loader, self._loader_base = None, None
        self._loader_yielded, self._loader_kind = 0, (1, None, False)

    def _handed_out(self, loader: Any) -> None:
        """The loader's iterator has given one more to the training loop."""
        known: Any = self._loader() if self._loader is not None else None
        if known is not loader or loader._num_yielded <= self._loader_yielded:
            self._begin_epoch(loader)
        self._loader_yielded = loader._num_yielded

    def _ended(self, loader: Any) -> None:
        """The loader's iterator has no more; it may have had none."""
        if self._loader is None or self._loader() is not loader:
            self._begin_epoch(loader)

    def _begin_epoch(self, loader: Any) -> None:
        """An epoch by this loader: its workers have what was to be resumed."""
        base, self._resume = self._resume, None
        self._forget_epoch()
        self._loader, self._loader_base = weakref.ref(loader), base
        size = loader._index_sampler.batch_size if loader._auto_collation else None
        self._loader_kind = (loader._num_workers, size, bool(loader._drop_last))

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is started anew: it may not find rank and world there."""
        return self.__dict__ | {"_loader": None, "_place": self._place or rank_and_world()}


def _watch_loaders() -> None:
    """Has every DataLoader with workers tell a dataset of ours what it hands out: only its iterator knows, and nobody else is asked."""
    give = _BaseDataLoaderIter.__next__

    def give_and_tell(self: Any) -> Any:
        dataset = getattr(self, "_dataset", None)
        if not (isinstance(dataset, IterableDataset) and self._num_workers > 0):
            return give(self)
        try:
            item = give(self)
        except StopIteration:
            dataset._ended(self)
            raise
        dataset._handed_out(self)
        return item

    _BaseDataLoaderIter.__next__ = give_and_tell


_watch_loaders()
