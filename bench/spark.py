"""Spark into Forebay by each way, beside Spark straight into the same store: how long a job takes, when a trainer has its first batch, when
the store has everything, and what an executor moves by Flight.

    FOREBAY_BIN=… tests/ceph/with.sh tests/hdfs/with.sh .venv/bin/python bench/spark.py [--rows N] [--rounds N] [--folder DIR] [--json]

`make bench-spark` is this. Wants tests/setup.sh spark, and root for the mount; Ceph and HDFS are the real ones of tests/*/with.sh, and without either its rows are left out.
The ways take turns, in another order each round; figures are medians. A job computes six columns, 40 bytes a row, in 8 tasks on two threads.
Before the next job begins, what Forebay has is persisted.

"first batch" is when a trainer that waits for the dataset from before the job has rows in hand: by format("forebay") it follows; by files it
reads what the job has left when that is whole (`_SUCCESS`): through the mount, by Flight after webhdfs://, and of the store itself by
pyarrow's S3 or by WebHDFS.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP))

import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from tests.harness import Server
from tests.spark import cluster

POLL = 0.01
COMMITTER = "mapreduce.fileoutputcommitter.algorithm.version"


@dataclass
class Way:
    """A way for the rows of a job to a trainer; a job's name is a directory in it."""

    store: str
    name: str
    save: Callable  # (writer, name): the job
    batches: Callable  # name: what the trainer gets
    path: str = ""  # in Forebay


class Trainer(threading.Thread):
    """Waits for the first batch of `batches()`."""

    def __init__(self, batches):
        super().__init__(daemon=True)
        self.batches, self.at = batches, None
        self.start()

    def run(self):
        for _ in self.batches():
            self.at = time.monotonic()
            return


def until(whole):
    while not whole():
        time.sleep(POLL)


# ---- the trainers


def follow(server, path):
    with server.client() as client:
        for chunk in client.chunks(path, follow=True, wait="600s"):
            yield chunk.data


def by_flight(server, path):
    with server.client() as client:
        until(lambda: client.exists(f"{path}/_SUCCESS"))
        for chunk in client.chunks(path):
            yield chunk.data


def by_files(folder, fs):
    """Parquet in a folder of a file system."""
    until(lambda: fs.get_file_info(f"{folder}/_SUCCESS").is_file)
    yield from ds.dataset(folder, format="parquet", filesystem=fs).to_batches()


def by_rest(root, folder):
    """The same by a NameNode's WebHDFS: file by file."""

    def ask(path, op):
        with urllib.request.urlopen(f"{root}/webhdfs/v1{path}?op={op}&user.name=root") as answer:
            return answer.read()

    def is_whole():
        try:
            return bool(ask(f"{folder}/_SUCCESS", "GETFILESTATUS"))
        except urllib.error.HTTPError:
            return False

    until(is_whole)
    for entry in json.loads(ask(folder, "LISTSTATUS"))["FileStatuses"]["FileStatus"]:
        if entry["pathSuffix"].startswith("part-"):
            yield from pq.ParquetFile(io.BytesIO(ask(f"{folder}/{entry['pathSuffix']}", "OPEN"))).iter_batches()


# ---- the ways


def through_forebay(server, mount, store):
    flight, rest, files = (f"/{store}/{name}" for name in ("flight", "rest", "files"))
    url, addr = server.http.replace("http://", "webhdfs://"), {"addr": server.flight}
    yield Way(store, 'format("forebay")', lambda w, n: w.format("forebay").options(**addr).save(f"{flight}/{n}"), lambda n: follow(server, f"{flight}/{n}"), flight)
    yield Way(store, "Parquet by webhdfs://", lambda w, n: w.parquet(f"{url}{rest}/{n}"), lambda n: by_flight(server, f"{rest}/{n}"), rest)
    if mount:
        local = pyarrow.fs.LocalFileSystem()
        yield Way(store, "Parquet on the mount", lambda w, n: w.parquet(f"file://{mount}{files}/{n}"), lambda n: by_files(f"{mount}{files}/{n}", local), files)


def straight(store, home):
    """Spark's own ways into a store."""
    if store == "disk":
        yield Way(store, "Parquet by file://", lambda w, n: w.parquet(f"file://{home}/straight/{n}"), lambda n: by_files(f"{home}/straight/{n}", pyarrow.fs.LocalFileSystem()))
    if store == "ceph":
        place = f"{os.environ['FOREBAY_S3_BUCKET']}/straight"
        s3 = pyarrow.fs.S3FileSystem(endpoint_override=os.environ["FOREBAY_S3_ENDPOINT"], region="us-east-1")
        for version in (1, 2):
            yield Way(store, f"Parquet by s3a://, algorithm {version}",
                      lambda w, n, v=version: w.option(COMMITTER, v).parquet(f"s3a://{place}/v{v}/{n}"),
                      lambda n, v=version: by_files(f"{place}/v{v}/{n}", s3))
    if store == "hdfs":
        root = os.environ["FOREBAY_TEST_HDFS"]
        http = "http://127.0.0.1:" + Path(os.environ["FOREBAY_HDFS"], "run/ports").read_text().split()[0]
        yield Way(store, "Parquet by hdfs://", lambda w, n: w.parquet(f"{root}/straight/{n}"), lambda n: by_rest(http, f"/straight/{n}"))


def under_stores(home):
    """The stores that are here, as `--under` takes them."""
    (home / "lake").mkdir()
    stores = {"disk": f"file://{home}/lake"}
    if url := os.environ.get("FOREBAY_TEST_S3_URL"):
        stores["ceph"] = url.replace("/?", "/forebay?")
    if url := os.environ.get("FOREBAY_TEST_HDFS"):
        stores["hdfs"] = f"{url}/"
    return stores


