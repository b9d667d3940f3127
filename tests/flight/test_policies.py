"""Policies by a stock Flight client: what is set, what holds, and that it does what it says."""

import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import Server


def explained(client, path):
    return {line["key"]: (line["value"], line["from"]) for line in client.act("policy_explain", path=path)}


def batch(*numbers):
    return pa.record_batch({"n": pa.array(numbers, pa.int64())})


def test_the_nearest_path_decides_and_null_takes_away(client):
    client.act("policy_set", path="/pol", versions_kept=5, quota_bytes="1GiB", persist="age=90s")
    client.act("policy_set", path="/pol/a", versions_kept=1)
    assert client.act("policy_get", path="/pol") == [{"persist": "age=90s", "quota_bytes": "1GiB", "versions_kept": 5}]
    told = explained(client, "/pol/a/deep/down")
    assert told["versions_kept"] == (1, "/pol/a") and told["quota_bytes"] == ("1GiB", "/pol") and told["pin"] == (False, "default")
    client.act("policy_set", path="/pol/a", versions_kept=None)
    assert explained(client, "/pol/a")["versions_kept"] == (5, "/pol")
    client.act("policy_set", path="/pol", versions_kept=None, quota_bytes=None, persist=None)
    assert client.act("policy_get", path="/pol") == [{}]


@pytest.mark.parametrize("body, code, text", [
    ({"evict": "fifo"}, "INVALID_ARGUMENT", "epoch or s3fifo or lru or auto"),
    ({"versions_kept": 4, "ttl": "soon"}, "INVALID_ARGUMENT", 'ttl: "soon" is not allowed'),
    ({"quota_bytes": -1}, "INVALID_ARGUMENT", "64MiB"),
    ({"colour": 1}, "INVALID_ARGUMENT", "no policy"),
    ({"versions_kept": 4, "replicas": 2}, "UNIMPLEMENTED", "one node"),
    ({}, "INVALID_ARGUMENT", "no policy is named"),
])
def test_what_is_wrong_or_can_not_be_honoured_is_refused_whole(client, body, code, text):
    status, answers, said = client.action("policy_set", {"path": "/wrong", **body})
    assert (status, answers) == (code, []) and text in said, said
    assert client.act("policy_get", path="/wrong") == [{}]


def test_versions_are_kept_as_the_path_says(client):
    client.act("policy_set", path="/kept/many", versions_kept=5)
    for path in ["/kept/many/d", "/kept/few"]:
        for n in range(7):
            client.put(path, batch(n), mode="overwrite")
    assert [v["version"] for v in client.act("versions", path="/kept/many/d")] == [3, 4, 5, 6, 7]
    assert [v["version"] for v in client.act("versions", path="/kept/few")] == [5, 6, 7]


def test_a_quota_is_resource_exhausted_until_there_is_room(client):
    client.act("policy_set", path="/quota", quota_bytes=1_000_000, quota_files=3)
    client.put_file("/quota/a", b"x" * 600_000)
    with pytest.raises(Exception, match="quota_bytes of /quota is reached"):
        client.put_file("/quota/b", b"x" * 600_000)
    assert client.action("truncate", {"path": "/quota/a", "size": 1_000_001})[0] == "RESOURCE_EXHAUSTED"
    assert not client.exists("/quota/b")
    client.act("delete", path="/quota/a")
    client.put_file("/quota/b", b"x" * 600_000)
    client.put("/quota/d", batch(1, 2, 3))
    client.put_file("/quota/e", b"")
    with pytest.raises(Exception, match="quota_files of /quota is reached"):
        client.put("/quota/d", batch(4))
    assert [v["version"] for v in client.act("versions", path="/quota/d")] == [1]
    client.act("policy_set", path="/quota", quota_files="none")
    client.put("/quota/d", batch(4))


def test_what_is_over_is_deleted_in_the_store_too(client, lake):
    client.act("policy_set", path="/kept/over", ttl="2s", ttl_action="delete")
    client.put_file("/kept/over/a", b"x")
    client.put("/kept/over/d", batch(1))
    client.act("wait_persisted", path="/kept/over")
    assert (lake / "over" / "a").exists()
    end = time.monotonic() + 20
    while (lake / "over" / "a").exists() or list((lake / "over").glob("d/part-*")):
        assert time.monotonic() < end, list((lake / "over").rglob("*"))
        time.sleep(0.2)
    assert client.act("list", path="/kept/over") == []


def test_policies_of_the_file_hold_and_outlive_a_restart_as_those_set_by_hand_do(tmp_path):
    config = tmp_path / "forebay.toml"
    config.write_text('[[policy]]\npath = "/a"\nversions_kept = 7\nttl = "30d"\n[trace]\nfile = "%s"\n' % (tmp_path / "trace"))
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "f").write_bytes(b"x" * 1000)
    with Server(tmp_path / "d", under={"/kept": f"file://{tmp_path}/lake"}, config=config) as server:
        with server.client() as client:
            client.act("policy_set", path="/a", evict="lru")
            client.act("policy_set", path="/a/b", ttl="none")
            assert client.file("/kept/f") == b"x" * 1000
        server.restart()
        with server.client() as client:
            assert client.act("policy_get", path="/a") == [{"versions_kept": 7, "ttl": "30d", "evict": "lru"}]
            assert explained(client, "/a/b")["ttl"] == ("none", "/a/b")
            assert client.file("/kept/f") == b"x" * 1000
            end = time.monotonic() + 10
            while len((tmp_path / "trace").read_text().splitlines()) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
    header, line = (tmp_path / "trace").read_text().splitlines()
    assert header.startswith("# forebay trace 1") and line.split(",", 1)[1] == "1000,0,/kept/f"


def test_everything_that_is_set_is_listed_by_path(client):
    client.act("policy_set", path="/lst/b", pin=True)
    client.act("policy_set", path="/lst/a", versions_kept=4, ttl="7d")
    client.act("policy_set", path="/lst/a/deep", persist="age=1h")
    listed = [
        {"path": "/lst/a", "set": {"ttl": "7d", "versions_kept": 4}},
        {"path": "/lst/a/deep", "set": {"persist": "age=1h"}},
        {"path": "/lst/b", "set": {"pin": True}},
    ]
    assert client.act("policy_list", path="/lst") == listed
    assert client.act("policy_list", path="/lst/a") == listed[:2]
    assert [at for at in client.act("policy_list") if at["path"].startswith("/lst/")] == listed
    client.act("policy_set", path="/lst/a", versions_kept=None, ttl=None)
    assert client.act("policy_list", path="/lst/a") == listed[1:2]
    assert client.action("policy_list", {"path": "/lst", "deep": True})[0] == "INVALID_ARGUMENT"


def test_the_persister_makes_only_so_many_requests(tmp_path):
    config = tmp_path / "forebay.toml"
    config.write_text("[persist]\nrequests_per_second = 20\n")
    (tmp_path / "lake").mkdir()
    with Server(tmp_path / "d", under={"/kept": f"file://{tmp_path}/lake"}, config=config) as server, server.client() as client:
        begun = time.monotonic()
        for n in range(60):
            client.put_file(f"/kept/{n}", b"x")
        client.act("wait_persisted", path="/kept")
        # Each takes one request at least, and a second's worth may go at once.
        assert time.monotonic() - begun >= 1.9
        assert len([p for p in (tmp_path / "lake").iterdir() if p.is_file()]) == 60
