"""Shares of rows: nothing twice, nothing left out, and what is left after any number of items."""

import itertools
import random

from forebay import shares


def rows_of(ranges):
    return [row for start, end in ranges for row in range(start, end)]


def test_ranks_and_workers_share_all_rows_without_overlap():
    for rows, world, workers, block in itertools.product([0, 1, 5, 17, 100], [1, 2, 3], [1, 2, 5], [1, 3, 8]):
        ranks = [shares.of_rank(rows, world, rank) for rank in range(world)]
        assert rows_of(itertools.chain(*ranks)) == list(range(rows))
        for ranges in ranks:
            parts = [shares.split(ranges, block, workers, worker) for worker in range(workers)]
            assert rows_of(itertools.chain(*parts)) == rows_of(ranges)
            assert sum(shares.items(part, block, False) for part in parts) == -(-len(rows_of(ranges)) // block)


def test_even_ranks_have_as_many_rows():
    assert {len(rows_of(shares.of_rank(17, 4, rank, even=True))) for rank in range(4)} == {4}


def test_what_is_left_may_be_shared_out_anew():
    for taken in range(12):
        left = [left for part in range(3) for left in shares.behind(shares.split([(0, 100)], 8, 3, part), 8, min(taken, 5))]
        again = [rows_of(shares.split(left, 8, 4, part)) for part in range(4)]
        assert sorted(itertools.chain(*again)) == rows_of(left)
        assert len(rows_of(left)) >= 100 - 8 * 3 * min(taken, 5)


def asked_in_turn(items_of, yielded, size, drop_last):
    """What PyTorch's loader does, step by step."""
    left = [[min(size, has - k) for k in range(0, has, size) if not drop_last or has - k >= size] for has in items_of]
    taken = [0] * len(items_of)
    turn = itertools.cycle(range(len(items_of)))
    while yielded and any(left):
        worker = next(turn)
        if left[worker]:
            taken[worker] += left[worker].pop(0)
            yielded -= 1
    return taken


def test_what_a_loader_took_of_each_worker_is_known_by_how_much_it_gave():
    chance = random.Random(7)
    for _ in range(2000):
        items_of = [chance.randrange(12) for _ in range(chance.randrange(1, 5))]
        yielded, size, drop_last = chance.randrange(50), chance.choice([1, 2, 5]), chance.random() < 0.3
        expected = asked_in_turn(items_of, yielded, size, drop_last)
        assert shares.taken_by_each(items_of, yielded, size, drop_last) == expected, (items_of, yielded, size, drop_last)
