"""Changes that others make to an under-store: seen when the policies promise it, and by a sync at once. A local folder stands for all."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.harness import Server
from tests.stores import wait, wait_for

TTL = 1.5


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def server(tmp_path_factory, lake):
    data = tmp_path_factory.mktemp("data")
    for policy in ("always", "ttl", "never"):
        for whose in ("ours", "theirs"):
            (lake / policy / whose).mkdir(parents=True)
    with Server(data / "d", under={"/lake": f"file://{lake}"}) as server:
        with server.client() as client:
            # No comparison by itself comes in between.
            client.act("policy_set", path="/lake", sync_interval="1d")
            client.act("policy_set", path="/lake/always", revalidate="always")
            client.act("policy_set", path="/lake/ttl", revalidate="ttl", revalidate_ttl=f"{int(TTL * 1000)}ms")
            client.act("policy_set", path="/lake/never", revalidate="never")
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def replaced(path):
    """By a rename, as careful programs do it: another file of the same length."""
    beside = path.with_name(".beside")
    beside.write_bytes(b"THEIRS".ljust(len(path.read_bytes()), b"!"))
    beside.rename(path)


def rewritten(path):
    path.write_bytes(b"written anew, and longer than before")


def truncated(path):
    os.truncate(path, 3)


def appended(path):
    with open(path, "ab") as file:
        file.write(b" and more")


CHANGES = [replaced, rewritten, truncated, appended, Path.unlink]


def seen(client, path):
    """What a reader gets who opens it now; None: nothing is there."""
    try:
        content = client.file(path)
        assert client.act("stat", path=path)[0]["size"] == len(content)
        return content
    except pa.ArrowKeyError:
        assert not client.exists(path)
        return None


def there(path):
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("policy", ["always", "ttl", "never"])
def test_a_change_outside_is_seen_as_promised(client, lake, policy, whose, change):
    path, name = lake / policy / whose / change.__name__, f"/lake/{policy}/{whose}/{change.__name__}"
    before = b"what was there before"
    if whose == "ours":
        client.put_file(name, before)
        wait(client, name)
    else:
        path.write_bytes(before)
    assert seen(client, name) == before
    asked = time.monotonic()
    change(path)
    after = there(path)
    assert after != before
    if policy == "always":
        assert seen(client, name) == after
    if policy == "ttl":
        first = seen(client, name)
        # What was asked for just before is still believed; unless this machine was slower than that.
        assert first == before or time.monotonic() > asked + TTL
        time.sleep(max(0, asked + TTL + 0.2 - time.monotonic()))
        assert seen(client, name) == after
    if policy == "never":
        for _ in range(3):
            time.sleep(TTL / 2)
            assert seen(client, name) == before
        client.act("sync", path="/lake/never", wait=True)
        assert seen(client, name) == after


@pytest.mark.parametrize("policy", ["always", "ttl", "never"])
def test_a_new_file_is_seen_soon_by_every_policy(client, lake, policy):
    name = f"/lake/{policy}/theirs/new"
    assert seen(client, name) is None
    (lake / policy / "theirs/new").write_bytes(b"new")
    if policy == "always":
        assert seen(client, name) == b"new"
    wait_for(lambda: client.exists(name), "a new file is not seen", 2)
    assert seen(client, name) == b"new"
    assert name in client.names(f"/lake/{policy}/theirs")


def test_a_name_that_was_looked_for_before_it_came_is_not_remembered_as_absent(client, lake):
    """The trap of a cache of absences: a job polls for a file that another one writes outside."""
    for k in range(20):
        name = f"/lake/never/theirs/poll{k}"
        for _ in range(3):
            assert not client.exists(name)
        (lake / f"never/theirs/poll{k}").write_bytes(b"%d" % k)
        wait_for(lambda: client.exists(name), "it is not seen", 1)


def test_a_sync_sees_everything_at_once(client, lake):
    folder = lake / "never/sync"
    (folder / "sub").mkdir(parents=True)
    for change in CHANGES:
        (folder / change.__name__).write_bytes(b"what was there before")
    client.put_file("/lake/never/sync/sub/ours", b"ours, persisted")
    wait(client)
    names = [f"/lake/never/sync/{change.__name__}" for change in CHANGES]
    assert [seen(client, name) for name in names] == [b"what was there before"] * len(CHANGES)
    for change in CHANGES:
        change(folder / change.__name__)
    rewritten(folder / "sub/ours")
    (folder / "sub/new").write_bytes(b"new")
    client.act("sync", path="/lake/never/sync", wait=True)
    assert [seen(client, name) for name in names] == [there(folder / change.__name__) for change in CHANGES]
    assert seen(client, "/lake/never/sync/sub/ours") == (folder / "sub/ours").read_bytes()
    assert seen(client, "/lake/never/sync/sub/new") == b"new"


def test_what_is_dirty_is_never_taken_for_changed(client, lake):
    """A write that is on its way wins over what a sync sees, or is a conflict: never lost."""
    client.put_file("/lake/never/ours/dirty", b"first")
    wait(client)
    client.put_file("/lake/never/ours/dirty", b"second")
    client.act("sync", path="/lake/never", wait=True)
    assert client.file("/lake/never/ours/dirty") == b"second"
    wait(client)
    assert (lake / "never/ours/dirty").read_bytes() == b"second"


# ---- by itself

@pytest.fixture
def own(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    config = tmp_path / "forebay.toml"
    config.write_text("[[policy]]\npath = '/lake'\nrevalidate = 'never'\nsync_interval = '1s'\n[[policy]]\npath = '/lake/slow'\nsync_interval = '1d'\n"
                      "[[policy]]\npath = '/lake/flat'\nsync_depth = 1\n")
    with Server(tmp_path / "d", under={"/lake": f"file://{lake}"}, config=config) as server, server.client() as client:
        yield server, client, lake


def test_a_comparison_comes_by_itself_in_the_interval_of_its_path(own):
    _, client, lake = own
    for name in ("quick", "slow/f"):
        client.put_file(f"/lake/{name}", b"before")
    wait(client)
    for name in ("quick", "slow/f"):
        assert client.file(f"/lake/{name}") == b"before"
        rewritten(lake / name)
    # `seen` asks twice, and the comparison may come between.
    wait_for(lambda: client.file("/lake/quick") == (lake / "quick").read_bytes(), "not compared by itself", 20)
    assert seen(client, "/lake/quick") == (lake / "quick").read_bytes()
    assert client.file("/lake/slow/f") == b"before"
    client.act("sync", path="/lake", wait=True)
    assert client.file("/lake/slow/f") == (lake / "slow/f").read_bytes()


def test_a_comparison_by_itself_goes_as_deep_as_its_policy_says(own):
    _, client, lake = own
    assert {"key": "sync_depth", "value": 1, "from": "/lake/flat"} in client.act("policy_explain", path="/lake/flat/a/b")
    for name in ("flat/f", "flat/a/f", "deep/a/f"):
        client.put_file(f"/lake/{name}", b"before")
    wait(client)
    for name in ("flat/f", "flat/a/f", "deep/a/f"):
        rewritten(lake / name)
    for name in ("flat/f", "deep/a/f"):
        wait_for(lambda: client.file(f"/lake/{name}") == (lake / name).read_bytes(), f"{name} is not compared by itself", 20)
    # Twice more, so that it was this one's turn too.
    time.sleep(2.5)
    assert client.file("/lake/flat/a/f") == b"before"
    client.act("sync", path="/lake", wait=True)
    assert client.file("/lake/flat/a/f") == (lake / "flat/a/f").read_bytes()
    code, _, text = client.action("policy_set", {"path": "/lake", "sync_depth": 0})
    assert code == "INVALID_ARGUMENT" and "from 1 to 2048, or none" in text, (code, text)


def test_a_comparison_that_fails_is_told_and_made_again_and_changes_nothing(own):
    _, client, lake = own
    client.put_file("/lake/ours", b"ours")
    (lake / "theirs").write_bytes(b"theirs")
    wait(client)
    assert seen(client, "/lake/theirs") == b"theirs"
    gone = lake.with_name("gone")
    lake.rename(gone)
    wait_for(lambda: client.act("under_list")[0].get("sync_error"), "the failure is not told", 20)
    [mount] = client.act("status")[0]["mounts"]
    assert mount["sync_error"], mount
    code, _, text = client.action("sync", {"path": "/lake", "wait": True})
    assert code == "UNAVAILABLE", (code, text)
    # Not there for the moment is not deleted: both stay.
    assert client.file("/lake/ours") == b"ours" and client.file("/lake/theirs") == b"theirs"
    rewritten(gone / "ours")
    gone.rename(lake)
    wait_for(lambda: "sync_error" not in client.act("under_list")[0], "not made again", 30)
    wait_for(lambda: client.file("/lake/ours") == (lake / "ours").read_bytes(), "not compared again", 30)
    assert seen(client, "/lake/ours") == (lake / "ours").read_bytes()
    told = json.loads(json.dumps(client.act("status")[0]["mounts"][0]))
    assert told["synced"] > "2000"
