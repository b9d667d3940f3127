"""Very many small objects under one prefix of a real Ceph: listed, loaded and read, with the server's memory beside.

    FOREBAY_BIN=… tests/ceph/with.sh .venv/bin/python bench/many.py [--objects N] [--bytes N] [--json]

Wants tests/setup.sh ceph, and root for the mount. The objects are written by another client before the server starts. Each step tells its
rate and the server's resident memory: when it began, the most that was seen (every 0.2 s), and when it ended. What is read is compared
with what was written, by an order of its own, so that nothing is read in the order in which it was loaded.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "WHEN_REQUIRED"  # else pyarrow sends trailers that older gateways refuse

import pyarrow.fs

from tests.harness import Server

PREFIX = "many/train"
WRITERS, READERS = 16, 8


def content(number, size):
    """What object `number` holds: nothing that another one holds."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def name(number):
    return f"item-{number:07}"


class Step:
    """A step with the server's memory while it runs."""

    def __init__(self, server, what, objects):
        self.server, self.what, self.objects = server, what, objects

    def __enter__(self):
        self.begin, self.ended = time.monotonic(), threading.Event()
        self.memory = [self.server.memory()]
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def watch(self):
        while not self.ended.wait(0.2):
            self.memory.append(self.server.memory())

    def __exit__(self, *_):
        self.ended.set()
        self.watcher.join()
        self.seconds = time.monotonic() - self.begin
        self.memory.append(self.server.memory())
        print(self.row(), file=sys.stderr, flush=True)

    def figures(self):
        return {
            "step": self.what,
            "objects": self.objects,
            "seconds": round(self.seconds, 1),
            "per_second": round(self.objects / self.seconds),
            "memory_begin": self.memory[0],
            "memory_most": max(self.memory),
            "memory_end": self.memory[-1],
        }

    def row(self):
        f = self.figures()
        first, most, last = (f"{f[k] / 1e6:.0f}" for k in ("memory_begin", "memory_most", "memory_end"))
        return f"| {f['step']} | {f['objects']:,} | {f['seconds']} s | {f['per_second']:,}/s | {first} / {most} / {last} MB |"


def at_once(work, items, threads):
    """Does it for each of the items, several at a time, without holding them all. Gives how many are done, now and then."""
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for some in iter(lambda items=iter(items): list(itertools.islice(items, 10_000)), []):
            for _ in pool.map(work, some):
                done += 1
            yield done


def write(endpoint, bucket, objects, size):
    """By a client that is not ours."""
    s3 = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, region=os.environ["AWS_REGION"], allow_delayed_open=True, background_writes=False)

    def put(number):
        with s3.open_output_stream(f"{bucket}/{PREFIX}/{name(number)}") as out:
            out.write(content(number, size))

    begin = time.monotonic()
    for done in at_once(put, range(objects), WRITERS):
        print(f"{done:,} of {objects:,} written, {done / (time.monotonic() - begin):,.0f}/s", file=sys.stderr, flush=True)


def listed(client):
    """How many names the server lists, page by page."""
    count, after = 0, None
    while page := client.act("list", path="/train", limit=10_000, **({"after": after} if after else {})):
        count, after = count + len(page), page[-1]["path"]
    return count


def read(folder, numbers, size):
    def compare(number):
        with open(folder / name(number), "rb") as file:
            assert file.read() == content(number, size), f"{name(number)}: other bytes"

    for _ in at_once(compare, numbers, READERS):
        pass


def measure(server, mount, objects, size):
    steps = []

    def step(what):
        steps.append(Step(server, what, objects))
        return steps[-1]

    with server.client() as client:
        for what in ("listed over Flight", "listed once more"):
            with step(what):
                assert listed(client) == objects
        with step("listed through the mount"):
            assert len(os.listdir(mount / "train")) == objects
        with step("loaded"):
            client.act("load", path="/train", wait=True)
        held = client.act("status")[0]["cached_bytes"]
        assert held == objects * size, f"{held} bytes are held"
    numbers = list(range(objects))
    for epoch in (1, 2):
        random.Random(epoch).shuffle(numbers)
        with step(f"read through the mount, epoch {epoch}"):
            read(mount / "train", numbers, size)
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    endpoint, bucket = os.environ["FOREBAY_S3_ENDPOINT"], os.environ["FOREBAY_S3_BUCKET"]
    write(endpoint, bucket, options.objects, options.bytes)
    folder = Path(tempfile.mkdtemp(prefix="forebay-many-", dir=os.environ.get("FOREBAY_BENCH_FOLDER")))
    (folder / "mnt").mkdir()
    url = f"s3://{bucket}/{PREFIX.split('/')[0]}?endpoint={endpoint}"
    try:
        with Server(folder / "data", under={"/": url}, fuse=folder / "mnt") as server:
            steps = measure(server, folder / "mnt", options.objects, options.bytes)
            assert server.term() == 0
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([step.figures() for step in steps]))
    else:
        print("| step | objects | time | rate | memory at the beginning / most / at the end |\n|---|---|---|---|---|", *(s.row() for s in steps), sep="\n")


main()
