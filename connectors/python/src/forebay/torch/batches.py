"""Batches of the size that was asked for, out of batches as they come. Without a copy where one of them has all the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def exactly(batches: Iterable[pa.RecordBatch], rows: int | None) -> Iterator[pa.RecordBatch]:
    """Batches of `rows` rows each, the last one of what is left; None: as they come."""
    if rows is None:
        yield from batches
        return
    waiting: list[pa.RecordBatch] = []
    have = 0
    for batch in batches:
        at = 0
        while at < batch.num_rows:
            piece = batch.slice(at, rows - have)
            at, have = at + piece.num_rows, have + piece.num_rows
            waiting.append(piece)
            if have == rows:
                yield _joined(waiting)
                waiting, have = [], 0
    if waiting:
        yield _joined(waiting)


def in_turn(batches: Iterable[pa.RecordBatch], rows: int, reader: int, readers: int, skip: int = 0) -> Iterator[pa.RecordBatch]:
    """Of blocks of `rows` rows each, those that it is this reader's turn to take: block j is reader j modulo `readers`'s.

    Args:
        batches: the whole stream.
        rows: of a block; the last one may be shorter.
        skip: blocks of this reader that it has had before.
    """
    first = (reader + skip * readers) * rows
    at = 0
    waiting: list[pa.RecordBatch] = []
    have = 0
    for batch in batches:
        begin, at = at, at + batch.num_rows
        while True:
            wanted = first + have
            if wanted >= at:
                break
            piece = batch.slice(wanted - begin, rows - have)
            waiting.append(piece)
            have += piece.num_rows
            if have == rows:
                yield _joined(waiting)
                waiting, have, first = [], 0, first + rows * readers
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(pieces) == 1:
        return pieces[0]
    [batch] = pa.Table.from_batches(pieces).combine_chunks().to_batches()
    return batch
