"""A PyTorch reader that consumes a job's output while Spark writes it, row for row, with an executor and a driver that die."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spark.cluster import beside, kill, numbers, open_gate, wait_for, wait_held
from tests.spark.test_exactly_once import assert_one_commit

pytest.importorskip("torch", reason="tests/setup.sh torch installs it")
pytest.importorskip("forebay", reason="tests/setup.sh torch installs it")

ROWS = 3_000_000


class Trainer:
    """tests/spark/trainer.py, as a process."""

    def __init__(self, server, path, folder):
        self.log = open(folder / "trainer.log", "a+")
        command = [sys.executable, "-W", "ignore", "-m", "tests.spark.trainer", server.flight, path, "2"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def told(self):
        """The next line."""
        line = self.process.stdout.readline()
        assert line, f"the trainer has ended: {Path(self.log.name).read_text()[-3000:]}"
        return json.loads(line)


@pytest.fixture
def trainer(server, path, tmp_path):
    trainers = []

    def start():
        trainers.append(Trainer(server, path, tmp_path))
        return trainers[-1]

    yield start
    for each in trainers:
        each.process.kill()
        each.process.wait()


def test_a_trainer_has_each_row_of_a_job_once_whose_executor_dies(spark, client, write, gate, path, trainer):
    training = trainer()
    with beside(gate, write, numbers(spark, ROWS, gate, {(1, 0)}, 10), path) as job:
        executor = wait_held(gate, 1)
        assert training.told()["first"] > 0 and not job.done() and not client.exists(path), "it trains before the commit"
        kill(executor)
        open_gate(gate)
        job.result(400)
    assert training.told() == {"rows": ROWS, "once": True, "error": None}
    assert_one_commit(client, path, ROWS)


def test_a_trainer_learns_that_a_job_came_to_nothing_and_then_has_the_one_that_counts(client, driver, tmp_path, path, trainer):
    training = trainer()
    first = driver(path, "sessionTimeout=3s", "hold=1", f"rows={ROWS}", "master=local[2]")
    wait_for((tmp_path / "held-1-0").exists, what="a task at the gate")
    assert training.told()["first"] > 0
    first.kill()
    told = training.told()
    assert told["error"] == "Aborted" and told["rows"] < ROWS and not client.exists(path)
    again = trainer()
    open_gate(tmp_path)
    driver(path, f"rows={ROWS}", "master=local[2]").end()
    assert again.told()["first"] > 0 and again.told() == {"rows": ROWS, "once": True, "error": None}
    assert_one_commit(client, path, ROWS)
