"""The default scenario of Arrow's Flight integration tests, by Arrow's own clients as they are published: C++ (pyarrow), Java and Go.

Upload with app_metadata, which each PutResult brings back; GetFlightInfo; DoGet of every endpoint; everything equal. What each wrote is also read by
pyarrow, so that a client can not agree with itself only.
"""

import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.clients.cases import CASES
from tests.harness import Server

HERE = Path(__file__).parent
JARS, GO = HERE.parent.parent / ".venv/clients", HERE.parent.parent / ".venv/clients-go/scenario"
# Arrow asks for the first; the second keeps fields of one name in a struct apart.
ARROW = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Darrow.struct.conflict.policy=CONFLICT_APPEND"]
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *ARROW]
# What Arrow's Java has no type for: it fails at the file, before it asks the server for anything.
NOT_IN_JAVA = {"decimal32_64": "java.lang.IllegalArgumentException: Library only supports 128-bit and 256-bit decimal values"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("clients") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with fl.connect(server.flight) as client:
        yield client


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """name → (schema, batches), and the folder with each as an Arrow stream."""
    folder, made = tmp_path_factory.mktemp("cases"), {name: make() for name, make in CASES.items()}
    for name, (schema, batches) in made.items():
        with pa.ipc.new_stream(folder / name, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    return made, folder


def outcomes(command, server, cases, root):
    """name → what the client says of it."""
    done = subprocess.run([*map(str, command), server.flight, cases[1], root], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"\n{root[1:]}:\n{done.stdout}")
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def java(server, cases):
    if not JARS.exists():
        pytest.skip("tests/setup.sh clients fetches Arrow's jars")
    return outcomes([*JAVA, "-cp", f"{JARS}/*", HERE / "Scenario.java"], server, cases, "/java")


@pytest.fixture(scope="module")
def go(server, cases):
    if not GO.exists():
        pytest.skip("tests/setup.sh clients could not build the Go client")
    return outcomes([GO], server, cases, "/go")


def put(client, where, schema, batches):
    """DoPut; each batch's answer is awaited before the next goes."""
    writer, answers = client.do_put(where, schema)
    with writer:
        for k, batch in enumerate(batches):
            writer.write_with_metadata(batch, str(k).encode())
            assert answers.read().to_pybytes() == str(k).encode()
        writer.done_writing()
        assert answers.read() is None


def assert_there(client, where, schema, batches):
    info = client.get_flight_info(where)
    assert info.schema.equals(schema, check_metadata=True)
    [endpoint] = info.endpoints
    assert endpoint.locations == [], "no location means this very server"
    reader = client.do_get(endpoint.ticket)
    assert reader.schema.equals(schema, check_metadata=True)
    found = list(reader)
    for batch, chunk in zip(batches, found, strict=True):
        chunk.data.validate(full=True)
        assert chunk.data.equals(batch)
    assert [chunk.app_metadata.to_pybytes() for chunk in found] == [str(k).encode() for k in range(len(batches))]


@pytest.mark.parametrize("name", CASES)
def test_cpp(client, cases, name):
    where = fl.FlightDescriptor.for_path(f"/cpp/{name}")
    put(client, where, *cases[0][name])
    assert_there(client, where, *cases[0][name])


@pytest.mark.parametrize("name", CASES)
def test_java(java, client, cases, name):
    assert java[name] == NOT_IN_JAVA.get(name, "ok")
    if name not in NOT_IN_JAVA:
        assert_there(client, fl.FlightDescriptor.for_path(f"/java/{name}"), *cases[0][name])


@pytest.mark.parametrize("name", CASES)
def test_go(go, client, cases, name):
    assert go[name] == "ok"
    assert_there(client, fl.FlightDescriptor.for_path(f"/go/{name}"), *cases[0][name])
