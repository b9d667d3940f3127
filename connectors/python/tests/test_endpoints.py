"""What a cluster or a long read brings: endpoints elsewhere, tickets that have expired, streams that break. By servers made to do so."""

import json
import threading

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import forebay

BATCHES = [pa.record_batch([pa.array([k])], names=["n"]) for k in range(6)]


class Stand(fl.FlightServerBase):
    """Three endpoints of two batches each. `fail(part, batch, ask)` may raise before a batch is sent."""

    def __init__(self, locations=(), fail=lambda *_: None):
        super().__init__("grpc://127.0.0.1:0")
        self.locations, self.fail = list(locations), fail
        self.asked, self.gets, self.tokens, self.lock = [], {}, [], threading.Lock()

    def address(self):
        return f"grpc://127.0.0.1:{self.port}"

    def get_flight_info(self, context, descriptor):
        self.asked.append(json.loads(descriptor.command))
        endpoints = [fl.FlightEndpoint(json.dumps({"part": k, "info": len(self.asked)}), self.locations) for k in range(3)]
        note = {"path": "/x", "version": 3, "session": None, "state": "published", "parts": 3, "batches": 6}
        return fl.FlightInfo(BATCHES[0].schema, descriptor, endpoints, 6, -1, True, json.dumps(note).encode())

    def do_get(self, context, ticket):
        told = json.loads(ticket.ticket)
        with self.lock:
            ask = self.gets[told["part"]] = self.gets.get(told["part"], 0) + 1
        self.fail(told["part"], None, ask)

        def batches():
            for k in range(2):
                self.fail(told["part"], k, ask)
                yield BATCHES[2 * told["part"] + k]

        return fl.GeneratorStream(BATCHES[0].schema, batches())


def numbers(client, **keys):
    return [batch["n"][0].as_py() for batch in client.scan("/x", **keys)], client.read("/x")["n"].to_pylist()


@pytest.mark.parametrize("parallel", [1, 3])
def test_endpoints_are_read_where_they_say(parallel):
    with Stand() as holder, Stand() as wrong:
        with Stand(locations=[holder.address()]) as front, forebay.connect(front.address()) as client:
            assert numbers(client, parallel=parallel) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
            assert (front.gets, holder.gets, wrong.gets) == ({}, {0: 2, 1: 2, 2: 2}, {})


@pytest.mark.parametrize("parallel", [1, 3])
def test_or_where_they_were_asked_for(parallel):
    with Stand(locations=["arrow-flight-reuse-connection://?"]) as front, forebay.connect(front.address()) as client:
        assert numbers(client, parallel=parallel)[0] == [0, 1, 2, 3, 4, 5] and front.gets == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("parallel", [1, 3])
def test_expired_tickets_are_asked_for_again_of_the_same_version(parallel):
    def fail(part, batch, ask):
        if part == 1 and batch is None and ask == 1:
            raise fl.FlightUnauthenticatedError("the ticket has expired")

    with Stand(fail=fail) as server, forebay.connect(server.address()) as client:
        assert [b["n"][0].as_py() for b in client.scan("/x", parallel=parallel)] == [0, 1, 2, 3, 4, 5]
        assert [asked.get("version") for asked in server.asked] == [None, 3]
    with Stand(fail=fail) as server, forebay.connect(server.address()) as client:
        assert client.read("/x", parallel=parallel)["n"].to_pylist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("parallel", [1, 3])
def test_tickets_that_are_refused_twice_are_an_error(parallel):
    def fail(part, batch, ask):
        if part == 1:
            raise fl.FlightUnauthenticatedError("this ticket is not ours")

    with Stand(fail=fail) as server, forebay.connect(server.address()) as client:
        scan = client.scan("/x", parallel=parallel)
        assert [next(scan)["n"][0].as_py() for _ in range(2)] == [0, 1]
        with pytest.raises(forebay.Unauthenticated, match="not ours"):
            next(scan)
        with pytest.raises(forebay.Unauthenticated):
            client.read("/x", parallel=parallel)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_stream_that_breaks_goes_on_behind_what_was_given(parallel):
    def fail(part, batch, ask):
        if part == 1 and batch == 1 and ask <= 2:
            raise fl.FlightUnavailableError("the connection was lost")

    with Stand(fail=fail) as server, forebay.connect(server.address()) as client:
        assert [b["n"][0].as_py() for b in client.scan("/x", parallel=parallel)] == [0, 1, 2, 3, 4, 5]
        assert server.gets == {0: 1, 1: 3, 2: 1}


def test_an_error_in_the_middle_is_raised_in_its_place():
    def fail(part, batch, ask):
        if (part, batch) == (1, 1):
            raise fl.FlightServerError("a defect")

    with Stand(fail=fail) as server, forebay.connect(server.address()) as client:
        scan = client.scan("/x", parallel=3)
        assert [next(scan)["n"][0].as_py() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(forebay.ForebayError, match="a defect"):
            next(scan)
        assert list(scan) == []


def test_nothing_that_failed_counts_as_open(server, client, path):
    """A fork finds no stream open after any of these."""
    client.put(path, [pa.table({"n": [k]}) for k in range(3)])
    failures = [
        lambda: client.read(path, filter="n >"), lambda: client.read(path + "-nix"), lambda: client.put(path, {"other": [1]}),
        lambda: client.put(path, _raising()), lambda: client.follow(path + "-nix"), lambda: client.act("frobnicate"),
        lambda: client.open(path + "-nix"), lambda: client.read_bytes(path), lambda: client.scan(path, version=9),
    ]  # fmt: skip
    for fail in failures:
        with pytest.raises((forebay.ForebayError, RuntimeError, OSError)):
            fail()
        assert client.connection._busy == 0
    for left in (client.scan(path, parallel=1), client.scan(path, parallel=3), client.follow(path), iter(client.scan(path).to_reader())):
        next(left)
    del left
    assert client.connection._busy == 0


def _raising():
    yield pa.table({"n": [1]})
    raise RuntimeError
