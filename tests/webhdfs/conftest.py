"""A server, and a client that speaks WebHDFS in plain HTTP, as curl would."""

import hashlib
import http.client
import json
import urllib.parse
import uuid

import pytest

from tests.harness import Server


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def exception(self):
        """The Java exception's simple name; its class must agree with it."""
        told = self.json["RemoteException"]
        assert told["javaClassName"].endswith("." + told["exception"]) and told["message"]
        return told["exception"]


class Hdfs:
    """Requests of one user over one connection that stays open."""

    def __init__(self, http_url, user="ada", **headers):
        self.url, self.user, self.headers = http_url, user, headers
        self.connection = http.client.HTTPConnection(http_url.split("://")[1], timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def raw(self, method, target, body=None, **headers):
        self.connection.request(method, target, body, {**self.headers, **headers})
        return Answer(self.connection.getresponse())

    def target(self, path, op, **query):
        at = urllib.parse.quote(path)
        user = {"user.name": self.user} if self.user else {}
        return f"/webhdfs/v1{at}?{urllib.parse.urlencode({'op': op, **user, **query}, doseq=True)}"

    def call(self, method, path, op, body=None, **query):
        return self.raw(method, self.target(path, op, **query), body)

    def get(self, path, op, **query):
        return self.call("GET", path, op, **query)

    def put(self, path, op, **query):
        return self.call("PUT", path, op, **query)

    def post(self, path, op, **query):
        return self.call("POST", path, op, **query)

    def follow(self, answer):
        """The address, on the same server, that a redirect names."""
        assert answer.status == 307, (answer.status, answer.body)
        where = urllib.parse.urlsplit(answer.headers["Location"])
        assert f"{where.scheme}://{where.netloc}" == self.url
        return f"{where.path}?{where.query}"

    # ---- what most tests need

    def write(self, path, content, **query):
        sent = self.follow(self.put(path, "CREATE", **{"overwrite": "true", **query}))
        return self.raw("PUT", sent, content)

    def append(self, path, content):
        return self.raw("POST", self.follow(self.post(path, "APPEND")), content)

    def read(self, path, **query):
        answer = self.raw("GET", self.follow(self.get(path, "OPEN", **query)))
        assert answer.status == 200, answer.body
        assert int(answer.headers["Content-Length"]) == len(answer.body)
        return answer.body

    def status(self, path):
        answer = self.get(path, "GETFILESTATUS")
        assert answer.status == 200, answer.body
        return answer.json["FileStatus"]

    def exists(self, path):
        return self.get(path, "GETFILESTATUS").status == 200

    def names(self, path):
        return [entry["pathSuffix"] for entry in self.get(path, "LISTSTATUS").json["FileStatuses"]["FileStatus"]]


@pytest.fixture(scope="session")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="session")
def server(tmp_path_factory, lake):
    with Server(tmp_path_factory.mktemp("webhdfs") / "d", under={"/kept": f"file://{lake}"}) as server:
        yield server


@pytest.fixture
def hdfs(server):
    with Hdfs(server.http) as hdfs:
        yield hdfs


@pytest.fixture
def path():
    return f"/w/{uuid.uuid4().hex[:8]}"


# argon2id of "open sesame", made cheap so that tests are quick.
SESAME = "$argon2id$v=19$m=64,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw$2jY5rBApP2dGkDcmabVkCHHoNQPivTLJFdJiSFtiBKc"
USERS = f"""
[[user]]
name = "ada"
password_hash = "{SESAME}"
token_sha256 = "{hashlib.sha256(b"ada-token").hexdigest()}"
allow = ["r:/features", "rw:/scratch"]

[[user]]
name = "root"
token_sha256 = "{hashlib.sha256(b"root-token").hexdigest()}"
admin = true
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks who is there."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "users.toml").write_text(USERS)
    with Server(folder / "d", users=folder / "users.toml") as server:
        with Hdfs(server.http, authorization="Bearer root-token") as root:
            for path in ("/features/f", "/secret/f", "/scratch/f"):
                assert root.write(path, b"x").status == 201
        yield server
