"""Datasets with the stock pyarrow client: put, read, versions, sessions, tasks, schemas."""

import json
import uuid
from datetime import datetime

import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet as pq
import pytest

from tests.harness import descriptor, flight_data, ipc_messages


def rows(start, stop):
    ids = range(start, stop)
    return pa.record_batch([pa.array(ids), pa.array([i / 4 for i in ids]), pa.array([("even", "odd")[i % 2] for i in ids])], names=["id", "x", "s"])


def ids(client, path, **keys):
    return [i for b in client.batches(path, **keys) for i in b.column("id").to_pylist()]


@pytest.fixture
def path():
    return f"/d/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def twenty(client, path):
    client.put(path, rows(0, 10), rows(10, 20))
    return path


def begin(client, path, **keys):
    return client.act("begin", path=path, **keys)[0]["session"]


class TestReading:
    def test_batches_come_back_as_they_were_sent(self, client, twenty):
        assert client.batches(twenty) == [rows(0, 10), rows(10, 20)]

    def test_put_results_count_batches_and_name_the_level(self, client, path):
        answers = [json.loads(a) for a in client.put(path, rows(0, 1), rows(1, 2), rows(2, 3))]
        assert [a["batch"] for a in answers] == [0, 1, 2]
        assert [a["level"] for a in answers] == ["local"] * 3
        assert all(a["batch"] < a["stable"] <= 3 for a in answers)

    def test_app_metadata_comes_back_in_the_answer_and_at_every_read(self, client, path):
        notes = [b"one", b"\0\xff" * 40_000, b"three"]
        batches = [rows(k, k + 1) for k in range(3)]
        assert client.put(path, *batches, metadata=notes) == notes
        assert [c.app_metadata.to_pybytes() for c in client.chunks(path)] == notes

    def test_info_holds_totals_and_one_endpoint_per_part(self, client, twenty):
        client.put(twenty, rows(20, 25))
        info = client.info(twenty)
        assert (info.total_records, info.ordered, len(info.endpoints)) == (25, True, 2)
        assert info.total_bytes > 0 and info.schema == rows(0, 1).schema
        assert client.note(twenty) | {"path": twenty, "version": 2, "parts": 2, "batches": 3} == client.note(twenty)

    @pytest.mark.parametrize("columns", [["s", "id"], ["x"], ["id", "x", "s"]])
    def test_columns_in_the_order_asked(self, client, twenty, columns):
        whole = pa.Table.from_batches([rows(0, 10), rows(10, 20)])
        assert client.table(twenty, columns=columns).equals(whole.select(columns))

    @pytest.mark.parametrize(("condition", "expected"), [
        ("id >= 7 AND s = 'odd'", [7, 9, 11, 13, 15, 17, 19]), ("x = 2.0", [8]), ("id IN (3, 5)", [3, 5]),
        ("id < 0", []), ("s LIKE 'e%' AND id BETWEEN 2 AND 5", [2, 4]), ("id * 2 = 10 OR x IS NULL", [5]),
    ])
    def test_filter(self, client, twenty, condition, expected):
        assert ids(client, twenty, filter=condition) == expected

    @pytest.mark.parametrize(("condition", "expected"), [
        ("arrow_cast(id, 'Utf8') = '7'", [7]), ("arrow_cast('3', 'Int64') = id", [3]), ("id = arrow_cast(2.0, 'Int64') + 1", [3]),
    ])
    def test_a_filter_may_name_arrow_types(self, client, twenty, condition, expected):
        assert ids(client, twenty, filter=condition) == expected

    @pytest.mark.parametrize(("condition", "expected"), [
        ("t > TIMESTAMP '2900-01-01'", [2]), ("t > TIMESTAMP '2024-01-01'", [1, 2]), ("t < TIMESTAMP '2024-01-01 00:00:01'", [0]),
        ("t = TIMESTAMP '3000-01-01'", [2]), ("t < CAST('9999-12-31' AS TIMESTAMP)", [0, 1, 2]),
        ("t BETWEEN TIMESTAMP '1600-01-01' AND TIMESTAMP '2500-01-01'", [0, 1]), ("t IN (TIMESTAMP '3000-01-01')", [2]),
    ])
    @pytest.mark.parametrize("unit", ["s", "ms", "us"])
    def test_a_filter_may_name_times_that_nanoseconds_do_not_hold(self, client, path, unit, condition, expected):
        times = pa.array([datetime(1999, 1, 1), datetime(2030, 1, 1), datetime(3000, 1, 1)], pa.timestamp(unit))
        client.put(path, pa.record_batch([pa.array(range(3)), times], names=["id", "t"]))
        assert ids(client, path, filter=condition) == expected

    @pytest.mark.parametrize("limit", [0, 1, 10, 13, 20, 1000])
    def test_limit_holds_over_all_endpoints_together(self, client, twenty, limit):
        client.put(twenty, rows(20, 25))
        assert ids(client, twenty, limit=limit) == list(range(min(25, limit)))

    def test_filter_and_limit_together(self, client, twenty):
        client.put(twenty, rows(20, 30))
        assert ids(client, twenty, filter="s = 'odd'", limit=12, columns=["id"]) == list(range(1, 24, 2))

    def test_resume_skips_what_was_read(self, client, twenty):
        client.put(twenty, rows(20, 25))
        assert ids(client, twenty, **{"from": "2:1"}) == list(range(10, 25))

    def test_list_flights_by_prefix(self, client, twenty):
        assert [json.loads(i.app_metadata)["path"] for i in client.flight.list_flights(twenty.encode())] == [twenty]

    def test_wait_for_a_dataset_to_come_into_being(self, client, other, path):
        import threading
        timer = threading.Timer(0.4, lambda: other.put(path, rows(0, 3)))
        timer.start()
        assert ids(client, path, wait="10s") == [0, 1, 2]
        timer.join()


