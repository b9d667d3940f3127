"""Sizes and patience: what is large, slow or silent works or is refused clearly, and never hurts others (in bounded form)."""

import socket
import struct
import threading
import time
import uuid

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import Server, descriptor, flight_data, ipc_messages, protobuf

ROW = pa.record_batch([pa.array([7])], names=["id"])


@pytest.fixture
def path():
    return f"/l/{uuid.uuid4().hex[:8]}"


def write(client, path, messages, metadata=None, **keys):
    return client.call("DoPut", *[flight_data(h, b, descriptor(path, **keys) if k == 0 else None, metadata if k else None) for k, (h, b) in enumerate(messages)])


class TestSizes:
    def test_ten_thousand_columns(self, client, path):
        batch = pa.record_batch([pa.array([k]) for k in range(10_000)], names=[f"c{k}" for k in range(10_000)])
        client.put(path, batch)
        assert client.batches(path) == [batch]
        assert client.table(path, columns=["c9999", "c0"]).to_pylist() == [{"c9999": 9999, "c0": 0}]

    def test_ten_thousand_batches_of_one_row(self, client, path):
        batches = [pa.record_batch([pa.array([k])], names=["id"]) for k in range(10_000)]
        assert len(client.put(path, *batches)) == 10_000
        assert sum(b.num_rows for b in client.batches(path)) == 10_000

    @pytest.mark.parametrize("size", [65_535, 65_537, 1 << 20])
    def test_large_app_metadata(self, client, path, size):
        client.put(path, ROW, metadata=[b"m" * size])
        assert [c.app_metadata.size for c in client.chunks(path)] == [size]

    def test_app_metadata_beyond_the_cap_is_refused(self, client, server, path):
        code, _, text = write(client, path, ipc_messages([ROW]), metadata=b"m" * (3 << 20))
        assert code in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT") and "app_metadata" in text
        assert server.alive() and not client.exists(path)

    def test_a_message_that_claims_four_gigabytes_is_not_waited_for(self, server, client, path):
        before = server.memory()
        with open_call(server, "DoPut") as s:
            s.sendall(h2_frame(0, 0, 1, struct.pack(">BI", 0, (1 << 32) - 1) + b"x" * 1000))
            s.settimeout(10)
            seen = b""
            while data := s.recv(65536):
                seen += data
                if h2_ended(seen, 1):
                    break
        assert h2_ended(seen, 1), "the call was answered while it was still open on our side"
        assert server.memory() - before < 64 << 20

    @pytest.mark.parametrize("depth", [20, 60])
    def test_deep_nesting_works_or_is_refused(self, client, server, path, depth):
        kind = pa.int8()
        for _ in range(depth):
            kind = pa.struct([("x", kind)])
        batch = pa.record_batch([pa.array([None], kind)], names=["deep"])
        code, _, text = write(client, path, ipc_messages([batch]))
        assert code in ("OK", "INVALID_ARGUMENT") and server.alive()
        if code == "OK":
            assert client.batches(path) == [batch]
        else:
            assert text and not client.exists(path)

    def test_compressed_grpc_messages_are_refused_by_name(self, server):
        with grpc.insecure_channel(server.flight.split("://")[1]) as channel:
            call = channel.unary_unary("/arrow.flight.protocol.FlightService/GetFlightInfo")
            with pytest.raises(grpc.RpcError) as refused:
                call(bytes(100_000), compression=grpc.Compression.Gzip, timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED and "compress" in refused.value.details()


# ---- HTTP/2 by hand, for what no client would send

def h2_frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_ended(frames, stream):
    """Whether the other side ended or reset the stream in these frames."""
    at = 0
    while at + 9 <= len(frames):
        length, kind, flags = int.from_bytes(frames[at : at + 3], "big"), frames[at + 3], frames[at + 4]
        if int.from_bytes(frames[at + 5 : at + 9], "big") == stream and (kind == 3 or kind in (0, 1) and flags & 1):
            return True
        at += 9 + length
    return False


def open_call(server, method):
    """A connection on which stream 1 is a call whose messages are still to come."""
    address = server.flight.split("://")[1]
    host, port = address.split(":")
    field = lambda name, value: b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    path = "/arrow.flight.protocol.FlightService/" + method
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": address, "content-type": "application/grpc", "te": "trailers"}
    s = socket.create_connection((host, int(port)), timeout=10)
    headers = b"".join(field(n, v) for n, v in fields.items())
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"") + h2_frame(1, 4, 1, headers))
    return s


