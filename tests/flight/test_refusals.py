"""Wrong requests: the documented code, a text, and nothing changed. Malformed messages never hurt the server."""

import struct
import threading
import time
import uuid

import grpc
import pyarrow as pa
import pytest

from tests.harness import descriptor, flight_data, ipc_messages, protobuf

ROW = pa.record_batch([pa.array([7])], names=["id"])
TEXT = pa.record_batch([pa.array(["some text", "more"])], names=["s"])


@pytest.fixture
def path():
    return f"/r/{uuid.uuid4().hex[:8]}"


def write(client, path, messages, **keys):
    return client.call("DoPut", *[flight_data(h, b, descriptor(path, **keys) if k == 0 else None) for k, (h, b) in enumerate(messages)])


def refused(answer, code):
    assert answer[0] == code, answer
    assert len(answer[2]) > 5, "an error says what happened"


@pytest.mark.parametrize("bad", ["relative/x", "/a/../b", "/a//b", "/a/./b", "/", "/a\0b", "/a%00b", "/a%2Fb", "/" + "x" * 256, "/" + "/".join(["y" * 200] * 21)])
def test_paths(client, bad):
    refused(write(client, bad, ipc_messages([ROW])), "INVALID_ARGUMENT")


@pytest.mark.parametrize("keys", [{"mode": "perhaps"}, {"kind": "socket"}, {"format": "csv"}, {"compression": "rar"}, {"surprise": 1}, {"ack": "hope"}])
def test_keys_of_a_write(client, path, keys):
    refused(write(client, path, ipc_messages([ROW]), **keys), "INVALID_ARGUMENT")
    assert not client.exists(path)


@pytest.mark.parametrize("keys", [{"columns": ["nix"]}, {"filter": "id >"}, {"filter": "nix = 1"}, {"filter": "id"}, {"limit": -1}, {"version": "x"}, {"from": "x"}, {"from": "1:-1"}])
def test_keys_of_a_read(client, path, keys):
    client.put(path, ROW)
    answer = client.call("GetFlightInfo", descriptor(path, **keys).serialize())
    assert answer[0] in ("INVALID_ARGUMENT", "NOT_FOUND"), answer


@pytest.mark.parametrize("condition", [
    "t > TIMESTAMP '3000-01-01'", "t = '3000-01-01'", "to_timestamp('3000-01-01') > t", "arrow_cast(id, 'Nothing') = 1", "id = 1 / 0",
    "CAST('x' AS BIGINT) = id", "t < now()",
])
def test_a_filter_that_can_not_be_carried_out_is_told_before_the_read(client, path, condition):
    """Also where nothing but the rows is missing: the plan of a read says so, and not its stream."""
    client.put(path, pa.record_batch([pa.array([1]), pa.array([0], pa.timestamp("ns"))], names=["id", "t"]))
    refused(client.call("GetFlightInfo", descriptor(path, filter=condition).serialize()), "INVALID_ARGUMENT")


def schema_message(schema):
    return ipc_messages([], schema)[0]


MALFORMED = {
    "no schema first": lambda: ipc_messages([ROW])[1:],
    "a schema in the middle": lambda: [*ipc_messages([ROW]), schema_message(TEXT.schema)],
    "a batch of another schema": lambda: [schema_message(ROW.schema), ipc_messages([TEXT])[1]],
    "a body cut short": lambda: [ipc_messages([TEXT])[0], (ipc_messages([TEXT])[1][0], ipc_messages([TEXT])[1][1][:-8])],
    "no body": lambda: [ipc_messages([TEXT])[0], (ipc_messages([TEXT])[1][0], b"")],
    "a body too long": lambda: [ipc_messages([ROW])[0], (ipc_messages([ROW])[1][0], ipc_messages([ROW])[1][1] + bytes(8))],
    "a header of noise": lambda: [ipc_messages([ROW])[0], (bytes(range(256)), bytes(64))],
    "a header of zeros": lambda: [ipc_messages([ROW])[0], (bytes(64), b"")],
    "an empty header": lambda: [(b"", b"")],
    "a dictionary nobody named": lambda: [ipc_messages([ROW])[0], ipc_messages([pa.record_batch([pa.array(["x"]).dictionary_encode()], names=["id"])])[1]],
    "a batch before its dictionary": lambda: [ipc_messages([pa.record_batch([pa.array(["x"]).dictionary_encode()], names=["s"])])[k] for k in (0, 2)],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages_leave_nothing(client, path, name):
    refused(write(client, path, MALFORMED[name]()), "INVALID_ARGUMENT")
    assert not client.exists(path)


def test_flipped_bytes_of_a_header_never_hurt(client, server, path):
    schema, (header, body) = ipc_messages([TEXT])
    for at in range(0, len(header), 3):
        hurt = bytearray(header)
        hurt[at] ^= 0xFF
        code, _, _ = write(client, f"{path}/{at}", [schema, (bytes(hurt), body)])
        assert code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), (at, code)
    assert server.alive()
    client.put(path + "/well", TEXT)
    assert client.batches(path + "/well") == [TEXT]


