"""The policy persist_format=parquet by stock clients: what pyarrow.parquet finds in the under-store, and that nobody who reads meanwhile
sees anything else than before."""

import os
import threading
import time
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness import Server


def rows(start, stop):
    ids = range(start, stop)
    return pa.record_batch({"id": pa.array(ids, pa.int64()), "s": pa.array([("even", "odd")[i % 2] for i in ids], pa.string())})


def ids(chunks):
    return [i for c in chunks for i in c.data.column("id").to_pylist()]


@pytest.fixture
def name():
    """Of a dataset under a policy of its own, which nothing leaves before it is told to."""
    return f"pq-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def path(client, name):
    client.act("policy_set", path=f"/kept/{name}", persist_format="parquet", persist="never")
    return f"/kept/{name}"


def arrive(client, path):
    client.act("persist", path=path)
    client.act("wait_persisted", path=path)


def files(lake, name):
    return sorted(p.name for p in (lake / name).iterdir())


def test_a_version_becomes_parquet_and_everyone_goes_on(client, other, lake, name, path):
    session = client.act("begin", path=path)[0]["session"]
    client.put(path, rows(0, 10), rows(10, 20), rows(20, 20), rows(20, 50), session=session, metadata=[b"a", b"", b"c", b"\xff"])
    follower = other.chunks(path, follow=True)
    got = [next(follower), next(follower)]
    client.act("publish", session=session)
    before = client.info(path)
    [arrow] = client.names(path)
    assert arrow.endswith(".arrow")
    reader = client.flight.do_get(before.endpoints[0].ticket)
    first = reader.read_chunk()
    arrive(client, path)

    # The under-store has Parquet with statistics, and nothing else.
    [file] = files(lake, name)
    assert f"{path}/{file}" == arrow.replace(".arrow", ".parquet") and client.names(path) == [f"{path}/{file}"]
    expected = pa.Table.from_batches([rows(0, 50)])
    assert pq.read_table(lake / name / file).equals(expected)
    column = pq.ParquetFile(lake / name / file).metadata.row_group(0).column(0)
    assert (column.statistics.min, column.statistics.max, column.compression) == (0, 49, "SNAPPY")

    # A reader in the middle, a ticket of the time before, a follower, tokens of both kinds.
    rest = [first, *reader]
    assert ids(rest) == list(range(50))
    assert [c.app_metadata.to_pybytes() if c.app_metadata else b"" for c in rest] == [b"a", b"", b"c", b"\xff"]
    again = list(client.flight.do_get(before.endpoints[0].ticket))
    assert [c.data for c in again] == [rows(0, 10), rows(10, 20), rows(20, 20), rows(20, 50)]
    assert [c.app_metadata.to_pybytes() if c.app_metadata else b"" for c in again] == [b"a", b"", b"c", b"\xff"]
    assert ids([*got, *follower]) == list(range(50))
    for token in [f"{session}:1", "1:1"]:
        assert ids(client.chunks(path, follow=True, **{"from": token})) == list(range(10, 50))
    assert ids(client.chunks(path, follow=True, **{"from": f"{session}:3"})) == list(range(20, 50))

    # The same version, with the bytes that there are.
    [version] = client.act("versions", path=path)
    size = (lake / name / file).stat().st_size
    assert (version["version"], version["bytes"], version["rows"], version["parts"]) == (1, size, 50, 1)
    [stat] = client.act("stat", path=f"{path}/{file}")
    assert (stat["size"], stat["state"]) == (size, "persisted")
    assert client.note(path)["batches"] == 4
    assert ids(client.chunks(path, filter="id > 47", columns=["id"])) == [48, 49]
    assert not client.exists(arrow)


