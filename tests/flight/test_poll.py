"""PollFlightInfo: a growing dataset as endpoints that are only ever added, to the publish or the abort."""

import json
import uuid

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import descriptor, protobuf


def one(n):
    return pa.record_batch([pa.array([n])], names=["n"])


@pytest.fixture
def path():
    return f"/p/{uuid.uuid4().hex[:8]}"


def begin(client, path, **keys):
    return client.act("begin", path=path, **keys)[0]["session"]


def fields(data):
    """The length-delimited fields of a protobuf message, the first of each number."""
    at, found = 0, {}

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 2:
            size = varint()
            found.setdefault(key >> 3, data[at : at + size])
            at += size
        else:
            at += {1: 8, 5: 4}[key & 7] if key & 7 else 0
            if not key & 7:
                varint()
    return found


class Poller:
    """Polls with what it was given, and keeps what the endpoints delivered; each is read once, when it first appears."""

    def __init__(self, client, path, **keys):
        self.client, self.next, self.endpoints, self.got = client, descriptor(path, follow=True, **keys).serialize(), [], []

    def poll(self):
        code, answers, text = self.client.call("PollFlightInfo", self.next)
        assert code == "OK", text
        told = fields(answers[0])
        self.info, self.next = fl.FlightInfo.deserialize(told[1]), told.get(2)
        endpoints = self.info.endpoints
        assert len(endpoints) >= len(self.endpoints), "endpoints went away"
        for endpoint in endpoints[len(self.endpoints) :]:
            for chunk in self.client.flight.do_get(endpoint.ticket):
                self.got += chunk.data.column("n").to_pylist()
        self.endpoints = endpoints
        self.note = json.loads(self.info.app_metadata)
        return self.next is None


def test_endpoints_are_added_as_parts_end_and_the_publish_ends_it(client, path):
    client.put(path, one(0))
    session = begin(client, path)
    client.put(path, one(1), session=session)
    poller = Poller(client, path)
    assert not poller.poll() and poller.got == [0, 1] and poller.note["state"] == "live"
    for n in (2, 3):
        client.put(path, one(n), session=session)
        assert not poller.poll() and poller.got == list(range(n + 1))
    client.act("publish", session=session)
    assert poller.poll() and poller.got == [0, 1, 2, 3] and poller.note["state"] == "published"
    assert poller.info.total_records == 4


def test_a_poll_speaks_of_its_session_whatever_comes_after(client, path):
    session = begin(client, path)
    client.put(path, one(1), session=session)
    poller = Poller(client, path)
    poller.poll()
    client.act("publish", session=session)
    client.put(path, one(2), mode="overwrite")
    assert poller.poll() and poller.got == [1]


def test_an_overwriting_session_shows_only_its_own(client, path):
    client.put(path, one(0))
    session = begin(client, path, mode="overwrite")
    client.put(path, one(1), session=session)
    poller = Poller(client, path)
    poller.poll()
    client.act("publish", session=session)
    assert poller.poll() and poller.got == [1]


@pytest.mark.parametrize("head", [True, False])
def test_an_abort_is_told_and_ends_it(client, path, head):
    if head:
        client.put(path, one(0))
    session = begin(client, path)
    client.put(path, one(1), session=session)
    poller = Poller(client, path)
    poller.poll()
    client.act("abort", session=session)
    told = len(poller.endpoints)
    assert poller.poll() and poller.note["state"] == "aborted"
    assert len(poller.endpoints) == told, "none goes away"
    code, answers, _ = client.call("DoGet", protobuf(_1=poller.endpoints[-1].ticket.ticket))
    assert (code, answers) == ("ABORTED", [])


def test_what_is_published_is_done_at_the_first_poll(client, path):
    client.put(path, one(0), one(1))
    poller = Poller(client, path)
    assert poller.poll() and poller.got == [0, 1]


def test_a_poll_of_what_is_published_names_the_live_session(client, path):
    client.put(path, one(0))
    session = begin(client, path)
    code, answers, _ = client.call("PollFlightInfo", descriptor(path).serialize())
    told = fields(answers[0])
    assert code == "OK" and 2 not in told, "it is done"
    assert json.loads(fl.FlightInfo.deserialize(told[1]).app_metadata)["session"] == session
    client.act("abort", session=session)


def test_columns_and_filters_hold_for_every_poll(client, path):
    session = begin(client, path)
    client.put(path, one(1), one(2), session=session)
    poller = Poller(client, path, filter="n > 1")
    poller.poll()
    client.put(path, one(3), session=session)
    client.act("publish", session=session)
    assert poller.poll() and poller.got == [2, 3]


def test_a_forged_poll_is_refused(client, path):
    session = begin(client, path)
    client.put(path, one(1), session=session)
    poller = Poller(client, path)
    poller.poll()
    cmd = bytearray(fl.FlightDescriptor.deserialize(poller.next).command)
    cmd[-1] ^= 1
    code, answers, _ = client.call("PollFlightInfo", protobuf(_1=2, _2=bytes(cmd)))
    assert (code, answers) == ("UNAUTHENTICATED", [])
    client.act("abort", session=session)


def test_it_goes_on_after_a_restart(server, path):
    with server.client() as client:
        session = begin(client, path)
        client.put(path, one(1), session=session)
        poller = Poller(client, path)
        poller.poll()
    server.restart()
    with server.client() as client:
        poller.client = client
        client.put(path, one(2), session=session)
        client.act("publish", session=session)
        assert poller.poll() and poller.got == [1, 2]
