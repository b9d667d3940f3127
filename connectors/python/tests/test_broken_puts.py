"""Writes that break in the middle end with an error and leave nothing: no writer waits in `close()`, or at the end of a `with`, for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

import forebay
from tests.harness import Server

ROUNDS = 12
# By `Client.put` of small or large batches, with app_metadata, from a source that fails when the put is broken already; into a session in a
# `with`; a file of fsspec's; by pyarrow alone.
WAYS = ["small", "large", "metadata", "source", "with", "file", "stock"]


class Writer:
    """connectors/python/tests/broken_writer.py, as a process."""

    def __init__(self, way):
        self.way, pipe = way, subprocess.PIPE
        command = [sys.executable, str(Path(__file__).with_name("broken_writer.py")), way]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)

    def begin(self, *words):
        print(*words, file=self.process.stdin)
        assert self.told() == ["writing"]

    def end(self, *errors):
        """The write, which is broken now, ends: with one of these errors of ours, with pyarrow's, or the source's own."""
        if self.way == "source":
            print(file=self.process.stdin)
        expected = {"source": ["Failure"], "stock": ["ArrowException"]}.get(self.way, errors)
        told = self.told()
        assert set(told) & set(expected), told

    def told(self):
        line = self.process.stdout.readline().split()
        if not line:
            pytest.fail(f"the writer hung, or died: {self.process.communicate()[1][-6000:]}")
        return line


@pytest.fixture(params=WAYS)
def writer(request):
    writer = Writer(request.param)
    yield writer
    writer.process.kill()
    writer.process.communicate()


def assert_nothing(address, path):
    with forebay.connect(address) as client, pytest.raises(forebay.NotFound):
        client.stat(path)


def test_a_write_ends_whose_server_is_killed(writer, tmp_path):
    with Server(tmp_path / "d") as server:
        for n in range(ROUNDS):
            writer.begin(server.flight, f"/p/{n}")
            assert server.kill()
            writer.end("Unavailable", "DeadlineExceeded")
            server.start()
            assert_nothing(server.flight, f"/p/{n}")


def test_a_write_ends_whose_session_is_aborted(writer, server, client, path):
    if writer.way in ("with", "file"):
        pytest.skip("has no session, or none that is known")
    for n in range(ROUNDS):
        session = client.session(f"{path}/{n}")
        writer.begin(server.flight, f"{path}/{n}", session.id)
        session.abort()
        # The put may come to the server after that.
        writer.end("Aborted", "FailedPrecondition")
        assert_nothing(server.flight, f"{path}/{n}")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A server that takes little, and then soon refuses."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "settings.toml").write_text('[write]\nstall_max = "100ms"\n')
    with Server(folder / "d", config=folder / "settings.toml", dirty_max="1MiB") as server:
        yield server


def test_a_write_ends_that_the_server_refuses_in_its_middle(writer, full, path):
    if writer.way == "source":
        pytest.skip("ends before the server refuses it")
    for n in range(ROUNDS):
        writer.begin(full.flight, f"{path}/{n}")
        writer.end("ResourceExhausted")
        assert_nothing(full.flight, f"{path}/{n}")
