"""A socket in the file system, by clients as they come: gRPC's C core says the socket's path for an authority."""

import json

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import Server, descriptor, flight_data, ipc_messages, protobuf

# Some megabytes, so that a call is many frames.
TABLE = pa.table({"id": pa.array(range(500_000))})


@pytest.fixture(scope="module", params=["s", "a+b:c:d.sock"])
def server(request, tmp_path_factory):
    where = tmp_path_factory.mktemp("unix")
    server = Server(where / "d")
    server.command[server.command.index("--listen") + 1] = f"unix:{where}/{request.param}"
    with server:
        assert server.flight == f"grpc+unix://{where}/{request.param}"
        yield server


def put(client, path):
    writer, _ = client.do_put(descriptor(path), TABLE.schema)
    writer.write_table(TABLE, max_chunksize=100_000)
    writer.close()


def test_pyarrow(server):
    with fl.connect(server.flight) as client:
        for path in ["/u/a", "/u/b"]:
            put(client, path)
            endpoints = client.get_flight_info(descriptor(path)).endpoints
            assert pa.concat_tables(client.do_get(e.ticket).read_all() for e in endpoints).sort_by("id").equals(TABLE)
        assert sorted(json.loads(info.app_metadata)["path"] for info in client.list_flights(b"/u")) == ["/u/a", "/u/b"]
        [stat] = client.do_action(fl.Action("stat", b'{"path": "/u/a"}'))
        assert json.loads(stat.body.to_pybytes())["path"] == "/u/a"
        assert "stat" in [action.type for action in client.list_actions()]
        with pytest.raises(KeyError):
            client.get_flight_info(descriptor("/u/none"))


def test_an_endpoint_is_read_where_it_was_told(server):
    """Without locations by the client that was told; else by a client of any of them."""
    with fl.connect(server.flight) as client:
        put(client, "/u/where")
        for endpoint in client.get_flight_info(descriptor("/u/where")).endpoints:
            for location in endpoint.locations or [server.flight]:
                with fl.connect(location) as other:
                    assert other.do_get(endpoint.ticket).read_all().num_rows > 0


def test_grpcio(server):
    with grpc.insecure_channel(server.flight.replace("grpc+unix://", "unix:")) as channel:

        def call(method, *messages, note="x"):
            # A field that differs from call to call moves the others in the tables of both sides.
            what = channel.stream_stream("/arrow.flight.protocol.FlightService/" + method)
            return list(what(iter(messages), timeout=20, metadata=[("note", note)]))

        path = "/u/raw"
        where = descriptor(path)
        messages = ipc_messages(TABLE.to_batches(max_chunksize=100_000))
        call("DoPut", *[flight_data(h, b, where if k == 0 else None) for k, (h, b) in enumerate(messages)])
        for k in range(300):
            [info] = call("GetFlightInfo", where.serialize(), note=str(k) * 20)
        info = fl.FlightInfo.deserialize(info)
        assert info.total_records == TABLE.num_rows
        assert sum(len(m) for e in info.endpoints for m in call("DoGet", e.ticket.serialize())) > TABLE.nbytes
        assert len(call("ListFlights", protobuf(_1=path.encode()))) == 1
        [stat] = call("DoAction", protobuf(_1=b"stat", _2=json.dumps({"path": path}).encode()))
        assert path.encode() in stat


def test_another_authority_is_welcome_too(server):
    for authority in ["localhost", "lake.example:47470", "[::1]:80", "user@host"]:
        with grpc.insecure_channel(server.flight.replace("grpc+unix://", "unix:"), [("grpc.default_authority", authority)]) as channel:
            actions = channel.unary_stream("/arrow.flight.protocol.FlightService/ListActions")(b"", timeout=20)
            assert list(actions)
