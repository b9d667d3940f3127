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