class TestVersions:
    def test_time_travel(self, client, twenty):
        client.put(twenty, rows(20, 25))
        client.put(twenty, rows(5, 7), mode="overwrite")
        for version, expected in ((1, range(20)), (2, range(25)), (3, range(5, 7))):
            assert ids(client, twenty, version=version) == list(expected)
        assert [v["version"] for v in client.act("versions", path=twenty)] == [1, 2, 3]

    def test_old_parts_are_out_of_sight(self, client, twenty):
        client.put(twenty, rows(0, 1), mode="overwrite")
        assert len(client.names(twenty)) == 1

    def test_a_token_makes_a_put_exactly_once(self, client, path):
        for _ in range(3):
            client.put(path, rows(0, 3), token="the same")
        assert ids(client, path) == [0, 1, 2] and client.note(path)["version"] == 1

    def test_three_versions_are_kept(self, client, path):
        for k in range(5):
            client.put(path, rows(k, k + 1), mode="overwrite")
        assert [v["version"] for v in client.act("versions", path=path)] == [3, 4, 5]
        with pytest.raises(pa.ArrowKeyError):
            client.info(path, version=1)


class TestSessions:
    def test_nothing_is_visible_before_publish_and_all_after(self, client, other, path):
        session = begin(client, path)
        client.put(path, rows(0, 3), session=session)
        client.put(path, rows(3, 6), session=session)
        assert not other.exists(path)
        [published] = client.act("publish", session=session, success_file=True)
        assert published["version"] == 1 == other.note(path)["version"]
        assert ids(other, path) == list(range(6))
        assert other.names(path) == [f"{path}/_SUCCESS", f"{path}/part-00000-{session}.arrow", f"{path}/part-00001-{session}.arrow"]

    def test_publish_twice_gives_the_same_version(self, client, path):
        session = begin(client, path)
        client.put(path, rows(0, 3), session=session)
        assert client.act("publish", session=session) == client.act("publish", session=session)
        assert client.note(path)["version"] == 1

    def test_abort_leaves_nothing(self, client, path):
        session = begin(client, path)
        client.put(path, rows(0, 3), session=session)
        client.act("abort", session=session)
        assert not client.exists(path)
        assert client.action("publish", {"session": session})[0] == "FAILED_PRECONDITION"

    def test_a_session_and_its_batches_survive_a_restart(self, server, path):
        with server.client() as client:
            session = begin(client, path)
            client.put(path, rows(0, 3), session=session)
        server.restart()
        with server.client() as client:
            client.put(path, rows(3, 6), session=session)
            client.act("publish", session=session)
            assert ids(client, path) == list(range(6))

    def test_overwrite_by_a_session(self, client, twenty):
        session = begin(client, twenty, mode="overwrite")
        client.put(twenty, rows(7, 9), session=session)
        assert ids(client, twenty) == list(range(20))
        client.act("publish", session=session)
        assert ids(client, twenty) == [7, 8]

    def put_attempt(self, client, path, session, task, attempt, batch):
        where = descriptor(path, session=session, task={"job": "j", "stage": 0, "task": task, "attempt": attempt})
        messages = ipc_messages([batch])
        return client.call("DoPut", *[flight_data(h, b, where if k == 0 else None) for k, (h, b) in enumerate(messages)])[0]

    def test_of_two_attempts_the_first_to_end_wins(self, client, path):
        session = begin(client, path)
        assert [self.put_attempt(client, path, session, 5, a, rows(a * 10, a * 10 + 2)) for a in (1, 0)] == ["OK", "ABORTED"]
        assert self.put_attempt(client, path, session, 2, 0, rows(50, 52)) == "OK"
        client.act("publish", session=session)
        assert ids(client, path) == [50, 51, 10, 11], "parts are ordered by task"

    def test_publish_names_the_attempts_that_count(self, client, path):
        session = begin(client, path)
        for task in range(3):
            assert self.put_attempt(client, path, session, task, 0, rows(task, task + 1)) == "OK"
        counting = [{"job": "j", "stage": 0, "task": t, "attempt": 0} for t in (0, 2)]
        client.act("publish", session=session, tasks=counting)
        assert ids(client, path) == [0, 2]


