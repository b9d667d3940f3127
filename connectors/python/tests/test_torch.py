"""PyTorch: types, sharing over ranks and workers, state that holds with workers, following, forks."""

import collections
import itertools
import multiprocessing
import os
import threading
import time

import forebay
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="tests/setup.sh torch installs it")
pytestmark = pytest.mark.filterwarnings("ignore:Failed to initialize NumPy", "ignore:Exporting an unversioned DLPack")

from forebay.torch import (  # noqa: E402
    IterableDataset,
    MapDataset,
    tensors,  # noqa: E402
)
from torch.utils.data import DataLoader  # noqa: E402

ROWS = 1000


def url(server, path):
    return server.flight.replace("grpc://", "forebay://") + path


@pytest.fixture
def parts(client, path):
    """A thousand numbered rows in five parts of uneven batches, an empty batch among them."""
    bounds = [0, 1, 130, 131, 131, 400, 777, 778, 990, ROWS]
    batches = [pa.record_batch([pa.array(range(a, b), pa.int64()), pa.array([f"row {k}" for k in range(a, b)], pa.string())], names=["id", "s"])
               for a, b in itertools.pairwise(bounds)]  # fmt: skip
    with client.session(path) as session:
        for group in (batches[:3], batches[3:5], batches[5:6], batches[6:8], batches[8:]):
            session.put(group)
    return path


def ids(items):
    """Numbers of rows, of items that are rows or batches."""
    return [int(i) for item in items for i in item["id"].reshape(-1)]


