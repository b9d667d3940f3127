"""Followers: batches as they are acknowledged, each once and in order, to the publish or the abort."""

import json
import threading
import time
import uuid

import pyarrow as pa
import pytest

from tests.harness import descriptor

SCHEMA = pa.schema([("n", pa.int64())])


def one(n):
    return pa.record_batch([pa.array([n])], schema=SCHEMA)


@pytest.fixture
def path():
    return f"/f/{uuid.uuid4().hex[:8]}"


def begin(client, path, **keys):
    return client.act("begin", path=path, **keys)[0]["session"]


class Follower(threading.Thread):
    def __init__(self, server, path, **keys):
        super().__init__(daemon=True)
        self.server, self.path, self.keys, self.got, self.error = server, path, keys, [], None
        self.start()

    def run(self):
        try:
            with self.server.client() as client:
                for chunk in client.chunks(self.path, follow=True, **self.keys):
                    self.got += chunk.data.column("n").to_pylist()
        except Exception as e:
            self.error = e

    def wait_for(self, count, seconds=20):
        end = time.monotonic() + seconds
        while len(self.got) < count and self.error is None and time.monotonic() < end:
            time.sleep(0.005)
        assert len(self.got) >= count, (self.got, self.error)

    def end(self):
        self.join(20)
        assert not self.is_alive(), "the follower still waits"
        return self.got, self.error


def test_a_follower_sees_each_batch_before_the_publish_and_then_the_end(server, client, other, path):
    session = begin(client, path)
    follower = Follower(server, path)
    for n in range(5):
        client.put(path, one(n), session=session)
        follower.wait_for(n + 1)
    assert not other.exists(path)
    client.act("publish", session=session)
    assert follower.end() == ([0, 1, 2, 3, 4], None)


def test_a_put_without_a_session_is_followed_as_it_grows(server, client, path):
    follower = Follower(server, path, wait="10s")
    writer, reader = client.flight.do_put(descriptor(path), SCHEMA)
    for n in range(3):
        writer.write_batch(one(n))
        reader.read()
        follower.wait_for(n + 1)
    writer.done_writing()
    writer.close()
    assert follower.end() == ([0, 1, 2], None)


def test_the_head_version_comes_first(server, client, path):
    client.put(path, one(0), one(1))
    session = begin(client, path)
    follower = Follower(server, path)
    client.put(path, one(2), session=session)
    follower.wait_for(3)
    client.act("publish", session=session)
    assert follower.end() == ([0, 1, 2], None)


def test_no_head_when_the_session_overwrites(server, client, path):
    client.put(path, one(0))
    session = begin(client, path, mode="overwrite")
    follower = Follower(server, path)
    client.put(path, one(9), session=session)
    follower.wait_for(1)
    client.act("publish", session=session)
    assert follower.end() == ([9], None)


def test_only_the_session_when_it_is_named(server, client, path):
    client.put(path, one(0))
    session = begin(client, path)
    follower = Follower(server, path, session=session)
    client.put(path, one(1), session=session)
    client.act("publish", session=session)
    assert follower.end() == ([1], None)


def test_an_abort_ends_a_follower_with_an_error(server, client, path):
    session = begin(client, path)
    client.put(path, one(0), session=session)
    follower = Follower(server, path)
    follower.wait_for(1)
    client.act("abort", session=session)
    got, error = follower.end()
    assert got == [0] and "abort" in str(error).lower()


def test_an_abort_ends_a_follower_that_waits_for_a_schema_too(server, client, path):
    session = begin(client, path)
    follower = Follower(server, path)
    time.sleep(0.5)
    client.act("abort", session=session)
    got, error = follower.end()
    assert got == [] and "aborted" in str(error)
    session = begin(client, path)
    threading.Timer(0.5, lambda: client.act("abort", session=session)).start()
    with server.client() as other:
        code, _, text = other.call("GetFlightInfo", descriptor(path, follow=True).serialize())
    assert code == "ABORTED" and session in text


@pytest.mark.parametrize("read", [0, 1, 4])
def test_a_resume_token_stays_good_after_the_publish(server, client, path, read):
    session = begin(client, path)
    for n in range(4):
        client.put(path, one(n), session=session)
    token = {"from": f"{session}:{read}"}
    live = Follower(server, path, **token)
    live.wait_for(4 - read)
    client.act("publish", session=session)
    assert live.end() == (list(range(read, 4)), None)
    later = Follower(server, path, **token)
    assert later.end() == (list(range(read, 4)), None)


def test_a_follower_of_a_finished_dataset_ends_at_once(server, client, path):
    client.put(path, one(0))
    assert Follower(server, path).end() == ([0], None)


# What happens between GetFlightInfo and DoGet: what was told is what the batches are counted in.

