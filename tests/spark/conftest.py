"""One Spark with two executors and one server for the whole suite; each test has a path of its own."""

import contextlib
import itertools
import os
import re
import signal

import pytest

from tests.harness import Server
from tests.spark import cluster
from tests.spark.relay import Relay

TOKEN = "tok-3nvisible-0123456789"
numbers = itertools.count()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def spark(folder):
    spark = cluster.session(folder, spark__sql__execution__arrow__maxRecordsPerBatch="10000")
    yield spark
    spark.stop()


@pytest.fixture(scope="session")
def server(folder):
    with Server(folder / "data") as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def path(request):
    """A dataset's path that no other test has."""
    return f"/{re.sub('[^a-z0-9]+', '-', request.node.name)}-{next(numbers)}"


@pytest.fixture
def write(server):
    """`write(df, path, save_mode, option=…)` saves a data frame."""

    def write(df, path, save="append", **options):
        writer = df.write.format("forebay").option("addr", server.flight).options(**options)
        (writer if save is None else writer.mode(save)).save(path)

    return write


@pytest.fixture
def read(server, spark):
    def read(path, schema=None, **options):
        reader = spark.read.format("forebay").option("addr", server.flight).options(**options)
        return (reader.schema(schema) if schema else reader).load(path)

    return read


@pytest.fixture
def driver(server, tmp_path):
    """`driver(path, "option=…")` starts a driver of its own that writes, to `addr` or the server; it is gone when the test is over."""
    drivers = []

    def start(path, *options, folder=tmp_path, addr=None):
        drivers.append((cluster.Driver(addr or server.flight, folder, path, *options), folder))
        return drivers[-1][0]

    yield start
    for each, folder in drivers:
        cluster.open_gate(folder)
        # Its executors are in its group; their Python workers end with them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.wait()


@pytest.fixture(params=["publish", "answer"])
def killed_at_its_commit(request, server, driver, tmp_path):
    """`killed_at_its_commit(path, "option=…")`: a driver that is killed when its publish, or the answer to it, is under way.

    Answers what has to become of its job: nothing, or one commit. `before` is called when the driver waits and is not killed yet.
    """

    def run(path, *options, before=lambda: None):
        cluster.open_gate(tmp_path)
        with Relay(server.flight, keeps=request.param) as relay:
            one = driver(path, *options, addr=relay.address)
            cluster.wait_for(relay.kept.is_set, what=f"the {request.param} at the relay")
            assert one.process.poll() is None, one.text()[-3000:]
            before()
            one.kill()
        return "nothing" if request.param == "publish" else "one commit"

    return run


@pytest.fixture
def gate(tmp_path):
    """The folder of a gate, which is open when the test is over."""
    yield tmp_path
    cluster.open_gate(tmp_path)


os.environ.update(cluster.ENVIRONMENT)
