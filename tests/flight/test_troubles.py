"""What cannot go: told by the path that it has now, as the wire writes paths, and decided only where there are two sides."""

import pytest

from tests.harness import Server
from tests.stores import wait_for


@pytest.fixture
def lake(tmp_path):
    (tmp_path / "lake").mkdir()
    return tmp_path / "lake"


@pytest.fixture
def server(tmp_path, lake):
    with Server(tmp_path / "d", under={"/lake": f"file://{lake}"}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def troubled(client, what):
    return [item["path"] for item in client.act("status")[0][what]]


def blocked(client):
    return troubled(client, "blocked")


def conflicts(client):
    return troubled(client, "conflicts")


def comes(ask, expected):
    wait_for(lambda: sorted(ask()) == sorted(expected), f"{expected} do not come", 20)


def resolve(client, path, how):
    code, _, text = client.action("persist_resolve", {"path": path, "how": how})
    return code, text


def conflict(client, lake, path, name):
    """A conflict at `path`, which the store has as `name`."""
    client.act("policy_set", path=path, persist="never")
    client.put_file(path, b"base")
    client.act("persist", path=path, wait=True)
    client.put_file(path, b"mine")
    (lake / name).write_bytes(b"theirs!")
    client.act("persist", path=path)


def test_paths_are_told_as_the_wire_writes_them(client, server, lake):
    """ "On Flight and in URLs non-UTF-8 bytes are percent-encoded. A literal `%` is `%25`." """
    for path in ("/lake/%FF", "/lake/%FE", "/lake/\ufffd", "/lake/d%25/%FF"):
        client.put_file(path, b"1")
    comes(lambda: blocked(client), ["/lake/%FF", "/lake/%FE", "/lake/d%25/%FF"])
    conflict(client, lake, "/lake/c%25", "c%")
    comes(lambda: conflicts(client), ["/lake/c%25"])
    code, text = resolve(client, "/lake/\ufffd", "retry")
    assert code == "NOT_FOUND" and "\ufffd" in text, "another file than those whose names are no text"
    assert resolve(client, "/lake/%FF", "retry") == ("OK", "")
    for path in blocked(client) + conflicts(client):
        assert client.exists(path)
    code, _, text = client.action("stat", {"path": "/lake/no%25%FE"})
    assert code == "NOT_FOUND" and "/lake/no%25%FE" in text
    code, _, text = client.action("wait_persisted", {"path": "/lake", "timeout": "300ms"})
    assert code == "DEADLINE_EXCEEDED" and "/lake/%F" in text and "\ufffd" not in text
    assert resolve(client, "/lake/c%25", "keep-mine") == ("OK", "")
    client.act("wait_persisted", path="/lake/c%25", timeout="20s")
    assert (lake / "c%").read_bytes() == b"mine" and conflicts(client) == []


def test_a_conflict_is_at_its_path_after_a_restart(server, lake):
    with server.client() as client:
        conflict(client, lake, "/lake/f", "f")
        comes(lambda: conflicts(client), ["/lake/f"])
    server.restart()
    with server.client() as client:
        comes(lambda: conflicts(client), ["/lake/f"])
        assert resolve(client, "/lake/f", "keep-theirs") == ("OK", "")
        wait_for(lambda: client.file("/lake/f") == b"theirs!", "theirs does not come")


def test_what_is_blocked_has_its_present_path_at_once(client):
    for folder in "abc":
        client.put_file(f"/lake/{folder}/%FF", b"1")
    comes(lambda: blocked(client), [f"/lake/{folder}/%FF" for folder in "abc"])
    client.act("delete", path="/lake/a", recursive=True)
    client.act("rename", **{"from": "/lake/b", "to": "/lake/b2"})
    assert set(blocked(client)) <= {"/lake/b2/%FF", "/lake/c/%FF"}
    for path in ("/lake/b2/%FF", "/lake/b2", "/lake/c/%FF"):
        assert resolve(client, path, "retry") == ("OK", ""), path
    for path in ("/lake/a", "/lake/a/%FF", "/lake/b/%FF"):
        assert resolve(client, path, "retry")[0] == "NOT_FOUND", path
    comes(lambda: blocked(client), ["/lake/b2/%FF", "/lake/c/%FF"])


def test_a_directory_without_a_name_in_the_store_takes_its_trouble_with_it(client):
    client.put_file("/lake/%FE/x", b"1")
    client.put_file("/lake/%FD/x", b"1")
    wait_for(lambda: {"/lake/%FE/x", "/lake/%FD/x"} <= set(blocked(client)), "nothing is blocked")
    client.act("delete", path="/lake/%FD", recursive=True)
    client.act("rename", **{"from": "/lake/%FE", "to": "/lake/fine"})
    assert not {"/lake/%FE/x", "/lake/%FD/x"} & set(blocked(client))
    client.act("wait_persisted", path="/lake/fine", timeout="10s")
    comes(lambda: blocked(client), [])


@pytest.mark.parametrize("how, left", [("keep-mine", None), ("keep-theirs", b"theirs!")])
def test_a_conflict_stays_behind_when_its_directory_is_renamed(client, lake, how, left):
    client.act("mkdir", path="/lake/dir")
    client.put_file("/lake/dir/other", b"other")
    client.act("wait_persisted", path="/lake", timeout="10s")
    conflict(client, lake, "/lake/dir/x", "dir/x")
    comes(lambda: conflicts(client), ["/lake/dir/x"])
    client.act("rename", **{"from": "/lake/dir", "to": "/lake/dir2"})
    # Ours goes to the new name; what others have at the old one is a conflict of what is to go from there.
    wait_for(lambda: (lake / "dir2/x").exists(), "it does not come to its new name")
    assert (lake / "dir2/x").read_bytes() == b"mine" and client.file("/lake/dir2/x") == b"mine"
    comes(lambda: conflicts(client), ["/lake/dir/x"])
    assert client.act("status")[0]["conflicts"][0]["mine"] == "deleted"
    assert resolve(client, "/lake/dir/x", how) == ("OK", "")
    client.act("wait_persisted", path="/lake", timeout="20s")
    there = (lake / "dir/x").read_bytes() if (lake / "dir/x").exists() else None
    assert there == left and conflicts(client) == []


def test_a_side_is_chosen_only_of_a_conflict(client, lake):
    client.put_file("/lake/%FF", b"only here")
    comes(lambda: blocked(client), ["/lake/%FF"])
    for how in ("keep-mine", "keep-theirs"):
        for path in ("/lake/%FF", "/lake"):
            code, text = resolve(client, path, how)
            assert code == "FAILED_PRECONDITION" and "blocked, not in conflict" in text and "retry" in text, (how, path)
    assert client.file("/lake/%FF") == b"only here"
    [since] = [item["since"] for item in client.act("status")[0]["blocked"]]
    for _ in range(20):
        assert resolve(client, "/lake/%FF", "retry") == ("OK", ""), "also while it is just being tried"
    comes(lambda: blocked(client), ["/lake/%FF"])
    assert client.act("status")[0]["blocked"][0]["since"] == since
    conflict(client, lake, "/lake/f", "f")
    comes(lambda: conflicts(client), ["/lake/f"])
    assert resolve(client, "/lake", "keep-mine") == ("OK", ""), "of what is below, the conflict is decided"
    wait_for(lambda: (lake / "f").read_bytes() == b"mine", "mine does not come")
    assert client.file("/lake/%FF") == b"only here"
    comes(lambda: blocked(client), ["/lake/%FF"])
