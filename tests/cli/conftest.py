import json
import os
import subprocess

import pytest

from tests.harness import BINARY, Server


class Cli:
    """`forebay` as a user types it, against one server."""

    def __init__(self, server):
        self.server = server

    def run(self, *args, code=0, stdin=b"", **env):
        """Runs a verb; its stdout. Fails when it ends with another code than `code`."""
        done = forebay(*args, stdin=stdin, **{"FOREBAY_ADDR": self.server.flight, **env})
        assert done.returncode == code, f"{args}: {done.returncode}: {done.stderr.decode()[-2000:]}"
        return done.stdout

    def text(self, *args, **keys):
        return self.run(*args, **keys).decode()

    def json(self, *args, **keys):
        """The one document that a verb prints with --json."""
        return json.loads(self.run(*args, "--json", **keys))

    def refused(self, code, *args, **keys):
        """Ends with `code`, says why on stderr and nothing on stdout; what it says."""
        done = forebay(*args, **{"FOREBAY_ADDR": self.server.flight, **keys})
        assert done.returncode == code, f"{args}: {done.returncode}: {done.stderr.decode()[-2000:]}"
        assert done.stdout == b"" and done.stderr.startswith(b"forebay: "), (args, done)
        return done.stderr.decode()


def forebay(*args, stdin=b"", timeout=60, **env):
    env = {**os.environ, **env}
    return subprocess.run([BINARY, *map(str, args)], input=stdin, capture_output=True, env=env, timeout=timeout)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def server(tmp_path_factory, lake):
    with Server(tmp_path_factory.mktemp("data") / "d", under={"/kept": f"file://{lake}"}) as server:
        yield server


@pytest.fixture
def cli(server):
    return Cli(server)