class TestTensors:
    def convert(self, array):
        return tensors.column(array if isinstance(array, pa.Array) else pa.array(array), "c")

    @pytest.mark.parametrize(
        "kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.float16(), pa.float32(), pa.float64()], ids=str
    )
    def test_numbers_share_memory(self, kind):
        array = pa.array([1, 2, 3], pa.float64()).cast(kind)
        tensor = self.convert(array)
        assert tensor.tolist() == [1, 2, 3] and str(tensor.dtype).removeprefix("torch.") == {
            "halffloat": "float16",
            "float": "float32",
            "double": "float64",
        }.get(str(kind), str(kind))
        assert tensor.data_ptr() == array.buffers()[1].address
        assert self.convert(array.slice(1)).tolist() == [2, 3] and self.convert(array.slice(3)).dtype == tensor.dtype

    def test_unsigned_ones_are_widened(self):
        for kind, wide in ((pa.uint16(), torch.int32), (pa.uint32(), torch.int64), (pa.uint64(), torch.int64)):
            tensor = self.convert(pa.array([0, 2**kind.bit_width // 2 - 1], kind))
            assert tensor.dtype == wide and tensor.tolist() == [0, 2**kind.bit_width // 2 - 1]
        with pytest.raises(forebay.InvalidArgument, match="'c'.*beyond int64"):
            self.convert(pa.array([2**63], pa.uint64()))

    def test_booleans_times_and_decimals(self):
        import datetime
        import decimal

        assert self.convert([True, False, True]).tolist() == [True, False, True]
        assert self.convert(pa.array([True, False, True]).slice(1)).tolist() == [False, True]
        assert self.convert(pa.array([5], pa.timestamp("ms"))).tolist() == [5]
        assert self.convert([datetime.date(1970, 1, 3)]).tolist() == [2]
        assert self.convert([decimal.Decimal("1.25")]).tolist() == [1.25]

    def test_nulls(self):
        found = self.convert([1.0, None])
        assert found[0] == 1 and found[1].isnan()
        assert self.convert(["x", None]) == ["x", None]
        for array in ([1, None], [True, None], pa.array([[1.0], None], pa.list_(pa.float64(), 1))):
            with pytest.raises(forebay.InvalidArgument, match="'c'.*null"):
                self.convert(array)

    def test_text_bytes_and_dictionaries(self):
        assert self.convert(["a", "b"]) == ["a", "b"] and self.convert([b"\0", b""]) == [b"\0", b""]
        assert self.convert(pa.array(["x", "y", "x"]).dictionary_encode()) == ["x", "y", "x"]
        assert self.convert(pa.array([7, 8, 7]).dictionary_encode()).tolist() == [7, 8, 7]

    def test_lists(self):
        fixed = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2))
        assert self.convert(fixed).tolist() == [[1, 2], [3, 4], [5, 6]] and self.convert(fixed.slice(1, 1)).tolist() == [[3, 4]]
        assert self.convert(fixed).data_ptr() == fixed.values.buffers()[1].address
        deep = pa.array([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.int64(), 2), 2))
        assert self.convert(deep).shape == (1, 2, 2)
        ragged = pa.array([[1, 2], [], None, [3]])
        assert [None if each is None else each.tolist() for each in self.convert(ragged)] == [[1, 2], [], None, [3]]
        assert [each.tolist() for each in self.convert(pa.array([[9], [1, 2], [3]]).slice(1))] == [[1, 2], [3]]
        assert self.convert([["a"], []]) == [["a"], []]

    def test_tensors_and_structs(self):
        kind = pa.fixed_shape_tensor(pa.int32(), [2, 3])
        images = pa.ExtensionArray.from_storage(kind, pa.array([list(range(6)), list(range(6, 12))], pa.list_(pa.int32(), 6)))
        assert self.convert(images).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
        turned = pa.fixed_shape_tensor(pa.int32(), [2, 3], permutation=[1, 0])
        array = pa.ExtensionArray.from_storage(turned, pa.array([list(range(6))], pa.list_(pa.int32(), 6)))
        assert self.convert(array)[0].tolist() == array.to_tensor().to_numpy()[0].tolist()
        found = self.convert([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
        assert found["a"].tolist() == [1, 2] and found["b"] == ["x", "y"]
        [_, second] = tensors.rows({"c": found}, 2, own=True)
        assert second["c"]["b"] == "y" and second["c"]["a"] == 2


class TestSharing:
    @pytest.mark.parametrize("batch_size", [None, 1, 32, 5000])
    def test_alone_it_reads_everything_in_order(self, server, parts, batch_size):
        dataset = IterableDataset(url(server, parts), batch_size=batch_size)
        items = list(dataset)
        assert ids(items) == list(range(ROWS)) and len(items) == len(dataset)
        if batch_size:
            assert {len(item["s"]) for item in items[:-1]} <= {batch_size}
        else:
            assert items[7]["s"] == "row 7" and items[7]["id"].shape == ()
        assert ids(dataset) == list(range(ROWS)), "the next epoch"

    @pytest.mark.parametrize("world", [1, 2, 3])
    @pytest.mark.parametrize("workers", [0, 1, 3])
    @pytest.mark.parametrize("batch_size", [None, 64])
    def test_ranks_and_workers_have_every_row_once(self, server, parts, monkeypatch, world, workers, batch_size):
        found, of_ranks = [], []
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            dataset = IterableDataset(url(server, parts), batch_size=batch_size)
            loader = DataLoader(dataset, batch_size=None, num_workers=workers)
            mine = ids(loader)
            assert len(mine) == len(set(mine))
            found += mine
            of_ranks.append(len(mine))
        assert sorted(found) == list(range(ROWS))
        assert max(of_ranks) - min(of_ranks) <= 1

    def test_torch_distributed_says_rank_and_world(self, server, parts):
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        port = _free_port()
        ranks = [context.Process(target=_as_rank, args=(rank, port, url(server, parts), results)) for rank in range(2)]
        [process.start() for process in ranks]
        found = dict(results.get(timeout=60) for _ in ranks)
        [process.join(30) for process in ranks]
        assert found[0] == list(range(500)) and found[1] == list(range(500, ROWS))

    def test_columns_filter_version(self, server, client, parts):
        client.put(parts, pa.table({"id": [-1], "s": ["late"]}))
        old = IterableDataset(url(server, parts), columns=["id"], version=1)
        assert ids(old) == list(range(ROWS)) and set(next(iter(old))) == {"id"}
        few = IterableDataset(url(server, parts), columns=["s", "id"], filter="id % 10 = 3", batch_size=16)
        assert len(few) == 7 and sorted(ids(DataLoader(few, batch_size=None, num_workers=2))) == list(range(3, ROWS, 10))
        assert old.version == 1 and old.refresh() == 2 and -1 in ids(old)

    def test_drop_last_and_even(self, server, parts):
        assert [len(b["id"]) for b in IterableDataset(url(server, parts), batch_size=300, drop_last=True)] == [300, 300, 300]
        assert [len(IterableDataset(url(server, parts), rank=rank, world=3, even=True)) for rank in range(3)] == [333] * 3

    def test_loader_batches_of_rows(self, server, parts):
        loader = DataLoader(IterableDataset(url(server, parts)), batch_size=50, num_workers=2)
        batches = list(loader)
        assert len(batches) == 20 and sorted(ids(batches)) == list(range(ROWS)) and batches[0]["s"][3] == "row 3"

    @pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
    def test_workers_of_every_kind(self, server, client, parts, start):
        client.status()  # this process uses gRPC, too
        dataset = IterableDataset(url(server, parts), batch_size=100)
        loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=start, timeout=60)
        assert sorted(ids(loader)) == list(range(ROWS))
        assert client.status(), "this process goes on after its workers"

    def test_a_fork_within_a_stream_is_refused_and_does_not_hang(self, server, client, parts):
        dataset = IterableDataset(url(server, parts), batch_size=100)
        scan = client.scan(parts, parallel=1)
        next(scan)
        with pytest.raises(Exception, match="forkserver"):
            list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60))
        scan.close()
        assert sorted(ids(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60))) == list(
            range(ROWS)
        )

    @pytest.mark.parametrize(
        "keys", [{"batch_size": 0}, {"rank": 1}, {"rank": 2, "world": 2}, {"follow": True, "version": 1}, {"columns": ["nix"]}]
    )
    def test_wrong_arguments(self, server, parts, keys):
        with pytest.raises(forebay.InvalidArgument):
            IterableDataset(url(server, parts), **keys)

    def test_what_is_not_there(self, server, parts):
        with pytest.raises(forebay.NotFound):
            IterableDataset(url(server, parts + "-nix"))
        with pytest.raises(forebay.NotFound):
            IterableDataset(url(server, parts), version=9)

    def test_rank_and_world_that_are_none(self, server, parts, monkeypatch):
        monkeypatch.setenv("RANK", "2")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(forebay.InvalidArgument, match="RANK=2"):
            list(IterableDataset(url(server, parts)))

    def test_a_reader_in_the_middle_reads_little(self, server, client, path):
        """One batch of forty begins the share of the last of forty ranks: that is what is asked for."""
        client.put(path, [pa.table({"id": range(k * 1000, k * 1000 + 1000), "x": [bytes(1000)] * 1000}) for k in range(40)])
        last = IterableDataset(url(server, path), batch_size=1000, rank=39, world=40)
        plan, part, skip = last.layout._place(39_000)
        assert (part, skip) == (0, 0) and plan._keys["from"] == "1:39"
        assert ids(last) == list(range(39_000, 40_000))


