"""What `status` says of what exists only here: how long, how much would be lost with it, and what each under-store has yet to get."""

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


def test_each_mount_tells_its_backlog_and_what_no_mount_covers_is_at_risk(tmp_path):
    under = {}
    for name in ("here", "away"):
        (tmp_path / name).mkdir()
        under[f"/{name}"] = f"file://{tmp_path}/{name}"
    server = Server(tmp_path / "d", under=under)
    with server:
        def of(client, name):
            [mount] = [mount for mount in client.act("status")[0]["mounts"] if mount["path"] == f"/{name}"]
            return mount["queued"] + client.act("status")[0]["uploading"], mount["dirty_bytes"], mount["lag_seconds"]

        with server.client() as client:
            client.put_file("/away/before", b"makes the mount known")
            client.act("wait_persisted", path="/away", timeout="10s")
            assert of(client, "away") == of(client, "here") == (0, 0, 0)
            (tmp_path / "away").rename(tmp_path / "gone")
            begun = time.monotonic()
            client.put_file("/away/a", b"x" * 1000)
            client.put_file("/away/b", b"x" * 500)
            client.put_file("/here/c", b"x" * 70)
            client.put_file("/apart", b"x" * 7)
            client.act("wait_persisted", path="/here", timeout="10s")
            time.sleep(1)
            pieces, dirty, lag = of(client, "away")
            assert (pieces, dirty) == (2, 1500) and 1 <= lag <= time.monotonic() - begun + 0.5
            assert of(client, "here")[1:] == (0, 0)
            told = client.act("status")[0]
            assert told["at_risk_bytes"] == told["dirty_bytes"] == 1507
            session = client.act("begin", path="/apart-too")[0]["session"]
            client.put("/apart-too", pa.record_batch([pa.array(range(1000))], names=["n"]), session=session)
            assert client.act("status")[0]["at_risk_bytes"] > 9000
            client.act("abort", session=session)
        server.restart()
        with server.client() as client:
            wait_for(lambda: of(client, "away")[:2] == (2, 1500), "the backlog is not known after a restart")
            assert of(client, "away")[2] >= lag
            (tmp_path / "gone").rename(tmp_path / "away")
            client.act("wait_persisted", path="/away", timeout="30s")
            wait_for(lambda: of(client, "away") == (0, 0, 0), "it stays")
            assert client.act("status")[0]["at_risk_bytes"] == 7
