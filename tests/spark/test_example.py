"""examples/spark-etl: a trainer is done with a job's rows while they are on their way to the store, which has each of them in the end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import BINARY
from tests.spark import cluster

pytest.importorskip("torch", reason="tests/setup.sh torch installs it")

EXAMPLE = Path(__file__).parents[2] / "examples/spark-etl/run.sh"
ROWS = 400_000


@pytest.mark.parametrize("store", ["folder", "ceph"])
def test_the_trainer_steps_before_the_job_is_done_and_the_store_has_every_row(tmp_path, store):
    if store == "ceph" and not shutil.which("ceph-mon"):
        pytest.skip("tests/setup.sh ceph installs Ceph")
    report = tmp_path / "report.json"
    command = [EXAMPLE, *(["--ceph"] if store == "ceph" else []), "--rows", str(ROWS), "--json", report]
    environment = {**os.environ, "FOREBAY_BIN": BINARY, "FOREBAY_PYTHON": sys.executable, "FOREBAY_SPARK_JAR": cluster.JAR, "TMPDIR": str(tmp_path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(report.read_text())
    # Events without a time are left out.
    assert told["rows"] == ROWS - len(range(0, ROWS, 97))
    assert told["first"] < told["job"] <= told["stored"]
    assert not list(tmp_path.glob("forebay-etl-*"))