class TestFilesOfOthers:
    @pytest.fixture
    def lake(self, client, path):
        import pyarrow.parquet as pq

        for k in range(3):
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table({"id": range(100 * k, 100 * k + 100)}), sink, row_group_size=30)
            client.write_bytes(f"{path}/{k}.parquet", sink.getvalue())
        return path

    @pytest.mark.parametrize("workers", [0, 2])
    def test_ranks_and_workers_share_them(self, server, lake, workers):
        found = [
            ids(DataLoader(IterableDataset(url(server, lake), batch_size=32, rank=k, world=2), batch_size=None, num_workers=workers))
            for k in (0, 1)
        ]
        assert sorted(found[0] + found[1]) == list(range(300)) and len(found[0]) == 150

    def test_state_following_and_numbers(self, server, lake):
        dataset = IterableDataset(url(server, lake), batch_size=32)
        first = ids(itertools.islice(dataset, 4))
        other = IterableDataset(url(server, lake), batch_size=32)
        other.load_state_dict(dataset.state_dict())
        assert dataset.version is None and first + ids(other) == list(range(300))
        assert ids(IterableDataset(url(server, lake), batch_size=32, follow=True)) == list(range(300))
        assert [int(MapDataset(url(server, lake))[k]["id"]) for k in (299, 0, 129, 130)] == [299, 0, 129, 130]


