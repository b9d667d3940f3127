"""Servers that persist into the emulators that `with.sh` started, and what those really hold, asked over plain HTTP."""

import json
import os
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as xml

import pytest

from tests.harness import Server


def fetch(url, method="GET", data=None, **headers):
    request = urllib.request.Request(url, method=method, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def quote(text):
    return urllib.parse.quote(text, safe="")


class Place:
    """A prefix in a store."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.bucket, self.options, self.prefix = parts.netloc, parts.query, f"t-{uuid.uuid4().hex[:8]}"
        self.endpoint = urllib.parse.parse_qs(parts.query)["endpoint"][0]
        self.scheme = parts.scheme

    def url(self, options=""):
        return f"{self.scheme}://{self.bucket}/{self.prefix}?{self.options}{options}"

    def objects(self):
        """key below the prefix → content, ours for the moment aside."""
        keys = [key[len(self.prefix) + 1 :] for key in self.keys() if key.startswith(self.prefix + "/")]
        return {key: self.get(key) for key in keys if not key.startswith((".forebay-probe", ".forebay-tmp"))}

    def leftovers(self):
        return [key for key in self.keys() if key.startswith(f"{self.prefix}/.forebay")]


class Gcs(Place):
    def keys(self):
        listed = json.loads(fetch(f"{self.endpoint}/storage/v1/b/{self.bucket}/o?prefix={self.prefix}/"))
        return [item["name"] for item in listed.get("items", [])]

    def get(self, key):
        return fetch(f"{self.endpoint}/storage/v1/b/{self.bucket}/o/{quote(f'{self.prefix}/{key}')}?alt=media")

    def delete(self, key):
        fetch(f"{self.endpoint}/storage/v1/b/{self.bucket}/o/{quote(f'{self.prefix}/{key}')}", "DELETE")

    def put(self, key, content):
        name = quote(f"{self.prefix}/{key}")
        fetch(f"{self.endpoint}/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}", "POST", content)


class Azure(Place):
    def keys(self):
        listed = fetch(f"{self.endpoint}/{self.bucket}?restype=container&comp=list&prefix={self.prefix}/").decode()
        return [name.text for name in xml.fromstring(listed.lstrip("\ufeff")).iter("Name")]

    def get(self, key):
        return fetch(f"{self.endpoint}/{self.bucket}/{urllib.parse.quote(f'{self.prefix}/{key}')}")

    def put(self, key, content):
        """By a server of its own, for nobody else here can sign."""
        with Server(os.path.join(self.folder, uuid.uuid4().hex), under={"/": self.url()}, ack="persisted") as other, other.client() as client:
            client.put_file(f"/{key}", content)


@pytest.fixture(params=["gcs", "azure"])
def place(request, tmp_path):
    variable = f"FOREBAY_TEST_{request.param.upper()}_URL"
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: this emulator does not run")
    place = {"gcs": Gcs, "azure": Azure}[request.param](os.environ[variable])
    place.folder = tmp_path
    return place


@pytest.fixture
def server(tmp_path, place):
    with Server(tmp_path / "data", under={"/lake": place.url()}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