def test_what_was_acknowledged_can_be_read_by_others(client, path):
    """Every bit of a header flipped, one at a time: who is told OK has written what a client of another language reads."""
    batch = pa.record_batch([pa.array([1, 2, None]), pa.array(["a", None, "ccc"])], names=["i", "s"])
    schema, (header, body) = ipc_messages([batch])
    refusals = 0
    for bit in range(len(header) * 8):
        hurt = bytearray(header)
        hurt[bit // 8] ^= 1 << bit % 8
        if write(client, path, [schema, (bytes(hurt), body)], mode="overwrite")[0] == "OK":
            client.batches(path)
        else:
            refusals += 1
    assert refusals > 100, refusals


def test_offsets_that_point_outside_are_refused(client, path):
    schema, (header, body) = ipc_messages([TEXT])
    hurt = bytearray(body)
    at = body.index(struct.pack("<i", 9))
    hurt[at : at + 4] = struct.pack("<i", 1 << 30)
    refused(write(client, path, [schema, (header, bytes(hurt))]), "INVALID_ARGUMENT")


def test_a_message_that_claims_two_gigabytes(client, server, path):
    before = server.memory()
    schema, (header, _) = ipc_messages([ROW])
    claim = b"\xc2\x3e\xff\xff\xff\xff\x07"  # field 1000, length 2^31 - 1, and then no such bytes
    code, _, _ = client.call("DoPut", flight_data(*schema, descriptor(path)), protobuf(_2=header) + claim)
    assert code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL") and server.alive()
    assert server.memory() - before < 512 << 20
    assert not client.exists(path)


@pytest.mark.parametrize("how", ["cancels", "is cut off"])
def test_a_writer_that_vanishes_leaves_nothing(server, client, path, how):
    """(A pyarrow writer that is only forgotten ends its call well, and so commits.)"""
    channel = grpc.insecure_channel(server.flight.split("://")[1])
    go_on = threading.Event()
    messages = [flight_data(h, b, descriptor(path) if k == 0 else None) for k, (h, b) in enumerate(ipc_messages([ROW]))]

    def say():
        yield from messages
        go_on.wait(20)

    call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")(say())
    assert b"stable" in next(call), "the batch was acknowledged"
    call.cancel() if how == "cancels" else channel.close()
    go_on.set()
    time.sleep(0.2)
    assert not client.exists(path)
    code, _, _ = client.call("GetFlightInfo", descriptor(path, follow=True, wait="100ms").serialize())
    assert code == "NOT_FOUND", "its session is gone too"
    channel.close()


def test_forged_tickets(client, path):
    client.put(path, ROW)
    ticket = client.info(path).endpoints[0].ticket.ticket
    flips = [bytes(b ^ (1 << bit % 8) if k == bit // 8 else b for k, b in enumerate(ticket)) for bit in range(0, len(ticket) * 8, 7)]
    for forged in [b"", b"x", ticket + b"\0", ticket[:-1], *flips]:
        code, answers, _ = client.call("DoGet", protobuf(_1=forged))
        assert (code, answers) == ("UNAUTHENTICATED", []), code


@pytest.mark.parametrize(("name", "body", "code"), [
    ("stat", {"path": "/nix"}, "NOT_FOUND"), ("delete", {"path": "/nix"}, "NOT_FOUND"), ("publish", {"session": "nix"}, "NOT_FOUND"),
    ("mkdir", {"path": "/nix/x"}, "NOT_FOUND"), ("rename", {"from": "/nix", "to": "/y"}, "NOT_FOUND"), ("frobnicate", {}, "UNIMPLEMENTED"),
    ("stat", {"path": 7}, "INVALID_ARGUMENT"), ("stat", {}, "INVALID_ARGUMENT"), ("stat", {"path": "/x", "colour": 1}, "INVALID_ARGUMENT"),
])
def test_actions(client, name, body, code):
    refused(client.action(name, body), code)
