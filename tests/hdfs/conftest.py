"""A server that persists into the real HDFS that `with.sh` started."""

import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.harness import Server

HIDDEN = ".forebay-tmp"  # What is being written, and for a while who wrote it.


def environment(name):
    if name not in os.environ:
        pytest.exit(f"{name} is not set: run this suite by `make test-hdfs`", 2)
    return os.environ[name]


def node(*arguments):
    subprocess.run([Path(__file__).parent / "node.sh", *arguments], check=True, stdout=subprocess.DEVNULL, timeout=120)


class Folder:
    """What HDFS really holds under a folder, asked over WebHDFS."""

    def __init__(self, name):
        self.name = name
        self.http = Path(environment("FOREBAY_HDFS"), "run/ports").read_text().split()[0]

    def url(self):
        return f"{environment('FOREBAY_TEST_HDFS')}/{self.name}"

    def call(self, path, method="GET", content=None, **query):
        query = urllib.parse.urlencode({"user.name": os.environ.get("USER", "root"), **query})
        at = f"http://127.0.0.1:{self.http}/webhdfs/v1/{urllib.parse.quote(f'{self.name}/{path}')}?{query}"
        with urllib.request.urlopen(urllib.request.Request(at, method=method, data=content), timeout=30) as answer:
            return answer.read()

    def listed(self, path):
        return json.loads(self.call(path, op="LISTSTATUS"))["FileStatuses"]["FileStatus"]

    def hidden(self, path=HIDDEN):
        """Files that lie where what is being written does: none are left once all has arrived. Empty folders stay for a while."""
        try:
            entries = self.listed(path)
        except urllib.error.HTTPError as error:
            assert error.code == 404, error
            return []
        names = [(f"{path}/{entry['pathSuffix']}", entry["type"]) for entry in entries]
        return [file for name, kind in names for file in (self.hidden(name) if kind == "DIRECTORY" else [name])]

    def files(self, path=""):
        """path below the folder → content, but for what is hidden."""
        found = {}
        for entry in self.listed(path):
            below = f"{path}/{entry['pathSuffix']}".strip("/")
            if entry["type"] == "DIRECTORY":
                found.update({} if below == HIDDEN else self.files(below))
            else:
                found[below] = self.read(below) if entry["length"] else b""
        return found

    def read(self, path):
        try:
            return self.call(path, op="OPEN")
        except urllib.error.HTTPError:  # a DataNode's first answer after its NameNode was restarted is an EOFException
            return self.call(path, op="OPEN")

    def status(self, path):
        return json.loads(self.call(path, op="GETFILESTATUS"))["FileStatus"]

    def delete(self, path):
        self.call(path, "DELETE", op="DELETE")

    def put(self, path, content):
        """Somebody else writes a file: WebHDFS answers where to send it."""
        query = urllib.parse.urlencode({"user.name": os.environ.get("USER", "root"), "op": "CREATE", "overwrite": "true", "noredirect": "true"})
        at = f"http://127.0.0.1:{self.http}/webhdfs/v1/{self.name}/{path}?{query}"
        with urllib.request.urlopen(urllib.request.Request(at, method="PUT"), timeout=30) as answer:
            to = json.loads(answer.read())["Location"]
        urllib.request.urlopen(urllib.request.Request(to, method="PUT", data=content), timeout=30).close()


@pytest.fixture
def folder():
    folder = Folder(f"t-{uuid.uuid4().hex[:8]}")
    yield folder
    # The server is gone by now.
    assert folder.hidden() == [], "something of an upload is left"


@pytest.fixture
def server(tmp_path, folder):
    with Server(tmp_path / "data", under={"/lake": folder.url()}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
