"""`oldest_dirty_seconds`: how long the oldest of what exists only here does, whether or not an under-store is to get it."""

import time
import urllib.request

import pyarrow as pa

from tests.harness import Server
from tests.stores import wait_for


def oldest(client):
    return client.act("status")[0]["oldest_dirty_seconds"]


def test_what_no_mount_covers_has_an_age_too(tmp_path):
    server = Server(tmp_path / "d")
    with server:
        with server.client() as client:
            assert oldest(client) == 0
            client.put_file("/a", b"first")
            begun = time.monotonic()
            time.sleep(1.5)
            client.put_file("/b", b"second")
            assert 1.4 < oldest(client) <= time.monotonic() - begun + 0.5
            client.put_file("/a", b"anew")
            assert oldest(client) < 1.4, "the old content is gone"
            time.sleep(1)
            age, now = oldest(client), time.monotonic()
            assert age >= 1
        server.restart()
        with server.client() as client:
            assert oldest(client) >= age
            assert oldest(client) <= age + (time.monotonic() - now) + 0.5
            page = lambda: urllib.request.urlopen(f"{server.http}/metrics").read().decode()
            told = lambda: [float(line.split()[1]) for line in page().splitlines() if line.startswith("forebay_oldest_dirty_seconds ")]
            wait_for(lambda: told() and told()[0] > age, "the metric does not tell")
            client.act("delete", path="/a")
            client.act("delete", path="/b")
            assert oldest(client) == 0
            wait_for(lambda: told() == [0], "the metric stays")


def test_parts_of_datasets_have_an_age_until_they_are_gone(tmp_path):
    rows = pa.record_batch([pa.array([1])], names=["n"])
    with Server(tmp_path / "d") as server, server.client() as client:
        client.put("/ds", rows)
        time.sleep(1)
        assert oldest(client) >= 1
        client.act("delete", path="/ds", recursive=True)
        wait_for(lambda: client.act("status")[0]["dirty_files"] == 0, "the parts stay")
        assert oldest(client) == 0
        session = client.act("begin", path="/ds")[0]["session"]
        client.put("/ds", rows, session=session)
        time.sleep(1)
        assert oldest(client) >= 1
        client.act("abort", session=session)
        assert client.act("status")[0]["dirty_files"] == 0 and oldest(client) == 0


def test_what_was_persisted_is_old_no_more(tmp_path):
    (tmp_path / "lake").mkdir()
    with Server(tmp_path / "d", under={"/lake": f"file://{tmp_path}/lake"}) as server, server.client() as client:
        client.put_file("/lake/f", b"goes")
        client.act("wait_persisted", path="/lake", timeout="10s")
        assert oldest(client) == 0
        client.act("policy_set", path="/lake/stays", persist="never")
        client.put_file("/lake/stays", b"stays")
        time.sleep(1)
        assert oldest(client) >= 1