class TestPatience:
    def test_silent_connections_and_calls_hold_nobody_up(self, server, client, path):
        host, port = server.flight.split("://")[1].split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(300)]
        calls = [open_call(server, "DoPut") for _ in range(50)]
        try:
            client.put(path, ROW)
            with server.client() as fresh:
                assert fresh.batches(path) == [ROW]
        finally:
            for s in silent + calls:
                s.close()

    def test_many_calls_on_one_connection(self, server, client, path):
        client.put(path, ROW)
        [endpoint] = client.info(path).endpoints
        failed = []

        def read():
            try:
                assert client.flight.do_get(endpoint.ticket).read_all().num_rows == 1
            except Exception as e:
                failed.append(e)

        threads = [threading.Thread(target=read) for _ in range(200)]
        [t.start() for t in threads]
        [t.join(30) for t in threads]
        assert not failed

    def test_a_reader_that_never_reads_costs_bounded_memory(self, server, client, path):
        batch = pa.record_batch([pa.array([bytes(1 << 20)] * 16, pa.large_binary())], names=["b"])
        client.put(path, *[batch] * 16)
        ticket = client.info(path, columns=["b"], limit=10_000).endpoints[0].ticket
        before = server.memory()
        with server.client() as idle, server.client() as other:
            streams = [idle.flight.do_get(ticket) for _ in range(4)]
            time.sleep(1)
            assert other.batches(path)[0].num_rows == 16
            # The part's own pages count as resident too: 256 MiB of them.
            assert server.memory() - before < 700 << 20
            [s.cancel() for s in streams]

    def test_a_writer_that_never_reads_its_answers_is_not_held_up(self, server, client, path):
        writer, _ = client.flight.do_put(descriptor(path), ROW.schema)
        for _ in range(20_000):
            writer.write_batch(ROW)
        writer.close()
        assert client.info(path).total_records == 20_000

    def test_a_deadline_is_kept(self, client, path):
        client.act("begin", path=path)
        code, _, text = client.call("GetFlightInfo", descriptor(path, follow=True).serialize(), timeout=0.5)
        assert code == "DEADLINE_EXCEEDED" and text

    def test_unknown_calls_and_methods(self, client):
        assert client.call("DoNothing", b"")[0] == "UNIMPLEMENTED"
        assert client.call("DoExchange", b"")[0] == "UNIMPLEMENTED"


class TestDrain:
    def test_sigterm_ends_followers_at_once_and_keeps_what_a_session_acknowledged(self, tmp_path):
        with Server(tmp_path / "d") as server, server.client() as client, server.client() as other:
            [begun] = client.act("begin", path="/f")
            writer, reader = client.flight.do_put(descriptor("/f", session=begun["session"]), ROW.schema)
            writer.write_batch(ROW)
            reader.read()
            [endpoint] = other.info("/f", follow=True).endpoints
            follower = other.flight.do_get(endpoint.ticket)
            assert follower.read_chunk().data == ROW
            ended = []

            def read_on():
                try:
                    follower.read_chunk()
                except fl.FlightUnavailableError:
                    ended.append(time.monotonic())

            thread = threading.Thread(target=read_on)
            thread.start()
            began = time.monotonic()
            assert server.term() == 0
            thread.join(10)
            assert ended and ended[0] - began < 5
            server.start()
            with server.client() as again:
                again.act("publish", session=begun["session"])
                assert again.batches("/f") == [ROW]
