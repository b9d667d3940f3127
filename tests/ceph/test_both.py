"""Two stores in one namespace: the main job reads its tables through from a real HDFS, and its results go to Ceph and to HDFS. What the stores
hold is asked of them, not of Forebay, and compared with what was computed without it."""

import hashlib
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ceph.conftest import Bucket
from tests.harness import BINARY
from tests.hdfs.conftest import Folder

TESTS = Path(__file__).parents[1]
PROGRAM = Path(BINARY).with_name("pipeline")


@pytest.fixture
def hdfs(monkeypatch):
    """An HDFS beside the Ceph; it ends when nobody writes to its command any more, also where these tests are killed.

    Its blocks are as large as elsewhere: the client that brings the tables does not wait where a DataNode is behind with the block before.
    """
    names = ["FOREBAY_TEST_HDFS", "FOREBAY_HDFS", "HADOOP_CONF_DIR"]
    command = [TESTS / "hdfs/with.sh", "sh", "-c", f"echo {' '.join(f'${name}' for name in names)}; cat"]
    env = {**os.environ, "FOREBAY_HDFS_BLOCK": "128m"}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        told = process.stdout.readline().split()
        assert len(told) == len(names), "HDFS did not come up"
        for name, value in zip(names, told):
            monkeypatch.setenv(name, value)
        yield
        process.stdin.close()


def hashes(contents):
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def digest(table):
    """Of the rows, in the order of their keys, whatever batches or files they came in."""
    table = table.sort_by([("order_key", "ascending"), ("line", "ascending")])
    return hashlib.sha256(b"".join(table[name].to_numpy().tobytes() for name in sorted(table.column_names))).hexdigest()


@pytest.mark.skipif(not PROGRAM.exists(), reason="is built with the workspace, beside the server")
def test_tables_are_read_through_from_one_store_and_results_go_to_both(hdfs, tmp_path):
    command = [PROGRAM, "--forebay", BINARY, "--ceph", "--hdfs", "--scale", "0.1", "--work", tmp_path, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.partition("Stack backtrace")[0][-3000:]
    told = json.loads(out)
    assert told["rows_of_epochs"] == [told["rows"]] * 4 and told["rows"] > 500_000

    # The tables lie in HDFS as they were made, and came from there: a Parquet reader skips columns, but not most of them.
    tables = {path.name: path.read_bytes() for path in tmp_path.glob("tpch-*/*.parquet")}
    folder = Folder(f"pipeline-{process.pid}")
    read = subprocess.run([TESTS / "hdfs/node.sh", "metric", "datanode", "BytesRead"], check=True, capture_output=True, text=True).stdout
    warehouse = folder.files()
    summaries = {name: warehouse.pop(name) for name in list(warehouse) if name.startswith("summary/")}
    assert len(tables) == 2 and hashes(warehouse) == hashes(tables) and folder.hidden() == []
    of_tables = sum(map(len, tables.values()))
    assert told["hdfs"]["read_through_bytes"] == of_tables
    assert int(read) - sum(map(len, summaries.values())) > of_tables * 0.5

    # Ceph has the features, once by Forebay and once by the same query without it, and nothing of the other store.
    bucket = Bucket(f"pipeline-{process.pid}")
    bucket.prefix = one_prefix(bucket)
    objects = bucket.objects()
    ours = {key: content for key, content in objects.items() if key.startswith("new/features/")}
    theirs = {key: content for key, content in objects.items() if key.startswith("old/features/")}
    assert len(ours) == told["objects_verified"] and sum(map(len, ours.values())) == told["bytes"]
    assert {key for key in objects if not key.endswith("/")} == {*ours, *theirs} and bucket.uploads() == []
    features = pa.concat_tables(pa.ipc.open_file(content).read_all() for content in ours.values())
    without = pa.concat_tables(pq.read_table(io.BytesIO(content)) for content in theirs.values())
    assert features.num_rows == told["rows"] and features.column_names == without.column_names and digest(features) == digest(without)

    # HDFS has the summary of these features.
    assert len(summaries) == told["hdfs"]["files_verified"]
    summary = pa.concat_tables(pa.ipc.open_file(content).read_all() for content in summaries.values()).sort_by("order_key")
    again = features.group_by("order_key").aggregate([([], "count_all"), ("price", "sum"), ("late_days", "max")]).sort_by("order_key")
    assert summary.num_rows == told["hdfs"]["summary_rows"]
    for name, same in {"order_key": "order_key", "lines": "count_all", "late_days_max": "late_days_max"}.items():
        assert summary[name].to_pylist() == again[same].to_pylist(), name
    assert np.allclose(summary["price"].to_numpy(), again["price_sum"].to_numpy(), rtol=1e-12)


def one_prefix(bucket):
    """The whole name of the prefix, which ends with the time of the run."""
    [found] = bucket.s3.list_objects_v2(Bucket=bucket.name, Prefix=f"{bucket.prefix}-", Delimiter="/")["CommonPrefixes"]
    return found["Prefix"].rstrip("/")
