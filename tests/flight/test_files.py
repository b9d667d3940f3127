"""Files and names over Flight: write, read, append, truncate, list, rename, delete, persist."""

import json
import os
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from tests.harness import descriptor, flight_data, ipc_messages

BODY = bytes(range(256)) * 9000


@pytest.fixture
def path():
    return f"/n/{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("content", [b"", b"x", BODY, b"y" * (5 << 20)], ids=["empty", "one", "2 MB", "5 MiB"])
def test_a_file_comes_back(client, path, content):
    client.put_file(path, content)
    assert client.file(path) == content
    assert client.act("stat", path=path)[0]["size"] == len(content)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (255, 2), (1 << 20, 1 << 20), (len(BODY) - 1, 100), (len(BODY), 5)])
def test_ranges(client, path, offset, length):
    client.put_file(path, BODY)
    assert client.file(path, offset=offset, length=length) == BODY[offset : offset + length]


def test_appends_must_be_at_the_end(client, path):
    client.put_file(path, b"abc")
    client.put_file(path, b"def", mode="append", offset=3)
    assert client.file(path) == b"abcdef"
    with pytest.raises(Exception, match="6"):
        client.put_file(path, b"x", mode="append", offset=3)
    assert client.file(path) == b"abcdef"


@pytest.mark.parametrize("size", [0, 2, 6, 10, 3 << 20])
def test_truncate(client, path, size):
    client.put_file(path, b"abcdef")
    client.act("truncate", path=path, size=size)
    assert client.file(path) == b"abcdef"[:size].ljust(size, b"\0")


def test_create_refuses_what_is_there(client, path):
    client.put_file(path, b"a", mode="create")
    with pytest.raises(Exception, match="(?i)exist"):
        client.put_file(path, b"b", mode="create")
    assert client.file(path) == b"a"


def test_a_reader_keeps_its_version(client, other, path):
    client.put_file(path, BODY)
    [endpoint] = other.info(path, kind="file").endpoints
    stream = other.flight.do_get(endpoint.ticket)
    first = stream.read_chunk().data.column(0)[0].as_py()
    client.put_file(path, b"new")
    rest = b"".join(c.data.column(0)[0].as_py() for c in stream)
    assert first + rest == BODY and client.file(path) == b"new"


@pytest.mark.parametrize("name", ["a b", "ü", "日本", "%FF", "%25", "+&=?#", "-rf", "\n", "x" * 255])
def test_names(client, path, name):
    client.put_file(f"{path}/{name}", b"1")
    assert client.names(path) == [f"{path}/{name}"] and client.file(f"{path}/{name}") == b"1"


def test_listing_in_pages_and_recursively(client, path):
    for k in range(25):
        client.put_file(f"{path}/{'ab'[k % 2]}/{k:02}", bytes(k))
    pages, after = [], None
    while page := client.act("list", path=path, recursive=True, limit=10, **({"after": after} if after else {})):
        pages += [e["path"] for e in page]
        after = page[-1]["path"]
    assert pages == sorted(pages) and len(pages) == 27


def test_rename_files_and_folders(client, path):
    client.put_file(f"{path}/a/1", b"1")
    client.put_file(f"{path}/a/2", b"2")
    client.act("rename", **{"from": f"{path}/a/1", "to": f"{path}/a/3"})
    client.act("rename", **{"from": f"{path}/a", "to": f"{path}/b"})
    assert client.names(path, recursive=True) == [f"{path}/b", f"{path}/b/2", f"{path}/b/3"]
    assert client.file(f"{path}/b/3") == b"1"
    with pytest.raises(Exception, match="(?i)exist"):
        client.act("rename", **{"from": f"{path}/b/2", "to": f"{path}/b/3"})
    client.act("rename", **{"from": f"{path}/b/2", "to": f"{path}/b/3", "replace": True})
    assert client.file(f"{path}/b/3") == b"2"


