"""Persist into a real HDFS: what was acknowledged is there under its own name, byte for byte, and nothing beside it."""

import random
import time

import pyarrow as pa
import pytest

from tests.hdfs.conftest import node
from tests.stores import a_changed_target_is_kept_and_reported, changes_outside_are_seen, same, wait
from tests.webhdfs.conftest import Hdfs

LARGE = random.Random(7).randbytes(20 << 20)


def dirty_files(client):
    return client.act("status")[0]["dirty_files"]


def test_small_large_and_empty_files(client, folder):
    contents = {"a": b"", "b/c": b"x" * 100_000, "b/large": LARGE, "ü/日本": b"1"}
    for name, content in contents.items():
        client.put_file(f"/lake/{name}", content)
    wait(client)
    assert folder.files() == contents
    assert folder.status("b/large")["permission"] == "644"


def test_overwrites_renames_and_deletes(client, folder):
    for k in range(8):
        client.put_file(f"/lake/d/{k:02}", bytes([k]) * 20_000)
    wait(client)
    client.put_file("/lake/d/00", b"anew")
    client.act("delete", path="/lake/d/01")
    client.act("rename", **{"from": "/lake/d/02", "to": "/lake/d/two"})
    client.act("rename", **{"from": "/lake/d", "to": "/lake/e"})
    client.put_file("/lake/d/again", b"a new folder of the old name")
    wait(client)
    assert same(client, folder.files()) == 8
    assert folder.files()["e/00"] == b"anew"


def test_a_dataset_is_readable_by_others(client, folder):
    table = pa.table({"id": range(10_000), "s": [str(k) for k in range(10_000)]})
    client.put("/lake/arrow", *table.to_batches())
    wait(client)
    [stored] = [content for path, content in folder.files().items() if path.startswith("arrow/")]
    assert pa.ipc.open_file(stored).read_all() == table


def test_attributes_follow_what_has_arrived(server, client, folder):
    client.put_file("/lake/ours", b"ours")
    wait(client)
    with Hdfs(server.http) as hdfs:
        hdfs.put("/lake/ours", "SETPERMISSION", permission="604")
        hdfs.put("/lake/ours", "SETTIMES", modificationtime=10**12)
    wait(client)
    assert (folder.status("ours")["permission"], folder.status("ours")["modificationTime"]) == ("604", 10**12)
    # For us that is no change outside.
    client.act("free", path="/lake")
    assert client.file("/lake/ours") == b"ours"
    client.act("rename", **{"from": "/lake/ours", "to": "/lake/moved"})
    wait(client)
    assert folder.files() == {"moved": b"ours"} and folder.status("moved")["permission"] == "604"
    client.act("delete", path="/lake/moved")
    wait(client)
    assert folder.files() == {}


def test_what_others_wrote_is_read_through(client, folder):
    client.put_file("/lake/theirs/ours", b"makes the folder")
    wait(client)
    folder.put("theirs/x.bin", LARGE)
    assert client.names("/lake/theirs") == ["/lake/theirs/ours", "/lake/theirs/x.bin"]
    assert client.file("/lake/theirs/x.bin") == LARGE
    assert client.file("/lake/theirs/x.bin", offset=5_000_000, length=100) == LARGE[5_000_000:5_000_100]
    assert client.act("stat", path="/lake/theirs/x.bin")[0]["state"] == "clean"


def test_changes_outside_are_seen_by_time_and_length(client, folder):
    changes_outside_are_seen(client, folder.put, folder.delete)


def test_a_target_that_someone_else_changed_is_kept_and_reported(client, folder):
    a_changed_target_is_kept_and_reported(client, folder.put, folder.files)


@pytest.mark.parametrize("which", ["namenode", "datanode"])
def test_acknowledgements_go_on_while_a_process_is_down(client, folder, which):
    client.put_file("/lake/before", b"1")
    wait(client)
    node("kill", which)
    try:
        for k in range(20):
            client.put_file(f"/lake/k{k}", bytes([k]) * 1000)
        time.sleep(2)
        assert dirty_files(client) >= 20, "nothing can have arrived"
    finally:
        node("start", which)
        node("wait")
    wait(client, seconds=180)
    assert same(client, folder.files()) == 21


def test_in_safe_mode_nothing_arrives_and_nothing_is_lost(client, folder):
    client.put_file("/lake/before", b"1")
    wait(client)
    node("admin", "-safemode", "enter")
    try:
        client.put_file("/lake/meanwhile", b"2")
        time.sleep(2)
        assert dirty_files(client) == 1 and client.file("/lake/before") == b"1"
    finally:
        node("admin", "-safemode", "leave")
    wait(client)
    assert folder.files() == {"before": b"1", "meanwhile": b"2"}


def test_a_killed_server_goes_on(server, client, folder):
    for k in range(4):
        client.put_file(f"/lake/large{k}", LARGE)
    assert dirty_files(client) > 0, "all arrived before the kill, which proves nothing then"
    server.restart()
    with server.client() as again:
        wait(again)
        assert folder.files() == {f"large{k}": LARGE for k in range(4)}
