"""Persist into a real Ceph: what was acknowledged is there under its own name, byte for byte, and nothing beside it."""

import json
import os
import random
import signal
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.flight
import pyarrow.parquet as pq

from tests.harness import Server
from tests.stores import a_changed_target_is_kept_and_reported, changes_outside_are_seen, same, wait, wait_for
from tests.webhdfs.conftest import Hdfs

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


def test_an_empty_directory_is_a_key_with_a_slash_and_only_while_it_is_empty(client, bucket):
    client.act("mkdir", path="/lake/a/b", parents=True)
    client.act("mkdir", path="/lake/c")
    wait(client)
    assert bucket.objects() == {"a/b/": b"", "c/": b""}
    client.put_file("/lake/a/b/f", b"f")
    client.act("rename", **{"from": "/lake/c", "to": "/lake/d"})
    wait(client)
    assert bucket.objects() == {"a/b/f": b"f", "d/": b""}
    client.act("delete", path="/lake/a/b/f")
    client.act("delete", path="/lake/d")
    wait(client)
    assert bucket.objects() == {"a/b/": b""}


def test_small_files_go_into_packs_and_show_to_whoever_has_the_bucket(server, client, bucket, tmp_path):
    client.act("policy_set", path="/lake/p", pack=True)
    files = {f"/lake/p/d{k % 2}/{k:03}": random.Random(k).randbytes(500 + k * 300) for k in range(120)}
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda file: client.put_file(*file), files.items()))
    wait(client)

    def served_by_an_empty_folder():
        with Server(tmp_path / uuid.uuid4().hex, under={"/lake": bucket.url()}) as other, other.client() as its:
            paths = [p for p in its.names("/lake", recursive=True) if its.act("stat", path=p)[0]["kind"] == "file"]
            return {p: its.file(p) for p in paths}

    objects = bucket.objects()
    assert 1 <= len(objects) <= 40 and all(key.startswith(".forebay-packs/") for key in objects), list(objects)
    client.act("free", path="/lake")
    assert {p: client.file(p) for p in files} == files == served_by_an_empty_folder()

    for k in range(0, 120, 4):
        client.act("delete", path=f"/lake/p/d0/{k:03}")
        del files[f"/lake/p/d0/{k:03}"]
    files["/lake/p/d1/001"] = b"anew"
    client.put_file("/lake/p/d1/001", b"anew")
    client.act("rename", **{"from": "/lake/p/d1", "to": "/lake/p/moved"})
    files = {p.replace("/d1/", "/moved/"): content for p, content in files.items()}
    wait(client)
    server.restart()
    with server.client() as again:
        assert {p: again.file(p) for p in files} == files == served_by_an_empty_folder()
        again.act("delete", path="/lake/p", recursive=True)
        wait(again)
    assert served_by_an_empty_folder() == {}
    left = {key: content for key, content in bucket.objects().items() if not key.endswith("/")}
    assert len(left) <= 1 and sum(map(len, left.values())) < 1000


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


def test_parts_become_parquet_on_their_way(client, bucket):
    table = pa.table({"id": range(10_000), "s": pa.array([str(k % 7) for k in range(10_000)]).dictionary_encode()})
    client.act("policy_set", path="/lake/becomes", persist_format="parquet", persist="never", parquet_compression="zstd")
    client.put("/lake/becomes", *table.to_batches(max_chunksize=1000))
    before = client.info("/lake/becomes")
    client.act("persist", path="/lake/becomes")
    wait(client)
    [(key, file)] = [(k, v) for k, v in bucket.objects().items() if k.startswith("becomes/")]
    assert key.endswith(".parquet") and pq.read_table(pa.BufferReader(file)) == table
    assert pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0).column(0).statistics.max == 9999
    # From here, by a ticket of the time before, and once nothing is here any more.
    assert [c.data for c in client.flight.do_get(before.endpoints[0].ticket)] == table.to_batches(max_chunksize=1000)
    client.act("free", path="/lake/becomes")
    assert client.act("stat", path=f"/lake/{key}")[0]["cached_bytes"] == 0
    assert client.table("/lake/becomes") == table
    assert bucket.uploads() == []


def test_what_others_wrote_is_read_through(client, bucket):
    bucket.put("theirs/x.bin", LARGE)
    assert client.names("/lake/theirs") == ["/lake/theirs/x.bin"]
    assert client.file("/lake/theirs/x.bin") == LARGE
    assert client.file("/lake/theirs/x.bin", offset=50_000_000, length=100) == LARGE[50_000_000:50_000_100]
    assert client.act("stat", path="/lake/theirs/x.bin")[0]["state"] == "clean"


def test_attributes_follow_what_has_arrived_without_its_bytes(server, client, bucket, tmp_path):
    bucket.put("theirs", b"theirs")
    small = "a smäll +"
    contents = {small: b"small", "large": LARGE}  # The larger one went in parts.
    for name, content in contents.items():
        client.put_file(f"/lake/{name}", content)
    wait(client)
    before = {name: bucket.head(name) for name in contents}
    with Hdfs(server.http) as hdfs:
        for name in (*contents, "theirs"):
            hdfs.put(f"/lake/{name}", "SETPERMISSION", permission="604")
            hdfs.put(f"/lake/{name}", "SETTIMES", modificationtime=10**12)
        wait(client)
        hdfs.put(f"/lake/{small}", "SETXATTR", **{"xattr.name": "user.colour", "xattr.value": "0x626c7565", "flag": "CREATE"})
    wait(client)
    for name in contents:
        kept = bucket.head(name)["Metadata"]
        assert (kept["mode"], kept["mtime"], kept.get("xattrs")) == ("604", str(10**15), "user.colour=blue" if name == small else None)
        assert kept["forebay-token"] == before[name]["Metadata"]["forebay-token"]
    assert bucket.head("theirs")["Metadata"] == {}, "an object of others is not copied"
    client.act("free", path="/lake")
    assert {name: client.file(f"/lake/{name}") for name in contents} == contents
    with Server(tmp_path / "anew", under={"/lake": bucket.url()}) as anew, anew.client() as other:
        for name in contents:
            told = other.act("stat", path=f"/lake/{name}")[0]
            assert told["mode"] == client.act("stat", path=f"/lake/{name}")[0]["mode"] and told["mtime"].startswith("2001-09-09T01:46:40")
            assert other.file(f"/lake/{name}") == contents[name]
    # For us that is no change outside.
    client.put_file(f"/lake/{small}", b"anew")
    client.act("delete", path="/lake/large")
    wait(client)
    assert bucket.objects() == {small: b"anew", "theirs": b"theirs"} and bucket.uploads() == []


