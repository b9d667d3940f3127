"""A server that persists into the real Ceph that `with.sh` started."""

import os
import uuid

import boto3
import pytest

from tests.ceph.faults import FaultProxy
from tests.harness import Server


PROBE = "/.forebay-probe-"  # What a server that has just started tries the store with; gone when it knows.


def environment(name):
    if name not in os.environ:
        pytest.exit(f"{name} is not set: run this suite by `make test-ceph`", 2)
    return os.environ[name]


class Bucket:
    """What the store really holds under a prefix, asked with a client of its own."""

    def __init__(self, prefix):
        self.name, self.endpoint, self.prefix = environment("FOREBAY_S3_BUCKET"), environment("FOREBAY_S3_ENDPOINT"), prefix
        self.s3 = boto3.client("s3", endpoint_url=self.endpoint, region_name=environment("AWS_REGION"))

    def url(self, endpoint=None):
        return f"s3://{self.name}/{self.prefix}?endpoint={endpoint or self.endpoint}"

    def objects(self):
        """key below the prefix → content."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + "/")
        keys = [o["Key"] for page in pages for o in page.get("Contents", [])]
        return {k[len(self.prefix) + 1 :]: self.s3.get_object(Bucket=self.name, Key=k)["Body"].read() for k in keys if PROBE not in k}

    def put(self, key, content):
        self.s3.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=content)

    def delete(self, key):
        self.s3.delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")

    def head(self, key):
        return self.s3.head_object(Bucket=self.name, Key=f"{self.prefix}/{key}")

    def uploads(self):
        """Multipart uploads that were neither completed nor aborted."""
        found = self.s3.list_multipart_uploads(Bucket=self.name, Prefix=self.prefix + "/").get("Uploads", [])
        return [u["Key"] for u in found if PROBE not in u["Key"]]


@pytest.fixture
def bucket():
    return Bucket(f"t-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def proxy(bucket):
    """Between whoever is pointed at it and the gateway."""
    with FaultProxy(bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture
def server(tmp_path, bucket):
    with Server(tmp_path / "data", under={"/lake": bucket.url()}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