class TestState:
    @pytest.mark.parametrize("workers", [0, 3])
    @pytest.mark.parametrize(("batch_size", "loader_batch"), [(None, None), (64, None), (None, 10)])
    @pytest.mark.parametrize("taken", [1, 9, 10_000])
    def test_what_was_taken_is_not_read_again_and_all_the_rest_is(self, server, parts, workers, batch_size, loader_batch, taken):
        def loader(dataset, workers):
            return DataLoader(dataset, batch_size=loader_batch, num_workers=workers)

        dataset = IterableDataset(url(server, parts), batch_size=batch_size)
        first = ids(itertools.islice(loader(dataset, workers), taken))
        state = dataset.state_dict()
        for again in (workers, 2):
            other = IterableDataset(url(server, parts), batch_size=batch_size)
            other.load_state_dict(state)
            rest = ids(loader(other, again))
            assert sorted(first + rest) == list(range(ROWS)), (len(first), len(rest))
            assert sorted(ids(loader(other, again))) == list(range(ROWS)), "the epoch after it is whole"

    def test_state_of_a_state(self, server, parts):
        """Taken, saved and loaded again and again, with other numbers of workers."""
        found, state = [], None
        for workers in itertools.cycle([2, 0, 3, 1]):
            dataset = IterableDataset(url(server, parts), batch_size=30)
            if state:
                dataset.load_state_dict(state)
            some = ids(itertools.islice(DataLoader(dataset, batch_size=None, num_workers=workers), 5))
            if not some:
                break
            found += some
            state = dataset.state_dict()
        assert sorted(found) == list(range(ROWS))

    def test_the_second_epoch_counts_by_itself(self, server, parts):
        dataset = IterableDataset(url(server, parts), batch_size=100)
        loader = DataLoader(dataset, batch_size=None, num_workers=2)
        assert len(list(loader)) == 10 and dataset.state_dict()["left"] == []
        first = ids(itertools.islice(loader, 3))
        dataset.load_state_dict(dataset.state_dict())
        assert sorted(first + ids(loader)) == list(range(ROWS))

    def test_workers_that_stay(self, server, parts):
        dataset = IterableDataset(url(server, parts), batch_size=100)
        loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
        for _ in range(2):
            assert sorted(ids(loader)) == list(range(ROWS))
        first = ids(itertools.islice(loader, 4))
        other = IterableDataset(url(server, parts), batch_size=100)
        other.load_state_dict(dataset.state_dict())
        assert sorted(first + ids(other)) == list(range(ROWS))

    def test_in_a_worker_it_is_the_workers_own(self, server, parts):
        """As torchdata's StatefulDataLoader does it: asked for and loaded in the worker, between two items."""
        given, states = _in_workers(url(server, parts), workers=3, take=2, states=None)
        rest, _ = _in_workers(url(server, parts), workers=3, take=10_000, states=states)
        assert len(given) == 6 * 64 and sorted(given + rest) == list(range(ROWS))
        none, states = _in_workers(url(server, parts), workers=3, take=0, states=None)
        rest, _ = _in_workers(url(server, parts), workers=3, take=10_000, states=states)
        assert not none and sorted(rest) == list(range(ROWS)), "one that has given nothing yet has its share, too"

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("taken", [1, 4])
    def test_with_torchdata(self, server, parts, workers, taken):
        """Needs PyTorch 2, so not in every environment."""
        stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
        where = url(server, parts)
        loader = stateful(IterableDataset(where, batch_size=64), batch_size=None, num_workers=workers)
        first = ids(itertools.islice(loader, taken))
        again = stateful(IterableDataset(where, batch_size=64), batch_size=None, num_workers=workers)
        again.load_state_dict(loader.state_dict())
        assert sorted(first + ids(again)) == list(range(ROWS))

    def test_another_dataset_s_state_is_refused(self, server, client, parts):
        state = IterableDataset(url(server, parts), batch_size=10).state_dict()
        with pytest.raises(forebay.FailedPrecondition, match="another way"):
            IterableDataset(url(server, parts), batch_size=20).load_state_dict(state)
        client.put(parts, pa.table({"id": [-1], "s": ["late"]}))
        newer = IterableDataset(url(server, parts), batch_size=10)
        assert newer.version == 2
        newer.load_state_dict(state)
        assert newer.version == 1 and ids(newer) == list(range(ROWS)), "a state keeps its version"

    def test_it_is_plain_data(self, server, parts):
        import json

        dataset = IterableDataset(url(server, parts))
        next(iter(dataset))
        assert json.loads(json.dumps(dataset.state_dict())) == dataset.state_dict()


