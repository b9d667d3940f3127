"""Who reads which rows: arithmetic on row numbers, without a server and without PyTorch.

Rows of a version are numbered from 0. A rank has one contiguous range of them; its workers have contiguous runs of blocks of that range, so
that only the rank's last block may be short. What is left of a share is again a list of ranges, which may be shared out anew, by another
number of workers too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Range = tuple[int, int]


def of_rank(rows: int, world: int, rank: int, even: bool = False) -> list[Range]:
    """The rows of a rank; ranks differ by one row at most, and by none where `even` leaves out the last `rows % world`."""
    if even:
        rows -= rows % world
    return _some((rows * rank // world, rows * (rank + 1) // world))


def blocks(ranges: Sequence[Range], block: int) -> int:
    """How many blocks the ranges have; the last one of each may be short."""
    return sum(_blocks(each, block) for each in ranges)


def split(ranges: Sequence[Range], block: int, parts: int, part: int) -> list[Range]:
    """The share of one of `parts` workers: a contiguous run of blocks."""
    count = blocks(ranges, block)
    return _run(ranges, block, count * part // parts, count * (part + 1) // parts)


def items(ranges: Sequence[Range], block: int, drop_last: bool) -> int:
    """How many items a reader of the ranges gives: a block each, short ones only without `drop_last`."""
    return sum((end - start) // block if drop_last else _blocks((start, end), block) for start, end in ranges)


def behind(ranges: Sequence[Range], block: int, taken: int, drop_last: bool = False) -> list[Range]:
    """What is left after `taken` items."""
    left: list[Range] = []
    for start, end in ranges:
        has = items([(start, end)], block, drop_last)
        used = min(has, taken)
        taken -= used
        if used < has:
            left.append((start + used * block, end))
    return left


def taken_by_each(items_of: Sequence[int], yielded: int, size: int | None, drop_last: bool = False) -> list[int]:
    """How many items each worker gave, after a loader that asks them in turn, and leaves out those that have no more, yielded so much.

    Args:
        items_of: how many items each worker has.
        yielded: what the loader gave: items, or batches of `size` items of one worker.
        size: items in a batch of the loader; None: it gives items as they are.
        drop_last: whether the loader drops a worker's last batch when it is short.
    """
    each = size or 1
    batches = [has // each if drop_last else -(-has // each) for has in items_of]
    given = [0] * len(batches)
    while yielded > 0 and any(g < b for g, b in zip(given, batches, strict=True)):
        # Whole rounds at once: as many as all who are left can make.
        left = [k for k, b in enumerate(batches) if given[k] < b]
        rounds = min(min(batches[k] - given[k] for k in left), yielded // len(left))
        for k in left if rounds else left[:yielded]:
            given[k] += rounds or 1
        yielded -= rounds * len(left) or min(yielded, len(left))
    return [min(has, g * each) for has, g in zip(items_of, given, strict=True)]


def _blocks(of: Range, block: int) -> int:
    return -(-(of[1] - of[0]) // block)


def _run(ranges: Sequence[Range], block: int, first: int, last: int) -> list[Range]:
    """From block `first` up to `last`."""

    def cut() -> Iterator[Range]:
        at = 0
        for start, end in ranges:
            count = _blocks((start, end), block)
            lower, upper = max(first - at, 0), min(last - at, count)
            if lower < upper:
                yield start + lower * block, min(start + upper * block, end)
            at += count

    return list(cut())


def _some(of: Range) -> list[Range]:
    return [of] if of[0] < of[1] else []
