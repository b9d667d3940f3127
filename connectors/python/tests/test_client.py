"""Datasets: put, read, scan, sessions, tasks, versions, errors; what goes in comes out, whole or not at all."""

import decimal
import threading
import uuid

import forebay
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def rows(start, stop):
    return pa.table({"id": pa.array(range(start, stop)), "s": [("even", "odd")[i % 2] for i in range(start, stop)]})


def ids(table):
    return table.column("id").to_pylist()


TABLES = {
    "numbers": pa.table(
        {"i": pa.array([1, None], pa.int16()), "f": pa.array([0.5, None]), "b": [True, False], "u": pa.array([1, 2], pa.uint64())}
    ),
    "text and bytes": pa.table({"s": ["a", None], "l": pa.array(["x", "y"], pa.large_string()), "b": [b"\0", b""]}),
    "times": pa.table(
        {"t": pa.array([1, 2], pa.timestamp("us", "UTC")), "d": pa.array([1, None], pa.date32()), "x": pa.array([5, 6], pa.duration("ms"))}
    ),
    "nested": pa.table(
        {"l": [[1, 2], []], "s": [{"a": 1, "b": "x"}, None], "f": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))}
    ),
    "dictionary": pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()}),
    "decimals": pa.table({"d": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2))}),
    "views": pa.table({"v": pa.array(["short", "a string that is longer than twelve bytes"], pa.string_view())}),
    "tensors": pa.table(
        {
            "x": pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.float32(), [2, 2]), pa.array([[1, 2, 3, 4]], pa.list_(pa.float32(), 4))
            )
        }
    ),
    "no rows": pa.table({"a": pa.array([], pa.int64())}),
}