class TestFollow:
    def write(self, client, path, batches, begun=None, pause=0.02):
        with client.session(path) as session:
            if begun:
                session.put([batches[0]])
                begun.set()
            for batch in batches[1 if begun else 0 :]:
                time.sleep(pause)
                session.put([batch])

    def batches(self, bounds):
        return [pa.record_batch([pa.array(range(a, b), pa.int64())], names=["id"]) for a, b in itertools.pairwise(bounds)]

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("batch_size", [None, 16])
    def test_all_rows_once_while_they_are_written(self, server, client, path, workers, batch_size):
        batches = self.batches([0, 3, 40, 41, 41, 90, 150, 200, 257])
        begun = threading.Event()
        writer = threading.Thread(target=self.write, args=(client, path, batches, begun))
        writer.start()
        begun.wait(10)
        dataset = IterableDataset(url(server, path), batch_size=batch_size, follow=True)
        before = time.monotonic()
        found = ids(DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context="forkserver" if workers else None))
        writer.join()
        assert sorted(found) == list(range(257))
        assert time.monotonic() - before < 30
        if not workers:
            assert found == list(range(257))
        with pytest.raises(TypeError):
            len(dataset)

    def test_the_first_item_comes_before_the_publish(self, server, client, path):
        with client.session(path) as session:
            session.put([self.batches([0, 10])[0]])
            item = next(iter(IterableDataset(url(server, path), batch_size=10, follow=True)))
            assert item["id"].tolist() == list(range(10)) and not client.exists(path)

    def test_ranks_share_what_comes(self, server, client, path):
        client.put(path, self.batches([0, 7, 50, 100]))
        found = [ids(IterableDataset(url(server, path), batch_size=8, follow=True, rank=rank, world=3)) for rank in range(3)]
        assert sorted(itertools.chain(*found)) == list(range(100)) and all(map(len, found))

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("taken", [0, 1, 5])
    def test_state_goes_on_with_the_rest(self, server, client, path, workers, taken):
        client.put(path, self.batches([0, 7, 50, 100]))
        dataset = IterableDataset(url(server, path), batch_size=8, follow=True)
        first = ids(itertools.islice(DataLoader(dataset, batch_size=None, num_workers=workers), taken))
        other = IterableDataset(url(server, path), batch_size=8, follow=True)
        other.load_state_dict(dataset.state_dict())
        assert sorted(first + ids(DataLoader(other, batch_size=None, num_workers=workers))) == list(range(100))
        if taken:
            third = IterableDataset(url(server, path), batch_size=8, follow=True, rank=0, world=7)
            third.load_state_dict(dataset.state_dict())
            with pytest.raises(forebay.FailedPrecondition, match="readers"):
                list(third)