def test_appends_and_overwrites_go_on_and_a_restart_knows_it(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    with Server(tmp_path / "d", under={"/kept": f"file://{lake}"}) as server:
        with server.client() as client:
            client.act("policy_set", path="/kept", persist_format="parquet")
            client.put("/kept/d", rows(0, 5))
            client.act("wait_persisted", path="/kept")
            client.put("/kept/d", rows(5, 9))
            client.act("wait_persisted", path="/kept")
        server.restart()
        with server.client() as client:
            assert ids(client.chunks("/kept/d")) == list(range(9))
            assert ids(client.chunks("/kept/d", version=1)) == list(range(5))
            found = sorted(lake.glob("d/*"))
            assert [p.suffix for p in found] == [".parquet"] * 2
            assert sorted(pq.read_table(lake / "d").column("id").to_pylist()) == list(range(9))
            assert client.act("versions", path="/kept/d")[-1]["bytes"] == sum(p.stat().st_size for p in found)
            client.put("/kept/d", rows(100, 101), mode="overwrite")
            client.act("wait_persisted", path="/kept")
            [only] = lake.glob("d/*")
            assert pq.read_table(only).column("id").to_pylist() == [100]
            assert ids(client.chunks("/kept/d", version=2)) == list(range(9))
            assert client.act("status")[0]["unconverted"] == []


def test_what_parquet_cannot_hold_goes_as_it_is_and_is_told(client, lake, name, path):
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    table = pa.table({"ok": [1, 2], "odd": union})
    client.put(path, *table.to_batches())
    arrive(client, path)
    [file] = files(lake, name)
    assert file.endswith(".arrow") and pa.ipc.open_file(lake / name / file).read_all() == table
    [left] = [u for u in client.act("status")[0]["unconverted"] if u["path"] == path]
    assert left["parts"] == 1 and '"odd"' in left["reason"] and left["since"]


def test_types_come_back_as_they_were(client, lake, name, path):
    table = pa.table({
        "word": pa.array(["red", None, "red"]).dictionary_encode(),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"x": 1, "y": "z"}, None, {"x": None, "y": None}]),
        "second": pa.array([1, None, -5], pa.timestamp("s", "Europe/Berlin")),
        "span": pa.array([1, 2, None], pa.duration("ms")),
        "half": pa.array([1.5, None, 0.25], pa.float16()),
        "money": pa.array([None, 1, 2], pa.decimal128(30, 4)),
        "large": pa.array([b"x", None, b""], pa.large_binary()),
        "view": pa.array(["a" * 20, None, "b"], pa.string_view()),
    }).replace_schema_metadata({"who": "wrote it"})
    client.put(path, *table.to_batches(), schema=table.schema)
    before = client.table(path)
    arrive(client, path)
    [file] = files(lake, name)
    assert file.endswith(".parquet"), client.act("status")[0]["unconverted"]
    after = client.table(path)
    assert after.schema.equals(before.schema, check_metadata=True) and after.equals(before)
    assert pq.read_table(lake / name / file).column("list").to_pylist() == [[1, None], None, []]


def test_readers_meet_it_at_any_moment(client, server, lake, name):
    """Writers append, readers read the head and follow from tokens, and every part changes under them."""
    path = f"/kept/{name}"
    client.act("policy_set", path=path, persist_format="parquet")
    client.put(path, rows(0, 10))
    stop, errors, reads = threading.Event(), [], [0]

    def read():
        try:
            with server.client() as mine:
                while not stop.is_set():
                    got = ids(mine.chunks(path))
                    assert got == list(range(len(got))) and len(got) % 10 == 0, got
                    assert ids(mine.chunks(path, follow=True, **{"from": "1:1"}))[:10] in ([], list(range(10, 20)))
                    reads[0] += 1
        except Exception as e:
            errors.append(e)

    readers = [threading.Thread(target=read) for _ in range(3)]
    [r.start() for r in readers]
    for k in range(1, 60):
        client.put(path, rows(10 * k, 10 * k + 10))
    client.act("wait_persisted", path=path)
    stop.set()
    [r.join() for r in readers]
    assert errors == [] and reads[0] > 5, (errors, reads)
    assert len(files(lake, name)) == 60 and all(f.endswith(".parquet") for f in files(lake, name))
    assert sorted(pq.read_table(lake / name).column("id").to_pylist()) == list(range(600))


@pytest.mark.parametrize("point", ["part-encoded-not-replaced", "part-replaced-not-freed", "intent-written", "visible-not-recorded"])
def test_a_kill_at_each_step_leaves_one_form_and_goes_on(tmp_path, point):
    lake, log = tmp_path / "lake", tmp_path / "points"
    lake.mkdir()
    log.write_text("")
    batches = [rows(0, 1000), rows(1000, 1001)]
    with Server(tmp_path / "d", under={"/kept": f"file://{lake}"}) as server:
        server.restart(FOREBAY_FAILPOINTS=f"{point}=return(abort)", FOREBAY_FAILPOINTS_LOG=str(log))
        with server.client() as client:
            client.act("policy_set", path="/kept", persist_format="parquet")
            try:
                client.put("/kept/d", *batches, token="once")
            except pa.ArrowException:
                pass  # The end may come before the answer.
        end = time.monotonic() + 20
        while server.alive():
            assert time.monotonic() < end, "the point was not reached"
            time.sleep(0.01)
        assert point in log.read_text()
        server.start()
        with server.client() as client:
            client.put("/kept/d", *batches, token="once")
            assert [c.data for c in client.chunks("/kept/d")] == batches
            assert len(client.names("/kept/d")) == 1
            client.act("wait_persisted", path="/kept")
            [file] = os.listdir(lake / "d")
            assert file.endswith(".parquet") and pq.read_table(lake / "d" / file).num_rows == 1001
            assert [c.data for c in client.chunks("/kept/d")] == batches
            status = client.act("status")[0]
            assert (status["dirty_files"], status["dirty_bytes"]) == (0, 0)