class TestPutAndRead:
    @pytest.mark.parametrize("name", TABLES)
    def test_any_type_comes_back_equal(self, client, path, name):
        assert client.put(path, TABLES[name]) == 1
        assert client.read(path).equals(TABLES[name])

    def test_modes(self, client, path):
        assert [client.put(path, rows(0, 2)), client.put(path, rows(2, 4)), client.put(path, rows(7, 8), "overwrite")] == [1, 2, 3]
        assert ids(client.read(path)) == [7]
        with pytest.raises(forebay.AlreadyExists, match=path):
            client.put(path, rows(0, 1), mode="create")
        assert client.put(path + "/new", rows(0, 1), mode="create") == 1

    def test_versions_stay(self, client, path):
        client.put(path, rows(0, 2))
        client.put(path, rows(5, 6), "overwrite")
        assert ids(client.read(path, version=1)) == [0, 1] and ids(client.read(path)) == [5]
        assert [(v["version"], v["rows"]) for v in client.versions(path)] == [(1, 2), (2, 1)]

    def test_columns_filter_and_limit(self, client, path):
        client.put(path, rows(0, 100))
        assert client.read(path, columns=["s", "id"]).equals(rows(0, 100).select(["s", "id"]))
        assert ids(client.read(path, filter="s = 'odd' AND id < 10")) == [1, 3, 5, 7, 9]
        assert ids(client.read(path, limit=3)) == [0, 1, 2]
        assert ids(client.read(path, columns=["id"], filter="id > 90", limit=2)) == [91, 92]

    def test_sources_of_every_kind(self, client, path):
        table = rows(0, 10)
        pandas = pytest.importorskip("pandas")
        for k, data in enumerate([
            table, table.to_batches()[0], table.to_reader(), pa.RecordBatchReader.from_stream(table), table.to_batches(), iter([table]),
            (b for b in table.to_batches()), {"id": list(range(10)), "s": table["s"]}, table.to_pandas(),
            pandas.DataFrame({"id": range(10), "s": table["s"].to_pylist()}),
        ]):  # fmt: skip
            client.put(f"{path}/{k}", data)
            assert client.read(f"{path}/{k}").to_pydict() == table.to_pydict(), k

    def test_a_scan_is_put_elsewhere(self, client, path):
        client.put(path, rows(0, 10))
        client.put(path + "/copy", client.scan(path))
        assert client.read(path + "/copy").equals(rows(0, 10))

    @pytest.mark.parametrize("data", [7, "text", [], [7]])
    def test_what_has_no_batches_is_refused(self, client, path, data):
        with pytest.raises(forebay.InvalidArgument):
            client.put(path, data)
        assert not client.exists(path)

    def test_an_empty_iterable_with_a_schema(self, client, path):
        assert client.put(path, [], schema=rows(0, 1).schema) == 1
        assert client.read(path).num_rows == 0 and client.read(path).schema == rows(0, 1).schema

    def test_an_exception_in_the_source_leaves_nothing(self, client, path):
        def source():
            for k in range(20):
                yield rows(k, k + 1)
            raise RuntimeError("of the source")

        with pytest.raises(RuntimeError, match="of the source"):
            client.put(path, source())
        assert not client.exists(path)
        client.put(path, rows(0, 1))
        with pytest.raises(RuntimeError):
            client.put(path, source())
        assert ids(client.read(path)) == [0] and len(client.versions(path)) == 1

    def test_a_token_makes_a_put_exactly_once(self, client, path):
        assert [client.put(path, rows(0, 2), token="one") for _ in range(3)] == [1, 1, 1]
        assert [client.put(path, iter([rows(0, 2)]), token="one") for _ in range(2)] == [1, 1]
        assert ids(client.read(path)) == [0, 1]

    def test_app_metadata_comes_back(self, client, path):
        notes = [b"one", b"", b"\0" * 70_000]
        client.put(path, [rows(k, k + 1) for k in range(3)], app_metadata=notes)
        scan = client.scan(path)
        assert [(batch.num_rows, scan.app_metadata or b"") for batch in scan] == [(1, note) for note in notes]

    def test_large_batches_are_cut_and_read_back_equal(self, client, path):
        table = pa.table({"x": pa.array(range(20_000_000))})  # 160 MB in one batch
        client.put(path, table)
        batches = [batch.nbytes for batch in client.scan(path)]
        assert len(batches) == 3 and max(batches) <= 64 << 20
        assert client.read(path).equals(table)

    def test_parquet_parts_and_compression(self, client, path):
        client.put(path, rows(0, 10), format="parquet")
        assert [e["path"].endswith(".parquet") for e in client.list(path)] == [True] and client.read(path).equals(rows(0, 10))
        with pytest.raises(forebay.InvalidArgument, match="u"):
            client.put(path + "/u", pa.table({"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}), format="parquet")

    def test_stock_pyarrow_reads_what_was_put(self, client, server, path):
        client.put(path, rows(0, 10))
        with server.client() as stock:
            assert stock.table(path).equals(rows(0, 10))


class TestScan:
    @pytest.fixture
    def parts(self, client, path):
        with client.session(path) as session:
            for k in range(12):
                session.put([rows(10 * k + 2 * b, 10 * k + 2 * b + 2) for b in range(5)])
        return path

    @pytest.mark.parametrize("parallel", [1, 3, 50])
    def test_parts_are_read_at_once_and_given_in_order(self, client, parts, parallel):
        scan = client.scan(parts, parallel=parallel)
        assert scan.rows == 120 and scan.version == 1
        assert ids(scan.read_all()) == list(range(120))
        assert ids(client.read(parts, parallel=parallel)) == list(range(120))

    @pytest.mark.parametrize("parallel", [1, 4])
    @pytest.mark.parametrize("read", [0, 1, 5, 33, 60])
    def test_a_token_says_where_to_go_on(self, client, parts, parallel, read):
        scan = client.scan(parts, parallel=parallel)
        first = [next(scan) for _ in range(read)]
        assert scan.token == f"1:{read}"
        scan.close()
        client.put(parts, rows(900, 901))
        rest = client.scan(parts, resume=scan.token)
        assert ids(pa.Table.from_batches([*first, *rest], scan.schema)) == list(range(120))

    def test_bytes_ahead_are_bounded(self, client, path):
        with client.session(path) as session:
            for k in range(8):
                session.put([pa.table({"x": [bytes([k]) * (1 << 20)]})] * 4)
        scan = client.scan(path, parallel=4, bytes_ahead=2 << 20)
        next(scan)
        deadline = threading.Event()
        deadline.wait(0.5)
        assert 0 < scan._chunks._kept <= (2 + 4) << 20, "the bound, and one chunk a thread"
        assert [batch["x"][0].as_py()[0] for batch in scan] == [k for k in range(8) for _ in range(4)][1:]

    def test_without_a_count_there_is_no_token(self, client, parts):
        assert client.scan(parts, filter="id > 1").token is None and client.scan(parts, limit=1).token is None

    def test_a_scan_that_is_left_ends_its_threads(self, client, parts):
        before = threading.active_count()
        scan = client.scan(parts, parallel=3)
        next(scan)
        assert threading.active_count() > before
        del scan
        assert threading.active_count() == before

    def test_it_is_an_arrow_stream(self, client, parts):
        assert ids(pa.table(client.scan(parts))) == list(range(120))
        assert ids(client.scan(parts).to_reader().read_all()) == list(range(120))

    def test_a_scan_goes_on_over_a_restart(self, server, client, path):
        with client.session(path) as session:
            for k in range(3):
                session.put([pa.table({"id": [100 * k + b], "x": [bytes(1 << 20)]}) for b in range(40)])
        for parallel in (1, 2):
            scan = client.scan(path, parallel=parallel, bytes_ahead=4 << 20)
            got = [next(scan)["id"][0].as_py() for _ in range(3)]
            port = server.flight.rsplit(":", 1)[1]
            server.command[server.command.index("--listen") + 1] = f"127.0.0.1:{port}"
            server.restart()
            got += [batch["id"][0].as_py() for batch in scan]
            assert got == [100 * k + b for k in range(3) for b in range(40)]


class TestFilesOfOthers:
    """A directory of Parquet files that someone wrote: a dataset without versions."""

    @pytest.fixture
    def lake(self, client, path):
        for k in range(3):
            sink = pa.BufferOutputStream()
            pq.write_table(rows(100 * k, 100 * k + 100), sink, row_group_size=30)
            client.write_bytes(f"{path}/{k}.parquet", sink.getvalue())
        return path

    def test_it_is_read_scanned_and_followed(self, client, lake):
        for parallel in (1, 3):
            assert ids(client.read(lake, parallel=parallel)) == ids(client.scan(lake, parallel=parallel).read_all()) == list(range(300))
        follow = client.follow(lake, columns=["id"])
        assert (ids(follow.read_all()), follow.token, follow.start) == (list(range(300)), None, None)
        assert ids(client.read(f"{lake}/1.parquet", filter="id > 197")) == [198, 199]


class TestSessions:
    def test_everything_is_seen_at_the_end_and_nothing_before(self, client, path):
        with client.session(path, success_file=True) as session:
            session.put(rows(0, 2))
            session.put(rows(2, 4))
            assert not client.exists(path)
        assert session.version == 1 and ids(client.read(path)) == [0, 1, 2, 3]
        assert client.exists(path + "/_SUCCESS")

    def test_sessions_of_several_datasets_are_published_at_one_instant(self, client, path):
        days = [client.session(f"{path}/day={day}") for day in (1, 2)]
        for day, session in enumerate(days):
            for attempt in (0, 1):
                session.put(rows(10 * day + attempt, 10 * day + attempt + 1), task={"job": "j", "task": attempt, "attempt": 0})
        with pytest.raises(forebay.FailedPrecondition):
            client.publish(days, {days[1].id: [{"job": "j", "task": 7, "attempt": 0}]})
        assert not client.exists(path)
        assert client.publish(days, {days[1].id: [{"job": "j", "task": 1, "attempt": 0}]}) == [1, 1]
        assert client.publish(days) == [1, 1] == [session.version for session in days]
        assert sorted(ids(client.read(path))) == [0, 1, 11]
        assert client.publish([]) == []

    def test_a_publish_together_ends_the_sessions_of_a_with(self, client, path):
        with client.session(f"{path}/a=1") as one, client.session(f"{path}/a=2") as other:
            for session in (one, other):
                session.put(rows(0, 2))
            client.publish([one, other], success_file=True)
        assert (one.version, other.version) == (1, 1)
        assert client.exists(f"{path}/a=2/_SUCCESS")

    def test_an_exception_aborts(self, client, path):
        with pytest.raises(ZeroDivisionError), client.session(path) as session:
            session.put(rows(0, 2))
            1 / 0
        assert not client.exists(path) and session.version is None
        with pytest.raises(forebay.FailedPrecondition):
            session.publish()

    def test_publish_and_abort_by_hand(self, client, path):
        with client.session(path) as session:
            session.put(rows(0, 1))
            assert session.publish() == session.publish() == 1
        with client.session(path, mode="overwrite") as session:
            session.put(rows(5, 6))
            session.abort()
        assert ids(client.read(path)) == [0]

    def test_parts_are_in_the_order_of_tasks_whoever_ends_first(self, client, path):
        with client.session(path) as session:
            for task in (3, 1, 2):
                session.put(rows(task, task + 1), task=task)
        assert ids(client.read(path)) == [1, 2, 3]

    def test_of_two_attempts_one_counts(self, client, path):
        with client.session(path) as session:
            session.put(rows(0, 1), task={"job": "j", "task": 1, "attempt": 0})
            with pytest.raises(forebay.Aborted):
                session.put(rows(5, 6), task={"job": "j", "task": 1, "attempt": 1})
            session.put(rows(9, 10), task={"job": "j", "task": 2})
            session.publish(tasks=[{"job": "j", "task": 1, "attempt": 0}])
        assert ids(client.read(path)) == [0]

    def test_others_put_into_it_by_its_id(self, client, server, path):
        with client.session(path) as session:
            with forebay.connect(server.flight) as other:
                assert other.put(path, rows(0, 1), session=session.id) is None
                assert ids(other.read(path, session=session.id)) == [0]
        assert ids(client.read(path)) == [0]

    def test_threads_put_at_once(self, client, path):
        with client.session(path) as session:
            threads = [threading.Thread(target=session.put, args=(rows(k, k + 1),), kwargs={"task": k}) for k in range(16)]
            [t.start() for t in threads]
            [t.join() for t in threads]
        assert ids(client.read(path)) == list(range(16))


class TestActions:
    def test_status_and_act(self, client, path):
        client.put(path, rows(0, 1))
        status = client.status()
        assert status["dirty_bytes"] > 0 and status["dirty_files"] > 0 and status["ack"] == "local"
        client.act("rename", **{"from": path, "to": path + "-b"})
        assert client.stat(path + "-b")["version"] == 1 and not client.exists(path)
        assert {"mkdir", "begin", "wait_persisted"} <= client.actions().keys()

    def test_a_single_result_is_asked_for_its_keys(self, client, path):
        client.put(path, rows(0, 1))
        assert client.act("stat", path=path)["version"] == client.act("stat", path=path)[0]["version"] == 1
        with pytest.raises(KeyError, match="2 results"):
            client.put(path, rows(0, 1))
            client.act("versions", path=path)["version"]

    def test_listing_in_pages(self, client, path):
        for k in range(7):
            client.write_bytes(f"{path}/{k}", b"x")
        assert [e["path"] for e in client.list(path, page=3)] == [f"{path}/{k}" for k in range(7)]


class TestOnCondition:
    @pytest.mark.parametrize("size", [1, 9 << 20], ids=["small", "in pieces"])
    def test_an_overwrite_for_an_etag_meets_that_content_or_none(self, client, path, size):
        client.write_bytes(path, b"one")
        seen = client.stat(path)["etag"]
        client.write_bytes(path, b"2" * size, if_etag=seen)
        assert client.read_bytes(path) == b"2" * size and client.stat(path)["etag"] != seen
        with pytest.raises(forebay.FailedPrecondition, match=client.stat(path)["etag"]):
            client.write_bytes(path, b"3" * size, if_etag=seen)
        with pytest.raises(forebay.FailedPrecondition):
            client.write_bytes(path + "-none", b"3" * size, if_etag=seen)
        assert client.read_bytes(path) == b"2" * size and not client.exists(path + "-none")


class TestErrors:
    @pytest.mark.parametrize(("kind", "builtin", "ask"), [
        (forebay.NotFound, FileNotFoundError, lambda c, p: c.read(p)),
        (forebay.NotFound, FileNotFoundError, lambda c, p: c.stat(p)),
        (forebay.NotFound, FileNotFoundError, lambda c, p: c.follow(p, wait=0.1)),
        (forebay.InvalidArgument, ValueError, lambda c, p: c.put("relative", rows(0, 1))),
        (forebay.InvalidArgument, ValueError, lambda c, p: c.put(p, rows(0, 1), mode="perhaps")),
        (forebay.Unimplemented, NotImplementedError, lambda c, p: c.act("frobnicate")),
        (forebay.InvalidArgument, ValueError, lambda c, p: c.scan(p, resume="x")),
        (forebay.InvalidArgument, ValueError, lambda c, p: c.read(p, columns="id")),
    ])  # fmt: skip
    def test_each_kind_is_ours_and_python_s(self, client, path, kind, builtin, ask):
        with pytest.raises(kind) as caught:
            ask(client, path)
        assert isinstance(caught.value, builtin) and isinstance(caught.value, forebay.ForebayError)
        assert len(str(caught.value)) > 5 and "Flight returned" not in str(caught.value)

    def test_the_text_is_the_server_s(self, client, path):
        client.put(path, rows(0, 1))
        with pytest.raises(forebay.FailedPrecondition, match=f'{path}: another schema .*"id".*"x"'):
            client.put(path, {"x": [1]})
        with pytest.raises(forebay.InvalidArgument, match="id >"):
            client.read(path, filter="id >")

    @pytest.mark.parametrize("url", ["ftp://x", "grpc://", "grpc://h:port", "grpc://user@h:1"])
    def test_what_is_no_address_is_refused(self, url):
        with pytest.raises(forebay.InvalidArgument, match="address"):
            forebay.connect(url)

    def test_nobody_at_the_address(self):
        with pytest.raises(forebay.Unavailable), forebay.connect("grpc://127.0.0.1:1", retry_for=0) as client:
            client.status()

    def test_a_timeout_is_kept(self, client, server, path):
        client.act("begin", path=path)
        with pytest.raises(forebay.DeadlineExceeded), forebay.connect(server.flight, timeout=0.3) as hasty:
            hasty.act("stat", path="/")
            with hasty.connection.short() as call:
                from forebay.commands import descriptor

                call.flight.get_flight_info(descriptor(path, follow=True), call.options)

    def test_the_environment_names_the_server(self, server, monkeypatch):
        monkeypatch.setenv("FOREBAY_ADDR", server.flight)
        assert forebay.connect().status()["version"]

    def test_tokens_of_unknown_outcomes_are_told(self):
        import pyarrow.flight as fl
        from forebay.errors import from_arrow

        told = {"forebay-token": ["t-1"], "retry-after-ms": ["1500"]}
        late = from_arrow(fl.FlightTimedOutError("Flight returned timeout error, with message: no answer. Client context: OK"), told)
        assert isinstance(late, forebay.DeadlineExceeded) and (str(late), late.token, late.retry_after) == ("no answer", "t-1", 1.5)
        full = from_arrow(pa.ArrowInvalid("gRPC returned resource exhausted error, with message: full"))
        assert isinstance(full, forebay.ResourceExhausted) and full.code == "RESOURCE_EXHAUSTED"
        own = pa.ArrowInvalid("Casting from string to int failed")
        assert from_arrow(own) is own, "what is no answer of a server stays what it is"


def test_a_session_whose_put_fails_is_aborted(client):
    path = f"/q/{uuid.uuid4().hex[:8]}"
    with pytest.raises(forebay.InvalidArgument), client.session(path) as session:
        session.put([], schema=None)
    with pytest.raises(forebay.FailedPrecondition):
        client.put(path, rows(0, 1), session=session.id)