class TestMap:
    def test_rows_by_number(self, server, parts):
        dataset = MapDataset(url(server, parts))
        assert len(dataset) == ROWS
        for row in (0, 1, 129, 130, 131, 500, 999):
            assert (int(dataset[row]["id"]), dataset[row]["s"]) == (row, f"row {row}")
        assert int(dataset[-1]["id"]) == 999 and [int(item["id"]) for item in dataset.__getitems__([5, 900, 5])] == [5, 900, 5]
        for wrong in (ROWS, -ROWS - 1):
            with pytest.raises(IndexError, match=str(ROWS)):
                dataset[wrong]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_shuffled_by_a_loader(self, server, parts, workers):
        loader = DataLoader(MapDataset(url(server, parts), columns=["id"]), batch_size=64, shuffle=True, num_workers=workers)
        found = ids(loader)
        assert sorted(found) == list(range(ROWS)) and found != list(range(ROWS))

    def test_distributed(self, server, parts):
        from torch.utils.data import DistributedSampler

        dataset = MapDataset(url(server, parts))
        found = [ids(DataLoader(dataset, batch_size=10, sampler=DistributedSampler(dataset, 2, rank))) for rank in range(2)]
        assert sorted(found[0] + found[1]) == list(range(ROWS))

    def test_a_filter(self, server, parts):
        dataset = MapDataset(url(server, parts), filter="id >= 990", columns=["id"])
        assert [int(dataset[k]["id"]) for k in (9, 0)] == [999, 990] and len(dataset) == 10

    def test_the_cache_is_bounded(self, server, client, path):
        client.put(path, [pa.table({"id": [k], "x": [bytes(1 << 20)]}) for k in range(20)])
        dataset = MapDataset(url(server, path), cache_bytes=5 << 20)
        assert [int(dataset[k]["id"]) for k in (*range(20), 3)] == [*range(20), 3]
        assert 0 < dataset._cached <= 5 << 20 and len(dataset._cache) == 4

    @pytest.mark.parametrize("size", [1, 7, 130, 300, ROWS, ROWS + 5])
    def test_batches_by_number(self, server, parts, size):
        dataset = MapDataset(url(server, parts), ["id", "s"], size)
        assert len(dataset) == -(-ROWS // size)
        items = [dataset[k] for k in range(len(dataset))]
        assert [item["id"].tolist() for item in items] == [list(range(k, min(k + size, ROWS))) for k in range(0, ROWS, size)]
        assert [s for item in items for s in item["s"]] == [f"row {k}" for k in range(ROWS)]
        assert dataset[-1]["id"].tolist() == items[-1]["id"].tolist()
        for wrong in (len(dataset), -len(dataset) - 1):
            with pytest.raises(IndexError, match=f"{len(dataset)} batches of {size} rows"):
                dataset[wrong]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_shuffled_batches(self, server, parts, workers):
        dataset = MapDataset(url(server, parts), columns=["id"], batch_size=64)
        found = [item["id"].tolist() for item in DataLoader(dataset, batch_size=None, shuffle=True, num_workers=workers)]
        assert sorted(map(len, found)) == [ROWS % 64] + [64] * (ROWS // 64)
        assert sorted(sum(found, [])) == list(range(ROWS)) and sum(found, []) != list(range(ROWS))

    def test_a_batch_size_of_nothing(self, server, parts):
        for wrong in (0, -1):
            with pytest.raises(forebay.InvalidArgument, match="at least 1"):
                MapDataset(url(server, parts), batch_size=wrong)
        state = MapDataset(url(server, parts), batch_size=8).state_dict()
        with pytest.raises(forebay.FailedPrecondition, match="batch_size"):
            MapDataset(url(server, parts)).load_state_dict(state)

    def test_state_is_its_version(self, server, client, parts):
        dataset = MapDataset(url(server, parts))
        client.put(parts, pa.table({"id": [-1], "s": ["late"]}))
        newer = MapDataset(url(server, parts))
        assert (len(newer), dataset.version) == (ROWS + 1, 1)
        newer.load_state_dict(dataset.state_dict())
        assert len(newer) == ROWS


def _free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _as_rank(rank, port, where, results):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = "0", "1"  # what torch.distributed says counts
    results.put((rank, ids(IterableDataset(where))))
    dist.barrier()
    dist.destroy_process_group()


def _in_workers(where, workers, take, states):
    """Rows that each of several processes took as a DataLoader's worker, and their states after it."""
    from torch.utils.data._utils import worker as loader_worker

    rows, after = [], []
    for k in range(workers):
        dataset = IterableDataset(where, batch_size=64)
        loader_worker._worker_info = loader_worker.WorkerInfo(id=k, num_workers=workers, seed=0, dataset=dataset)
        try:
            if states:
                dataset.load_state_dict(states[k])
            rows += ids(itertools.islice(dataset, take))
            after.append(dataset.state_dict())
        finally:
            loader_worker._worker_info = None
    assert not [row for row, count in collections.Counter(rows).items() if count > 1]
    return rows, after