def s3a():
    """Settings, and jars (by Maven, once), for s3a://."""
    jars = TOP / ".venv/s3a"
    if not jars.exists():
        fetch = ["mvn", "-q", "-B", "-f", TOP / "bench/s3a/pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        subprocess.run(fetch, check=True)
    # The SDK signs an empty object over plain HTTP in a way that Debian's RADOS gateway (16.2) refuses; this signer does it in one piece.
    fixed = {"s3.signing-algorithm": "AWS4UnsignedPayloadSignerType"}
    fixed |= {"endpoint": os.environ["FOREBAY_S3_ENDPOINT"], "endpoint.region": "us-east-1", "path.style.access": "true", "connection.ssl.enabled": "false"}
    return jars, {f"spark.hadoop.fs.s3a.{k}": v for k, v in fixed.items()}


# ---- what is measured


def features(spark, rows):
    return spark.range(0, rows, 1, 8).selectExpr(
        "id", "xxhash64(id) h", "sin(id) a", "cast(log1p(id) as float) b", "cast(id % 1000 as int) c", "sqrt(id * 1.0D) d"
    )


def measure(spark, rows, client, way, name):
    """Seconds from the job's begin to its end, to the first batch, and to everything in the store."""
    trainer = Trainer(lambda: way.batches(name))
    begin = time.monotonic()
    way.save(features(spark, rows).write.mode("overwrite"), name)
    job = stored = time.monotonic() - begin
    trainer.join(60)
    if way.path:
        client.act("wait_persisted", path=f"{way.path}/{name}", timeout="120s")
        stored = time.monotonic() - begin
    return {"job": job, "first": trainer.at - begin, "stored": stored}


def compare(home, server, mount, stores, rows, rounds):
    """[(way, [figures of each round])]"""
    settings = {"spark.eventLog.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.jars": cluster.JAR}
    if "ceph" in stores:
        jars, more = s3a()
        settings |= more | {"spark.jars": ",".join([cluster.JAR, *map(str, jars.glob("*.jar"))])}
    spark = cluster.session(home, master="local[2]", **{k.replace(".", "__"): v for k, v in settings.items()})
    spark.sparkContext.setLogLevel("ERROR")
    ways = [way for store in stores for way in (*through_forebay(server, mount, store), *straight(store, home))]
    figures = [[] for _ in ways]
    with server.client() as client:
        for number in range(rounds + 1):
            for k in (*range(number % len(ways), len(ways)), *range(number % len(ways))):
                figures[k].append(measure(spark, rows, client, ways[k], f"r{number}"))
                print(ways[k].store, ways[k].name, figures[k][-1], file=sys.stderr)
    spark.stop()
    return [(way, found[1:]) for way, found in zip(ways, figures)]


def throughput(home, server, rows, rounds, executors):
    """MB/s of each of some executors with one task at a time, writing and reading: wide rows that cost nothing to make and nothing to look at."""
    spark = cluster.session(home, master=f"local-cluster[{executors},1,1024]", spark__eventLog__enabled="false", spark__ui__showConsoleProgress="false")
    spark.sparkContext.setLogLevel("ERROR")
    wide = spark.range(0, rows * executors, 1, executors).selectExpr("id", *[f"id + {k} c{k}" for k in range(7)])
    found = []
    for _ in range(rounds + 1):
        begin = time.monotonic()
        wide.write.format("forebay").option("addr", server.flight).mode("overwrite").save("/wide")
        wrote = time.monotonic() - begin
        read = spark.read.format("forebay").option("addr", server.flight).load("/wide")
        begin = time.monotonic()
        assert read.selectExpr(*[f"max(c{k})" for k in range(7)], "max(id)").collect()
        found.append((rows * 64 / wrote / 1e6, rows * 64 / (time.monotonic() - begin) / 1e6))
    spark.stop()
    return found[1:]


def table(options, compared, speeds):
    def told(figures):
        return f"{statistics.median(figures):.2f} ({min(figures):.2f}–{max(figures):.2f})"

    print(f"{options.rows:,} rows, medians of {options.rounds} rounds after one to warm up, with the least and the most; seconds from the job's begin;")
    print(f"the machine's load at the end {os.getloadavg()[2]:.1f}\n")
    print("| store | way | job | first batch | in the store |\n|---|---|---|---|---|")
    for way, rounds in compared:
        print(f"| {way.store} | {way.name} |", " | ".join(told([r[key] for r in rounds]) for key in ("job", "first", "stored")), "|")
    print("\n| executors | each writes, MB/s | each reads, MB/s |\n|---|---|---|")
    for executors, found in speeds.items():
        print(f"| {executors} |", " | ".join(f"{statistics.median(side):.0f}" for side in zip(*found)), "|")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--json", action="store_true", help="every figure, in place of the table")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="forebay-bench-", dir=options.folder))
    mount = home / "mount"
    mount.mkdir()
    flags = {"fuse": str(mount)} if os.geteuid() == 0 else {}
    try:
        stores = under_stores(home)
        with Server(home / "data", under={f"/{store}": url for store, url in stores.items()}, **flags) as server:
            with server.client() as client:
                client.act("policy_set", path="/wide", versions_kept=1)
            compared = compare(home, server, flags and mount, stores, options.rows, options.rounds)
            speeds = {executors: throughput(home, server, 4 * options.rows, options.rounds, executors) for executors in (1, 2)}
            server.term()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps({"rows": options.rows, "ways": [{"store": w.store, "way": w.name, "rounds": r} for w, r in compared], "executor": speeds}))
    else:
        table(options, compared, speeds)


if __name__ == "__main__":
    main()
