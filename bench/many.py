"""Very many small objects under one prefix of a real Ceph: listed, loaded and read, with the server's memory beside.

    FOREBAY_BIN=… tests/ceph/with.sh .venv/bin/python bench/many.py [--objects N] [--bytes N] [--epochs N] [--json]

Wants tests/setup.sh ceph, and root for the mount. The objects are written by another client before the server starts. Each step tells its
rate, the server's resident memory when 10, 50 and 100 % of the objects were through and the most that was seen (every 0.2 s), and the machine's
load. What is read is compared with what was written, by an order of its own, so that nothing is read in the order in which it was loaded.

It fails where memory is not flat: where a step's most is above what it was at 10 % of the first listing by more than
- 64 MiB: half for what is remembered of lookups, which has that bound over all mounts, half for pages and bytes that are on their way;
- and, from the first step through the mount on, 512 bytes for each name that the kernel knows, whose node the mount has to keep (at most 1,048,576).
A server that kept an entry of some hundred bytes for each object would be above that from a few hundred thousand objects on; with less the
bound says little.
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
PAGE = 1_000  # of a listing, and of what is written or read at once
SHARES = (0.1, 0.5, 1)
GROWTH_BYTES_MAX, NODE_BYTES_MAX = 64 << 20, 512


def content(number, size):
    """What object `number` holds: nothing that another one holds."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def name(number):
    return f"item-{number:07}"


class Step:
    """A step with the server's memory while it runs. `through` answers how many objects are through; without it whoever works tells `done`."""

    def __init__(self, server, what, objects, by_mount=False, through=None):
        self.server, self.what, self.objects, self.by_mount, self.through = server, what, objects, by_mount, through

    def __enter__(self):
        self.begin, self.ended = time.monotonic(), threading.Event()
        self.memory, self.marks = [self.server.memory()], {}
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def watch(self):
        while not self.ended.wait(0.2):
            self.memory.append(self.server.memory())
            if self.through:
                self.done(self.through())

    def done(self, count):
        for share in SHARES:
            if count >= share * self.objects and share not in self.marks:
                self.marks[share] = self.server.memory()

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.begin
        self.ended.set()
        self.watcher.join()
        self.memory.append(self.server.memory())
        self.marks.setdefault(1, self.memory[-1])
        self.load = os.getloadavg()[0]
        print(self.row(), file=sys.stderr, flush=True)

    def figures(self):
        return {
            "step": self.what,
            "objects": self.objects,
            "seconds": round(self.seconds, 1),
            "per_second": round(self.objects / self.seconds),
            "memory": {f"{share:.0%}": self.marks.get(share) for share in SHARES},
            "memory_most": max(self.memory),
            "load": round(self.load, 1),
        }

    def row(self):
        f = self.figures()
        marks = " / ".join(f"{bytes / 1e6:.0f}" if bytes else "–" for bytes in f["memory"].values())
        return f"| {f['step']} | {f['seconds']} s | {f['per_second']:,}/s | {marks} | {f['memory_most'] / 1e6:.0f} | {f['load']} |"


def is_flat(steps):
    """Raises where memory grew with the objects by more than it may."""
    begin = steps[0].marks[SHARES[0]]
    for k, step in enumerate(steps):
        nodes = step.objects if any(each.by_mount for each in steps[: k + 1]) else 0
        grown, may = max(step.memory) - begin, GROWTH_BYTES_MAX + NODE_BYTES_MAX * min(nodes, 1 << 20)
        assert grown <= may, f"{step.what}: {grown / 1e6:.0f} MB more than at the first {step.objects * SHARES[0]:,.0f} objects, above {may / 1e6:.0f}"


def at_once(work, items, threads):
    """Does it for each of the items, several at a time, without holding them all. Gives how many are done, now and then."""
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for some in iter(lambda items=iter(items): list(itertools.islice(items, PAGE)), []):
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
        if done % (10 * PAGE) == 0 or done == objects:
            print(f"{done:,} of {objects:,} written, {done / (time.monotonic() - begin):,.0f}/s", file=sys.stderr, flush=True)


def listed(client, step):
    """How many names the server lists, page by page."""
    count, after = 0, None
    while page := client.act("list", path="/train", limit=PAGE, **({"after": after} if after else {})):
        count, after = count + len(page), page[-1]["path"]
        step.done(count)
    return count


def read(folder, numbers, size, step):
    def compare(number):
        with open(folder / name(number), "rb") as file:
            assert file.read() == content(number, size), f"{name(number)}: other bytes"

    for done in at_once(compare, numbers, READERS):
        step.done(done)


def measure(server, mount, objects, size, epochs):
    steps = []

    def step(what, **keys):
        steps.append(Step(server, what, objects, **keys))
        return steps[-1]

    with server.client() as client, server.client() as watcher:
        for what in ("listed over Flight", "listed once more"):
            with step(what) as this:
                assert listed(client, this) == objects
        with step("loaded", through=lambda: watcher.act("status")[0]["cached_bytes"] // size):
            client.act("load", path="/train", wait=True)
        held = client.act("status")[0]["cached_bytes"]
        assert held == objects * size, f"{held} bytes are held"
        with step("listed through the mount", by_mount=True):
            assert len(os.listdir(mount / "train")) == objects
    numbers = list(range(objects))
    for epoch in range(1, epochs + 1):
        random.Random(epoch).shuffle(numbers)
        with step(f"read through the mount, epoch {epoch}", by_mount=True) as this:
            read(mount / "train", numbers, size, this)
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    endpoint, bucket = os.environ["FOREBAY_S3_ENDPOINT"], os.environ["FOREBAY_S3_BUCKET"]
    write(endpoint, bucket, options.objects, options.bytes)
    folder = Path(tempfile.mkdtemp(prefix="forebay-many-", dir=os.environ.get("FOREBAY_BENCH_FOLDER")))
    (folder / "mnt").mkdir()
    url = f"s3://{bucket}/{PREFIX.split('/')[0]}?endpoint={endpoint}"
    try:
        with Server(folder / "data", under={"/": url}, fuse=folder / "mnt") as server:
            steps = measure(server, folder / "mnt", options.objects, options.bytes, options.epochs)
            assert server.term() == 0
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([step.figures() for step in steps]))
    else:
        print(f"{options.objects:,} objects of {options.bytes:,} bytes\n")
        print("| step | time | rate | memory at 10 / 50 / 100 %, MB | most, MB | load |\n|---|---|---|---|---|---|", *(s.row() for s in steps), sep="\n")
    is_flat(steps)


main()