DICTIONARY = pa.dictionary(pa.int32(), pa.string())
ODD_TABLES = {
    "nested": pa.table({"a": pa.array([[{"b": [1, None]}], None, []], pa.list_(pa.struct([("b", pa.list_(pa.int8()))])))}),
    "large": pa.table({"a": pa.array(["x", None], pa.large_string()), "b": pa.array([[1], []], pa.large_list(pa.int64()))}),
    "map": pa.table({"a": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64()))}),
    "union": pa.table({"a": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])}),
    "dictionary": pa.table({"a": pa.array(["x", "y", "x", None]).dictionary_encode()}),
    "views": pa.table({"a": pa.array(["short", "a string that is longer than twelve bytes"], pa.string_view())}),
    "decimals": pa.table({"a": pa.array([1, None], pa.decimal128(20, 2)), "t": pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin"))}),
    "metadata": pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), metadata={"k": "v"})], metadata={"whole": "schema"})),
    "no columns": pa.table({}),
    "wide": pa.table({f"c{k}": [k] for k in range(3000)}),
}


class TestSchemas:
    @pytest.mark.parametrize("name", ODD_TABLES)
    def test_any_type_comes_back_equal(self, client, path, name):
        table = ODD_TABLES[name]
        client.put(path, *table.to_batches(), schema=table.schema)
        assert client.info(path).schema.equals(table.schema, check_metadata=True)
        assert client.batches(path) == table.to_batches()

    def test_dictionaries_that_grow_or_are_replaced(self, client, path):
        batches = [pa.record_batch([pa.array(v).dictionary_encode().cast(DICTIONARY)], names=["s"]) for v in (["a", "b"], ["a", "b", "c"], ["z"], ["z", "a"])]
        client.put(path, *batches)
        assert [b.column(0).to_pylist() for b in client.batches(path)] == [["a", "b"], ["a", "b", "c"], ["z"], ["z", "a"]]

    def test_zero_rows_and_zero_batches(self, client, path):
        client.put(path, schema=rows(0, 1).schema)
        assert client.info(path).schema == rows(0, 1).schema and client.batches(path) == []
        client.put(path, rows(0, 1).slice(0, 0))
        assert client.info(path).total_records == 0
        assert sum(b.num_rows for b in client.batches(path)) == 0

    def test_compression_of_the_client_and_of_the_part(self, client, path):
        batch = pa.record_batch([pa.array(range(50_000))], names=["id"])
        for codec in ("lz4", "zstd"):
            client.put(f"{path}/{codec}", batch, compression=codec)
            assert client.batches(f"{path}/{codec}") == [batch]
            [part] = client.names(f"{path}/{codec}")
            content = client.file(part)
            assert len(content) < batch.nbytes and pa.ipc.open_file(content).read_all() == pa.Table.from_batches([batch])

    def test_parquet_parts(self, client, path):
        client.put(path, rows(0, 10), rows(10, 20), format="parquet")
        [part] = client.names(path)
        assert part.endswith(".parquet")
        assert pq.read_table(pa.BufferReader(client.file(part))).equals(pa.Table.from_batches([rows(0, 20)]))
        assert ids(client, path) == list(range(20)) and ids(client, path, filter="id > 17") == [18, 19]

    def test_what_parquet_cannot_hold_names_the_column(self, client, path):
        table = ODD_TABLES["union"]
        with pytest.raises(pa.ArrowInvalid, match="a"):
            client.put(path, *table.to_batches(), schema=table.schema, format="parquet")
        assert not client.exists(path)

    def test_files_that_anyone_wrote_are_a_dataset(self, client, path):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches([rows(0, 5)]), sink)
        client.put_file(f"{path}/x.parquet", sink.getvalue().to_pybytes())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows(0, 1).schema) as w:
            w.write_batch(rows(5, 8))
        client.put_file(f"{path}/y.arrow", sink.getvalue().to_pybytes())
        assert ids(client, path) == list(range(8))
        assert ids(client, f"{path}/x.parquet") == list(range(5))

    def test_many_small_batches(self, client, path):
        batches = [pa.record_batch([pa.array([k])], names=["id"]) for k in range(3000)]
        client.put(path, *batches)
        assert ids(client, path) == list(range(3000))

    def test_a_message_larger_than_16_mib(self, client, path):
        batch = pa.record_batch([pa.array([bytes(24 << 20)], pa.large_binary())], names=["b"])
        client.put(path, batch)
        assert client.batches(path) == [batch]
