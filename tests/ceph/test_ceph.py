"""Persist into a real Ceph: what was acknowledged is there under its own name, byte for byte, and nothing beside it."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness import Server
from tests.stores import a_changed_target_is_kept_and_reported, same, wait

LARGE = random.Random(7).randbytes(70 << 20)


def daemon(name):
    return Path(os.environ["FOREBAY_CEPH"], "run", f"{name}.pid")


def end(name):
    """SIGKILL of a Ceph daemon that `with.sh` started."""
    pid = int(daemon(name).read_text())
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1]:
        time.sleep(0.02)


def all_same(client, bucket):
    """The bucket holds exactly what Forebay serves, beside the marks of empty directories, and no upload is open."""
    assert bucket.uploads() == []
    return same(client, {key: content for key, content in bucket.objects().items() if not key.endswith("/")})


def test_small_large_and_empty_files(client, bucket):
    contents = {"a": b"", "b/c": b"x" * 100_000, "b/large": LARGE, "ü/日本": b"1"}
    for name, content in contents.items():
        client.put_file(f"/lake/{name}", content)
    wait(client)
    assert {k: v for k, v in bucket.objects().items() if not k.endswith("/")} == contents
    assert bucket.uploads() == []


def test_overwrites_renames_and_deletes(client, bucket):
    for k in range(12):
        client.put_file(f"/lake/d/{k:02}", bytes([k]) * 20_000)
    wait(client)
    client.put_file("/lake/d/00", b"anew")
    client.act("delete", path="/lake/d/01")
    client.act("rename", **{"from": "/lake/d/02", "to": "/lake/d/two"})
    client.act("rename", **{"from": "/lake/d", "to": "/lake/e"})
    client.put_file("/lake/d/again", b"a new folder of the old name")
    wait(client)
    assert all_same(client, bucket) == 12
    assert bucket.objects()["e/00"] == b"anew"


def test_a_dataset_is_readable_by_others(client, bucket):
    table = pa.table({"id": range(10_000), "s": [str(k) for k in range(10_000)]})
    client.put("/lake/arrow", *table.to_batches())
    client.put("/lake/parquet", *table.to_batches(), format="parquet")
    session = client.act("begin", path="/lake/done")[0]["session"]
    client.put("/lake/done", *table.to_batches(), session=session)
    client.act("publish", session=session, success_file=True)
    wait(client)
    stored = bucket.objects()
    [arrow] = [v for k, v in stored.items() if k.startswith("arrow/")]
    [parquet] = [v for k, v in stored.items() if k.startswith("parquet/")]
    assert pa.ipc.open_file(arrow).read_all() == table and pq.read_table(pa.BufferReader(parquet)) == table
    assert stored["done/_SUCCESS"] == b""
    assert all_same(client, bucket) == 4


def test_what_others_wrote_is_read_through(client, bucket):
    bucket.put("theirs/x.bin", LARGE)
    assert client.names("/lake/theirs") == ["/lake/theirs/x.bin"]
    assert client.file("/lake/theirs/x.bin") == LARGE
    assert client.file("/lake/theirs/x.bin", offset=50_000_000, length=100) == LARGE[50_000_000:50_000_100]
    assert client.act("stat", path="/lake/theirs/x.bin")[0]["state"] == "clean"


def test_a_target_that_someone_else_changed_is_kept_and_reported(client, bucket):
    a_changed_target_is_kept_and_reported(client, bucket.put, bucket.objects)


def test_a_killed_server_resumes_a_large_upload(server, client, bucket):
    client.put_file("/lake/large", LARGE)
    end_at = time.monotonic() + 30
    while not bucket.uploads():
        assert time.monotonic() < end_at, "the upload never began, so the kill would prove nothing"
        time.sleep(0.01)
    server.restart()
    with server.client() as again:
        wait(again)
        assert bucket.objects() == {"large": LARGE} and bucket.uploads() == []


def test_acknowledgements_go_on_while_the_gateway_is_down(server, client, bucket):
    client.put_file("/lake/before", b"1")
    wait(client)
    end("client.rgw")
    try:
        for k in range(20):
            client.put_file(f"/lake/k{k}", bytes(1000))
        assert client.act("status")[0]["dirty_files"] >= 20
    finally:
        subprocess.run(["radosgw", "-n", "client.rgw"], check=True)
    wait(client)
    assert all_same(client, bucket) == 21


def test_an_osd_that_dies_in_the_middle(client, bucket):
    client.put_file("/lake/first", b"1")
    wait(client)
    end("osd.0")
    try:
        for k in range(5):
            client.put_file(f"/lake/o{k}", bytes([k]) * 100_000)
        time.sleep(2)
        assert client.act("status")[0]["dirty_files"] >= 5
    finally:
        subprocess.run(["ceph-osd", "-i", "0"], check=True, stdout=subprocess.DEVNULL)
    wait(client, seconds=180)
    assert all_same(client, bucket) == 6


def test_wrong_keys_block_visibly_and_lose_nothing(tmp_path, bucket):
    wrong = {"AWS_SECRET_ACCESS_KEY": "not the secret"}
    server = Server(tmp_path / "data", under={"/lake": bucket.url()})
    server.start(**wrong)
    with server.client() as client:
        client.put_file("/lake/x", b"kept")
        end_at = time.monotonic() + 40
        while not (blocked := client.act("status")[0]["blocked"]):
            assert time.monotonic() < end_at, "nothing reported as blocked"
            time.sleep(0.2)
        assert blocked[0]["path"] == "/lake/x" and client.file("/lake/x") == b"kept"
    server.restart()
    try:
        with server.client() as client:
            wait(client)
            assert bucket.objects() == {"x": b"kept"}
    finally:
        server.kill()
