"""Somebody deletes the bucket while a server has work for it. What was acknowledged and not yet there is kept, more is acknowledged, and all of it
arrives once there is a bucket of that name again. What had arrived is gone with the bucket, as whatever others delete in a store is."""

import random
import subprocess
import time
import uuid

import pytest

from tests.ceph.conftest import Bucket
from tests.ceph.test_ceph import all_same
from tests.harness import Server
from tests.stores import wait, wait_for

LARGE = random.Random(5).randbytes(24 << 20)


@pytest.fixture
def bucket():
    """One of its own, to delete."""
    bucket = Bucket("t")
    bucket.name = f"forebay-{uuid.uuid4().hex[:8]}"
    bucket.s3.create_bucket(Bucket=bucket.name)
    return bucket


@pytest.fixture
def server(proxy, bucket, tmp_path):
    with Server(tmp_path / "data", under={"/lake": bucket.url(proxy.url)}) as server:
        yield server


def delete(bucket):
    """All of it, as whoever keeps the store does."""
    subprocess.run(["radosgw-admin", "bucket", "rm", f"--bucket={bucket.name}", "--purge-objects"], check=True)


def blocked(client):
    return {item["path"]: item["reason"] for item in client.act("status")[0]["blocked"]}


def begins_an_upload_that_cannot_end(client, proxy, bucket):
    for _ in range(200):
        proxy.break_next("PUT", "partNumber=", "503")
    client.put_file("/lake/large", LARGE)
    wait_for(bucket.uploads, "the upload does not begin")


def test_the_reason_names_the_bucket_and_what_to_do(client, bucket):
    delete(bucket)
    client.put_file("/lake/small", b"small")
    wait_for(lambda: blocked(client), "nothing is reported as blocked")
    reason = blocked(client)["/lake/small"]
    assert bucket.name in reason and any(word in reason for word in ("create", "make")), reason


@pytest.mark.parametrize("hand", ["nobody's", "an operator's"])
def test_nothing_acknowledged_is_lost_and_all_of_it_arrives_in_a_new_one(server, client, proxy, bucket, hand):
    for name in ("overwritten", "renamed", "deleted", "untouched"):
        client.put_file(f"/lake/{name}", name.encode())
    wait(client)
    begins_an_upload_that_cannot_end(client, proxy, bucket)
    delete(bucket)
    with proxy.lock:
        proxy.faults.clear()

    contents = {"large": LARGE, "overwritten": b"anew", "d/e/new": b"in a new folder"}
    contents |= {f"small{k}": random.Random(k).randbytes(1000) for k in range(10)}
    for name in contents.keys() - {"large"}:
        client.put_file(f"/lake/{name}", contents[name])
    client.act("delete", path="/lake/deleted")
    wait_for(lambda: {f"/lake/{name}" for name in contents} <= blocked(client).keys(), f"not all is reported as blocked: {blocked(client)}")
    assert all("NoSuchBucket" in reason for reason in blocked(client).values()), blocked(client)
    [mount] = [mount for mount in client.act("status")[0]["mounts"] if mount["path"] == "/lake"]
    assert "NoSuchBucket" in mount["state"] and bucket.name in mount["url"]
    assert client.act("status")[0]["dirty_files"] == len(contents)
    assert {name: client.file(f"/lake/{name}") for name in contents} == contents

    # It is the journal's, not the process's.
    server.restart()
    with server.client() as again:
        assert {name: again.file(f"/lake/{name}") for name in contents} == contents
        again.put_file("/lake/after", b"a restart")
        contents["after"] = b"a restart"
        wait_for(lambda: "/lake/after" in blocked(again), "what comes after a restart is not reported")

        bucket.s3.create_bucket(Bucket=bucket.name)
        begin = time.monotonic()

        def has_arrived():
            if hand == "an operator's":  # More than once: one that is tried before the mount has been is answered by what that found last.
                for path in blocked(again):
                    again.act("persist_resolve", path=path, how="retry")
                time.sleep(0.5)
            return again.act("status")[0]["dirty_files"] == 0 and not blocked(again)

        wait_for(has_arrived, "not all of it arrives", 100)
        took = time.monotonic() - begin
        wait(again)
        status = again.act("status")[0]
        assert status["queued"] == 0 and status["blocked"] == status["conflicts"] == []
        assert {key: content for key, content in bucket.objects().items() if not key.endswith("/")} == contents
        again.act("sync", path="/lake", wait=True)  # Else names that went with the bucket are listed until somebody looks at them.
        assert all_same(again, bucket) == len(contents)
        assert hand == "nobody's" or took < 15, f"{took:.0f} s, although it was asked to try at once"
