"""Promises of docs/semantics.md that need a server of their own: levels, the dirty limit, a store that is away."""

import json
import shutil
import threading
import time

import pyarrow as pa
import pytest

from tests.harness import Server, descriptor, flight_data, ipc_messages

ROW = pa.record_batch([pa.array([1, 2, 3])], names=["id"])


@pytest.fixture
def own(tmp_path):
    """A server with a lake of its own: a folder that can be taken away."""
    lake = tmp_path / "lake"
    lake.mkdir()
    with Server(tmp_path / "data", under={"/lake": f"file://{lake}"}, dirty_max="8MiB") as server:
        yield server, lake


@pytest.mark.parametrize("level", ["replicated(2)", "replicated(3)"])
def test_a_level_that_cannot_be_had_is_refused(client, level):
    messages = ipc_messages([ROW])
    answer = client.call("DoPut", *[flight_data(h, b, descriptor("/level/x", ack=level) if k == 0 else None) for k, (h, b) in enumerate(messages)])
    assert answer[0] in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION") and "replicated" in answer[2], answer
    assert not client.exists("/level/x")


def test_persisted_is_acknowledged_only_when_the_store_has_it(own):
    server, lake = own
    with server.client() as client:
        answers = [json.loads(a) for a in client.put("/lake/set", ROW, ack="persisted", timeout=60)]
        assert [a["level"] for a in answers] == ["persisted"] or answers[-1]["level"] in ("local", "persisted")
        [part] = (lake / "set").glob("part-*.arrow")
        assert pa.ipc.open_file(part).read_all() == pa.Table.from_batches([ROW])
        client.put_file("/lake/file", b"abc", ack="persisted", timeout=60)
        assert (lake / "file").read_bytes() == b"abc"


def away(lake):
    """Takes the folder away: a file where the mount's folder was, so that no write can make it anew."""
    lake.rename(lake.with_name("gone"))
    lake.write_text("not a folder")


def back(lake):
    lake.unlink()
    lake.with_name("gone").rename(lake)


def test_a_store_that_is_away_fails_fast_and_holds_nothing_up(own):
    server, lake = own
    (lake / "old").write_bytes(b"only there")
    with server.client() as client:
        client.put_file("/lake/before", b"1")
        client.act("wait_persisted", path="/lake", timeout="30s")
        away(lake)
        client.put_file("/lake/new", b"acknowledged while the store is away")
        assert client.file("/lake/new") == b"acknowledged while the store is away"
        client.put("/lake/features/day=1", ROW, ROW)
        assert client.table("/lake/features/day=1").num_rows == 2 * ROW.num_rows
        begin = time.monotonic()
        with pytest.raises((pa.ArrowException, OSError)):
            client.file("/lake/old")
        assert time.monotonic() - begin < 15
        assert client.act("status")[0]["dirty_files"] >= 1
        back(lake)
        client.act("wait_persisted", path="/lake", timeout="90s")
        assert (lake / "new").read_bytes() == b"acknowledged while the store is away"


def test_a_dataset_is_overwritten_while_the_store_is_away_and_its_old_files_go(own):
    server, lake = own
    old = pa.record_batch([pa.array([7, 8])], names=["id"])
    for day in (1, 2):
        (lake / f"features/day={day}").mkdir(parents=True)
        with pa.OSFile(str(lake / f"features/day={day}/old.arrow"), "wb") as sink, pa.ipc.new_file(sink, old.schema) as writer:
            writer.write_batch(old)
    (lake / "features/day=1/_SUCCESS").write_bytes(b"")
    (lake / "features/day=1/notes.txt").write_text("no data")
    (lake / "features/day=3").write_text("a file")
    away(lake)
    with server.client() as client:
        for day in (1, 2, 3):
            client.put(f"/lake/features/day={day}", ROW, mode="overwrite")
            client.put(f"/lake/features/day={day}", ROW)
            assert client.table(f"/lake/features/day={day}").num_rows == 2 * ROW.num_rows
        with pytest.raises((pa.ArrowException, OSError)):
            client.put("/lake/features/day=4", ROW, mode="create")
    server.restart()
    with server.client() as client:
        assert client.table("/lake/features/day=1").num_rows == 2 * ROW.num_rows
        time.sleep(1)
        back(lake)
        (lake / "features/day=2/late.txt").write_text("later")
        for day in (1, 2):
            client.act("wait_persisted", path=f"/lake/features/day={day}", timeout="90s")
            stored = sorted(path.name for path in (lake / f"features/day={day}").iterdir())
            assert len(stored) == 3 and stored[0] == {1: "notes.txt", 2: "late.txt"}[day], stored
            listed = sorted(entry["path"].rsplit("/", 1)[1] for entry in client.act("list", path=f"/lake/features/day={day}"))
            assert listed == stored
            assert client.table(f"/lake/features/day={day}").num_rows == 2 * ROW.num_rows
        deadline = time.monotonic() + 60
        while not client.act("status")[0]["conflicts"] and time.monotonic() < deadline:
            time.sleep(0.1)
        [conflict] = client.act("status")[0]["conflicts"]
        assert conflict["path"] == "/lake/features/day=3" and (lake / "features/day=3").read_text() == "a file"
        assert client.table("/lake/features/day=3").num_rows == 2 * ROW.num_rows
        client.act("persist_resolve", path="/lake/features/day=3", how="keep-mine")
        client.act("wait_persisted", path="/lake", timeout="90s")
        assert len(list((lake / "features/day=3").glob("part-*.arrow"))) == 2


def test_at_the_dirty_limit_writers_wait_for_the_persister(own):
    server, lake = own
    with server.client() as client, server.client() as other:
        client.put_file("/lake/x", b"1")
        client.act("wait_persisted", path="/lake", timeout="30s")
        away(lake)
        for k in range(3):
            client.put_file(f"/lake/d{k}", bytes([k]) * (2 << 20))
        done = []
        writer = threading.Thread(target=lambda: done.append(other.put_file("/lake/more", bytes(4 << 20), timeout=60)), daemon=True)
        writer.start()
        writer.join(2)
        [status] = client.act("status")
        assert writer.is_alive() and not done, "the writer was not slowed"
        assert 6 << 20 <= status["dirty_bytes"] <= 8 << 20, status["dirty_bytes"]
        back(lake)
        writer.join(60)
        assert done, "the writer never went on"
        client.act("wait_persisted", path="/lake", timeout="60s")
        assert {k: (lake / f"d{k}").read_bytes()[:1] for k in range(3)} == {k: bytes([k]) for k in range(3)}
        assert (lake / "more").stat().st_size == 4 << 20
    shutil.rmtree(lake, ignore_errors=True)