def test_modes_are_found_by_a_cache_that_begins_anew(server, client, bucket, tmp_path):
    with Hdfs(server.http) as hdfs:
        hdfs.write("/lake/private", b"for the group", permission="640")
    wait(client)
    assert bucket.head("private")["Metadata"]["mode"] == "640"
    with Server(tmp_path / "anew", under={"/lake": bucket.url()}) as anew, anew.client() as other:
        assert other.act("stat", path="/lake/private")[0]["mode"] == client.act("stat", path="/lake/private")[0]["mode"]


def test_changes_outside_are_seen(client, bucket):
    changes_outside_are_seen(client, bucket.put, bucket.delete)


def test_a_key_in_a_file_is_rotated_without_a_restart_and_shown_nowhere(tmp_path, bucket):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "AWS_ACCESS_KEY_ID").write_text(os.environ["AWS_ACCESS_KEY_ID"])
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("a-key-that-was-taken-back")
    env = {"FOREBAY_LOG": "trace", "AWS_SECRET_ACCESS_KEY": "not-this-one-either"}
    with Server(tmp_path / "data", under={"/lake": f"{bucket.url()}&credentials={secret}"}, env=env) as server, server.client() as client:
        client.put_file("/lake/x", b"kept")
        end_at = time.monotonic() + 40
        while not (status := client.act("status")[0])["blocked"]:
            assert time.monotonic() < end_at, "nothing reported as blocked"
            time.sleep(0.2)
        (secret / "AWS_SECRET_ACCESS_KEY").write_text(os.environ["AWS_SECRET_ACCESS_KEY"])
        wait(client, seconds=90)  # By itself: what is blocked is tried again.
        assert bucket.objects() == {"x": b"kept"}
        shown = server.log() + str(status) + str(client.act("status")) + str(client.act("under_list"))
    assert "under-store ready" in shown and "taken-back" not in shown and "not-this-one" not in shown
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in shown


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


def ceph(*command):
    return subprocess.run(["ceph", *command], check=True, capture_output=True, text=True).stdout


def pool_is_full(full):
    """Sets a quota of one object on the pool of contents, or takes it away, and waits until Ceph acts on it."""

    def told():
        return ("full_quota" in ceph("osd", "pool", "ls", "detail")) == full

    def heard():
        return json.loads(ceph("tell", "osd.0", "status"))["newest_map"] >= json.loads(ceph("osd", "dump", "-f", "json"))["epoch"]

    ceph("osd", "pool", "set-quota", "default.rgw.buckets.data", "max_objects", "1" if full else "0")
    wait_for(told, "Ceph takes no notice of the quota")
    if full:  # Until it knows, the OSD takes writes.
        wait_for(heard, "the OSD is not told of the quota")


def renames(client, source, target):
    """Whether the file is renamed; not while the store counts as away."""
    try:
        client.act("rename", **{"from": source, "to": target})
    except pa.flight.FlightUnavailableError:
        return False
    return True


def test_a_full_pool_holds_up_requests_that_must_not_arrive_late(client, bucket):
    """The gateway answers no write then, and carries those out that it was given once there is room, long after they were given up."""
    contents = {name: name.encode() * 50_000 for name in ("kept", "overwritten", "deleted", "renamed")}
    client.put_file("/lake/first", b"1")
    client.put_file("/lake/second", b"2")
    wait(client)
    pool_is_full(True)
    try:
        for name, content in contents.items():
            client.put_file(f"/lake/{name}", content)
        # Each was sent and not answered, so that the gateway still has it.
        wait_for(lambda: client.act("status")[0]["uploading"] > 0, "nothing is sent")
        time.sleep(15)
        client.put_file("/lake/overwritten", b"anew")
        client.act("delete", path="/lake/deleted")
        # Reads are answered, and the new name has to be asked for; but in turn with the writes the store counts as away.
        wait_for(lambda: renames(client, "/lake/renamed", "/lake/moved"), "the store answers no lookup")
        assert client.act("status")[0]["dirty_files"] >= 3
        time.sleep(5)
        assert set(bucket.objects()) == {"first", "second"}
    finally:
        pool_is_full(False)
    # Until it has answered once more the store counts as away, which a wait would tell at once.
    wait_for(lambda: client.act("status")[0]["dirty_files"] == 0, "nothing more arrives", 120)
    wait(client, seconds=180)
    time.sleep(10)
    objects = bucket.objects()
    assert set(objects) == {"first", "second", "kept", "overwritten", "moved"}
    assert objects["overwritten"] == b"anew" and objects["moved"] == contents["renamed"] and objects["kept"] == contents["kept"]
    assert all_same(client, bucket) == 5


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