def read(client, info):
    [endpoint] = info.endpoints
    return [n for chunk in client.flight.do_get(endpoint.ticket) for n in chunk.data.column("n").to_pylist()]


def test_an_overwriting_session_published_before_the_stream_is_asked_for_is_still_what_was_told(server, client, path):
    client.put(path, one(0), one(1))
    session = begin(client, path, mode="overwrite")
    client.put(path, one(7), session=session)
    info = client.info(path, follow=True)
    assert json.loads(info.app_metadata)["batches"] == 0
    client.act("publish", session=session)
    client.put(path, one(8))
    assert read(client, info) == [7, 8]


def test_what_is_appended_before_the_stream_is_asked_for_follows_what_was_told(server, client, path):
    client.put(path, one(0), one(1))
    session = begin(client, path)
    client.put(path, one(2), session=session)
    info = client.info(path, follow=True)
    assert json.loads(info.app_metadata)["batches"] == 2
    client.act("publish", session=session)
    client.put(path, one(3))
    assert read(client, info) == [0, 1, 2, 3]


def test_what_is_overwritten_before_the_stream_is_asked_for_is_no_longer_there_to_follow(server, client, path):
    client.put(path, one(0), one(1))
    info = client.info(path, follow=True)
    client.put(path, one(7), mode="overwrite")
    with pytest.raises(pa.ArrowException, match="overwritten by version 2; read the dataset from its beginning"):
        read(client, info)
    assert read(client, client.info(path, follow=True)) == [7]


def test_the_first_session_of_a_dataset_published_before_the_stream_is_asked_for(server, client, path):
    session = begin(client, path)
    client.put(path, one(5), session=session)
    info = client.info(path, follow=True)
    client.act("publish", session=session)
    assert read(client, info) == [5]


# What a resume token counts in is looked at when the read is planned, with `follow` as without.

def planned(client, path, token, follow, **keys):
    keys |= {"follow": True} if follow else {}
    code, _, text = client.call("GetFlightInfo", descriptor(path, **{"from": token}, **keys).serialize(), timeout=10)
    return code, text


@pytest.mark.parametrize("follow", [True, False])
def test_a_token_that_counts_too_much_or_in_nothing_is_refused(client, path, follow):
    client.put(path, one(0), one(1))
    assert planned(client, path, "1:2", follow)[0] == "OK"
    code, text = planned(client, path, "1:9", follow)
    assert code == "INVALID_ARGUMENT" and "9 batches" in text
    assert planned(client, path, "9:0", follow)[0] == "NOT_FOUND"
    assert planned(client, path, "nosuchsession1:0", follow)[0] == "NOT_FOUND"
    session = begin(client, path)
    client.put(path, one(2), session=session)
    assert planned(client, path, f"{session}:1", follow)[0] == "OK"
    assert planned(client, path, f"{session}:2", follow)[0] == "INVALID_ARGUMENT"
    client.act("abort", session=session)
    assert planned(client, path, f"{session}:1", follow)[0] == "ABORTED"


@pytest.mark.parametrize("follow", [True, False])
def test_a_token_of_another_datasets_session_is_refused(client, path, follow):
    client.put(path, one(0))
    other = path + "-other"
    session = begin(client, other)
    client.put(other, one(1), session=session)
    for end in (lambda: None, lambda: client.act("publish", session=session)):
        end()
        code, text = planned(client, path, f"{session}:1", follow)
        assert code == "INVALID_ARGUMENT" and other in text


def test_a_follower_counts_on_in_a_version_to_which_later_ones_append(client, path):
    client.put(path, one(0), one(1))
    client.put(path, one(2))
    assert planned(client, path, "1:3", True)[0] == "OK" and planned(client, path, "1:4", True)[0] == "INVALID_ARGUMENT"
    assert read(client, client.info(path, follow=True, **{"from": "1:2"})) == [2]
    client.put(path, one(9), mode="overwrite")
    assert planned(client, path, "1:2", True)[0] == "FAILED_PRECONDITION"


# The note of any read names the session that is live.

def test_every_note_names_the_live_session(client, path):
    client.put(path, one(0))
    assert client.note(path)["session"] is None
    session = begin(client, path)
    client.put(path, one(1), session=session)
    client.put(path, one(2))
    for keys in ({}, {"version": 1}, {"limit": 1}, {"filter": "n = 0"}, {"follow": True}, {"session": session}):
        assert client.note(path, **keys)["session"] == session, keys
    note = client.note(path)
    assert (note["version"], note["state"], note["batches"]) == (2, "published", 2)
    [listed] = [json.loads(info.app_metadata) for info in client.flight.list_flights(path.encode())]
    assert listed == note
    client.act("publish", session=session)
    assert client.note(path)["session"] is None
