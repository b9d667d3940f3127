"""A gateway that answers wrongly stands between a server and the real Ceph: every answer may hide what happened. In the end the bucket
holds what was acknowledged, and nothing beside it."""

import random

import pytest

from tests.harness import Server
from tests.stores import wait, wait_for

LARGE = random.Random(3).randbytes(40 << 20)


@pytest.fixture
def client(proxy, bucket, tmp_path):
    config = tmp_path / "config"
    config.write_text('[under]\ntimeout = "3s"\n')
    with Server(tmp_path / "data", under={"/lake": bucket.url(proxy.url)}, config=config) as server, server.client() as client:
        # It has tried what the store honours before anything is broken.
        wait_for(lambda: "under-store ready" in server.log(), "the store is not tried")
        yield client


def hit(proxy, count):
    assert proxy.faults == [] and len(proxy.hits) == count, (proxy.faults, proxy.hits)


@pytest.mark.parametrize("fault", ["lost", "500 after", "404 after", "200 with an error", "500", "hang"])
def test_the_end_of_an_upload_in_parts(client, proxy, bucket, fault):
    proxy.break_next("POST", "uploadId=", fault)
    client.put_file("/lake/large", LARGE)
    wait(client, seconds=120)
    hit(proxy, 1)
    assert bucket.objects() == {"large": LARGE} and bucket.uploads() == []
    # The same in place of what is there.
    anew = LARGE[::-1]
    proxy.break_next("POST", "uploadId=", fault)
    client.put_file("/lake/large", anew)
    wait(client, seconds=120)
    hit(proxy, 2)
    assert bucket.objects() == {"large": anew} and bucket.uploads() == []


def test_parts_and_their_beginning(client, proxy, bucket):
    faults = [("POST", "?uploads", "lost"), ("POST", "?uploads", "500")]
    faults += [("PUT", "partNumber=", fault) for fault in ("lost", "500 after", "503", "404 after", "hang")]
    for fault in faults:
        proxy.break_next(*fault)
    client.put_file("/lake/large", LARGE)
    wait(client, seconds=180)
    hit(proxy, len(faults))
    assert bucket.objects() == {"large": LARGE} and bucket.uploads() == []


@pytest.mark.parametrize("fault", ["lost", "500 after", "500", "503", "429", "hang"])
def test_small_files_that_are_written_overwritten_renamed_and_deleted(client, proxy, bucket, fault):
    def broken(method, part, do, *args, **keys):
        proxy.break_next(method, part, fault)
        do(*args, **keys)
        wait(client, seconds=120)
        assert proxy.faults == []
        return bucket.objects()

    assert broken("PUT", "/small", client.put_file, "/lake/small", b"first") == {"small": b"first"}
    assert broken("PUT", "/small", client.put_file, "/lake/small", b"second") == {"small": b"second"}
    renamed = {"from": "/lake/small", "to": "/lake/moved"}
    assert broken("PUT", "/moved", client.act, "rename", **renamed) == {"moved": b"second"}
    assert broken("DELETE", "/moved", client.act, "delete", path="/lake/moved") == {}


@pytest.mark.parametrize("fault", ["short", "lost", "500", "503", "hang"])
def test_reads(client, proxy, bucket, fault):
    bucket.put("theirs/small", b"small" * 1000)
    bucket.put("theirs/large", LARGE)
    for name, content in (("small", b"small" * 1000), ("large", LARGE)):
        proxy.break_next("GET", f"theirs/{name}", fault)
        assert client.file(f"/lake/theirs/{name}") == content
    hit(proxy, 2)


def test_a_bit_that_turns_on_the_way_of_a_small_object(client, proxy, bucket):
    content = random.Random(5).randbytes(100_000)
    for n in range(8):
        bucket.put(f"theirs/{n}", content)
        proxy.break_next("GET", f"theirs/{n}", "flipped")
        assert client.file(f"/lake/theirs/{n}") == content
        assert client.file(f"/lake/theirs/{n}") == content, "it was kept"
    hit(proxy, 8)


def test_everything_at_once(client, proxy, bucket):
    """Many files while every fifth answer or so is wrong."""
    chance = random.Random(11)
    for _ in range(60):
        method, part = chance.choice([("PUT", "/many/"), ("HEAD", "/many/"), ("DELETE", "/many/")])
        proxy.break_next(method, part, chance.choice(["lost", "500 after", "500", "503"]))
    kept = {}
    for k in range(150):
        name, content = f"many/{k % 60:03}", chance.randbytes(2000)
        if k % 7 == 6:
            client.act("delete", path=f"/lake/{name}") if name in kept else None
            kept.pop(name, None)
        else:
            client.put_file(f"/lake/{name}", content)
            kept[name] = content
    wait(client, seconds=240)
    assert len(proxy.hits) > 20, proxy.hits
    assert {k: v for k, v in bucket.objects().items() if not k.endswith("/")} == kept and bucket.uploads() == []