def test_delete_recursively(client, path):
    for k in range(5):
        client.put_file(f"{path}/a/b{k}/c", b"x")
    assert client.action("delete", {"path": path})[0] == "FAILED_PRECONDITION"
    client.act("delete", path=path, recursive=True)
    assert not client.exists(path)


class TestOnCondition:
    """An overwrite for the etag of what somebody looked at."""

    def etag(self, client, path):
        return client.act("stat", path=path)[0]["etag"]

    def put(self, client, path, content, **keys):
        """How the call ended, and its text."""
        batch = pa.record_batch([pa.array([content], pa.large_binary())], names=["data"])
        where = descriptor(path, **{"kind": "file", "mode": "overwrite"} | keys)
        messages = [flight_data(h, b, None if k else where) for k, (h, b) in enumerate(ipc_messages([batch]))]
        code, _, text = client.call("DoPut", *messages)
        return code, text

    def test_it_goes_through_where_that_is_there(self, client, path):
        client.put_file(path, b"one")
        seen = self.etag(client, path)
        assert self.put(client, path, b"two", if_etag=seen)[0] == "OK" and client.file(path) == b"two"
        now = self.etag(client, path)
        [listed] = [entry for entry in client.act("list", path="/n") if entry["path"] == path]
        assert listed["etag"] == now != seen
        code, text = self.put(client, path, b"three", if_etag=seen)
        assert code == "FAILED_PRECONDITION" and path in text and now in text
        assert client.file(path) == b"two" and self.etag(client, path) == now
        code, text = self.put(client, path + "-none", b"x", if_etag=now)
        assert code == "FAILED_PRECONDITION" and "nothing" in text and not client.exists(path + "-none")

    def test_an_etag_is_of_the_content_and_of_nothing_else(self, server, client, path):
        client.put_file(path, b"one")
        seen, mtime = self.etag(client, path), client.act("stat", path=path)[0]["mtime"]
        client.put_file(path, b"two")
        touch = urllib.request.Request(f"{server.http}/webhdfs/v1{path}?op=SETTIMES&modificationtime=1000", method="PUT")
        urllib.request.urlopen(touch)
        now = self.etag(client, path)
        assert now != seen and client.act("stat", path=path)[0]["mtime"] != mtime
        assert self.put(client, path, b"x", if_etag=seen)[0] == "FAILED_PRECONDITION"
        client.put_file(path, b"one")
        urllib.request.urlopen(touch)
        assert self.etag(client, path) != now, "the same time and the same size"

    def test_of_many_at_once_one_wins(self, server, client, path):
        client.put_file(path, b"before")
        seen, ends = self.etag(client, path), []

        def write(n):
            with server.client() as own:
                ends.append((n, self.put(own, path, b"%d" % n, if_etag=seen)[0]))

        threads = [threading.Thread(target=write, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [n for n, end in ends if end == "OK"]
        assert sorted(end for _, end in ends) == ["FAILED_PRECONDITION"] * 7 + ["OK"] and client.file(path) == b"%d" % winner

    def test_a_repetition_by_its_token_has_the_first_outcome(self, client, path):
        client.put_file(path, b"one")
        seen = self.etag(client, path)
        assert [self.put(client, path, b"two", if_etag=seen, token="t")[0] for _ in range(2)] == ["OK"] * 2
        assert self.put(client, path, b"two", if_etag=seen, token="u")[0] == "FAILED_PRECONDITION"

    def test_of_a_file_that_lies_in_the_under_store_alone(self, client, lake):
        (lake / "theirs").write_bytes(b"theirs")
        seen = self.etag(client, "/kept/theirs")
        (lake / "theirs").write_bytes(b"theirs, later")
        assert self.put(client, "/kept/theirs", b"ours", if_etag=seen)[0] == "FAILED_PRECONDITION"
        assert client.file("/kept/theirs") == b"theirs, later"
        assert self.put(client, "/kept/theirs", b"ours", if_etag=self.etag(client, "/kept/theirs"))[0] == "OK"
        client.act("wait_persisted", path="/kept/theirs", timeout="60s")
        assert (lake / "theirs").read_bytes() == b"ours"

    @pytest.mark.parametrize("keys", [
        {"kind": "dataset"}, {"mode": "append"}, {"mode": "create"}, {"if_etag": ""}, {"if_etag": "x" * 5000}, {"if_etag": 5},
    ], ids=str)
    def test_it_is_for_files_that_are_overwritten(self, client, path, keys):
        code, text = self.put(client, path, b"x", **{"if_etag": "5.1"} | keys)
        assert code == "INVALID_ARGUMENT" and ("if_etag" in text or "string" in text) and not client.exists(path)


class TestAttributes:
    """What is kept of a file beside its bytes, in one commit with them."""

    TYPED = {"content-type": "text/html", "farbe": "blau, ü"}

    def of(self, client, path):
        return client.act("stat", path=path)[0].get("attributes", {})

    def test_they_come_with_the_content_and_go_with_the_next(self, client, path):
        client.put_file(path, b"one", attributes=self.TYPED)
        assert self.of(client, path) == self.TYPED
        client.put_file(path, b"two", mode="append")
        client.put_file(path, b"three")
        assert self.of(client, path) == self.TYPED, "who says nothing of them leaves them"
        client.put_file(path, b"four", attributes={"farbe": "rot"})
        assert self.of(client, path) == {"farbe": "rot"}
        client.put_file(path, b"five", attributes={})
        assert self.of(client, path) == {}
        client.put_file(path + "-new", b"six", mode="create", attributes=self.TYPED)
        assert self.of(client, path + "-new") == self.TYPED

    def test_they_are_the_extended_attributes_of_other_doors_and_of_the_lake(self, server, client, lake):
        client.put_file("/kept/typed", b"x", attributes=self.TYPED)
        asked = f"{server.http}/webhdfs/v1/kept/typed?op=GETXATTRS&xattr.name=user.farbe&encoding=text"
        [told] = json.load(urllib.request.urlopen(asked))["XAttrs"]
        assert told == {"name": "user.farbe", "value": '"blau, ü"'}
        client.act("wait_persisted", path="/kept/typed", timeout="60s")
        assert os.getxattr(lake / "typed", "user.content-type") == b"text/html"
        client.act("free", path="/kept/typed")
        assert self.of(client, "/kept/typed") == self.TYPED and client.file("/kept/typed") == b"x"

    @pytest.mark.parametrize("keys", [
        {"kind": "dataset"}, {"mode": "append"}, {"attributes": {"": "x"}}, {"attributes": {"forebay.state": "clean"}},
        {"attributes": {"a": "x" * 40_000}}, {"attributes": {"a": 5}}, {"attributes": ["a"]},
    ], ids=lambda keys: str(keys)[:50])
    def test_what_cannot_be_kept_is_refused(self, client, path, keys):
        code, _ = TestOnCondition().put(client, path, b"x", **{"attributes": self.TYPED} | keys)
        assert code == "INVALID_ARGUMENT" and not client.exists(path)


class TestPersist:
    def wait(self, client, path):
        [answer] = client.act("wait_persisted", path=path, timeout="60s")
        assert answer["state"] in ("persisted", "clean")

    def test_a_file_arrives_under_its_own_name(self, client, lake):
        client.put_file("/kept/p/file", BODY)
        self.wait(client, "/kept/p/file")
        assert (lake / "p/file").read_bytes() == BODY

    def test_overwrites_renames_and_deletes_arrive_too(self, client, lake):
        for k in range(10):
            client.put_file(f"/kept/q/{k}", bytes([k]) * 1000)
        self.wait(client, "/kept/q")
        client.put_file("/kept/q/0", b"new")
        client.act("delete", path="/kept/q/1")
        client.act("rename", **{"from": "/kept/q/2", "to": "/kept/q/two"})
        client.act("rename", **{"from": "/kept/q", "to": "/kept/r"})
        self.wait(client, "/kept")
        found = {str(p.relative_to(lake)): p.read_bytes() for p in lake.rglob("*") if p.is_file() and p.parent.name in "qr"}
        assert found == {"r/0": b"new", "r/two": bytes([2]) * 1000} | {f"r/{k}": bytes([k]) * 1000 for k in range(3, 10)}

    def test_a_dataset_arrives_as_arrow_files(self, client, lake):
        batch = pa.record_batch([pa.array(range(1000))], names=["id"])
        client.put("/kept/set", batch)
        self.wait(client, "/kept/set")
        [part] = [p for p in (lake / "set").iterdir()]
        assert pa.ipc.open_file(part).read_all() == pa.Table.from_batches([batch])

    def test_what_lies_in_the_under_store_is_read_through(self, client, lake):
        (lake / "old").mkdir()
        (lake / "old/data").write_bytes(BODY)
        assert client.names("/kept/old") == ["/kept/old/data"]
        assert client.file("/kept/old/data") == BODY
        assert client.act("stat", path="/kept/old/data")[0]["state"] == "clean"

    def test_status_counts_what_is_dirty(self, client):
        client.put_file("/not-under-a-mount", bytes(5000))
        [status] = client.act("status")
        assert status["dirty_bytes"] >= 5000 and status["dirty_files"] >= 1 and status["ack"] == "local"


@pytest.mark.parametrize("page", ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/"])
def test_pages(server, page):
    assert urllib.request.urlopen(server.http + page, timeout=10).status == 200


def test_every_metric_says_what_it_is_and_the_docs_do_too(server, client):
    page = urllib.request.urlopen(server.http + "/metrics", timeout=10).read().decode()
    kinds, help_of = ({line.split()[2] for line in page.splitlines() if line.startswith(f"# {what} ")} for what in ("TYPE", "HELP"))
    assert len(kinds) > 25 and kinds == help_of
    docs = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert [name for name in kinds if f"`{name}" not in docs] == []


# ---- waiting for what is to come

def told(client, path, **keys):
    code, _, text = client.call("GetFlightInfo", descriptor(path, **keys).serialize())
    return code, text


def test_waiting_does_not_change_what_a_path_means(client, path):
    client.put_file(path, b"no table")
    for keys in ({}, {"kind": "file"}):
        assert told(client, path, wait="1s", **keys)[0] == "OK"
        assert b"".join(v.as_py() for b in client.batches(path, wait="1s", **keys) for v in b.column(0)) == b"no table"
    assert told(client, path, wait="1s", kind="dataset")[0] == "FAILED_PRECONDITION"


@pytest.mark.parametrize("keys", [{}, {"kind": "file"}], ids=["bare", "kind"])
def test_a_file_is_waited_for(client, other, path, keys):
    begun = time.monotonic()
    assert told(client, path, wait="400ms", **keys)[0] == "NOT_FOUND" and time.monotonic() - begun >= 0.4
    threading.Timer(0.3, lambda: other.put_file(path, b"came")).start()
    assert b"".join(v.as_py() for b in client.batches(path, wait="10s", **keys) for v in b.column(0)) == b"came"


def test_a_dataset_that_comes_where_nothing_was_is_read_as_one(client, other, path):
    rows = pa.record_batch([pa.array([1])], names=["n"])
    threading.Timer(0.3, lambda: other.put(path, rows)).start()
    assert client.table(path, wait="10s").column("n").to_pylist() == [1]


# ---- times

@pytest.mark.parametrize("millis, told", [(884_541_340_800_000, "9999-12-31T23:59:59.999999Z"), (253_402_300_799_000, "9999-12-31T23:59:59.000000Z"), (0, "1970-01-01T00:00:00.000000Z")])
def test_times_are_told_with_years_of_four_digits(server, client, path, millis, told):
    client.put_file(path, b"x")
    request = urllib.request.Request(f"{server.http}/webhdfs/v1{path}?op=SETTIMES&modificationtime={millis}", method="PUT")
    assert urllib.request.urlopen(request).status == 200
    assert client.act("stat", path=path)[0]["mtime"] == told
    [listed] = [entry for entry in client.act("list", path="/n") if entry["path"] == path]
    assert listed["mtime"] == told
