"""Where images are read from: a folder, whatever file system it is of, or an S3 gateway."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import boto3
from botocore.config import Config


class Source(Protocol):
    def names(self) -> list[str]:
        """Every image's, in no order."""

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class Folder:
    root: Path

    def names(self) -> list[str]:
        return [f"{each.name}/{name}" for each in os.scandir(self.root) for name in os.listdir(each.path)]

    def read(self, name: str) -> bytes:
        with open(f"{self.root}/{name}", "rb") as file:
            return file.read()

    def forget(self, names: list[str]) -> None:
        """Takes what the kernel has of the files out of its page cache, so that the next epoch is a first one."""
        for name in names:
            descriptor = os.open(self.root / name, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def file_system(self) -> str:
        """Its type, from the longest mount point above the folder."""
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        above = [each for each in mounts if self.root.resolve().is_relative_to(each[4])]
        deepest = max(above, key=lambda each: len(each[4]))
        return deepest[deepest.index("-") + 1]


@dataclass(frozen=True)
class Gateway:
    """A prefix of a bucket, by boto3. Credentials are those of the environment."""

    endpoint: str
    bucket: str
    prefix: str = "images/"

    def names(self) -> list[str]:
        pages = _client(self.endpoint).get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        return _client(self.endpoint).get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        _client(self.endpoint).put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content)


def _client(endpoint: str):
    """This process's own: connections do not survive a fork."""
    return _client_of(os.getpid(), endpoint)


@cache
def _client_of(_process: int, endpoint: str):
    # The checks of every image's bytes are ours; boto3's own would only cost it time.
    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return boto3.client("s3", endpoint_url=endpoint, region_name=os.environ.get("AWS_REGION", "us-east-1"), config=config)
