"""A PyTorch reader that consumes a job's output while Spark writes it, row for row, with an executor and a driver that die."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spark.cluster import DAYS, TASKS, beside, by_day, kill, numbers, open_gate, wait_for, wait_held, write_files
from tests.spark.test_exactly_once import assert_one_commit
from tests.spark.test_files import Output, served  # noqa: F401

pytest.importorskip("torch", reason="tests/setup.sh torch installs it")
pytest.importorskip("forebay", reason="tests/setup.sh torch installs it")

ROWS = 3_000_000


class Trainer:
    """tests/spark/trainer.py, as a process."""

    def __init__(self, server, path, folder, words):
        self.log = open(folder / "trainer.log", "a+")
        command = [sys.executable, "-W", "ignore", "-m", "tests.spark.trainer", server.flight, path, "2", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.told() == {"waits": path}

    def is_silent(self):
        return self.process.poll() is None and not select.select([self.process.stdout], [], [], 0)[0]

    def told(self):
        """The next line."""
        line = self.process.stdout.readline()
        assert line, f"the trainer has ended: {Path(self.log.name).read_text()[-3000:]}"
        return json.loads(line)


@pytest.fixture
def trainer(server, path, tmp_path):
    """`trainer("first=…")` starts one that waits for the test's path, or for `path` of `server`; it is gone when the test is over."""
    trainers, own = [], (server, path)

    def start(*words, server=None, path=None):
        trainers.append(Trainer(server or own[0], path or own[1], tmp_path, words))
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


def test_a_trainer_of_one_folder_has_its_rows_before_the_commit_of_all(spark, server, client, gate, path, trainer):
    training, rows = trainer("first=3", f"step={DAYS}", path=f"{path}/day=3"), 700_000

    def save(df):
        writer = df.write.format("forebay").option("addr", server.flight).option("distribution", "none")
        writer.mode("append").partitionBy("day").save(path)

    with beside(gate, save, by_day(numbers(spark, rows, gate, {(1, 0)}, 3))) as job:
        wait_held(gate, 1)
        assert training.told()["first"] > 0 and not job.done() and not client.exists(path), "it trains before the commit"
        open_gate(gate)
        job.result(400)
    assert training.told() == {"rows": len(range(3, rows, DAYS)), "once": True, "error": None}
    assert client.table(path).num_rows == rows


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("way", ["file", "webhdfs"])
def test_a_trainer_of_a_job_by_files_waits_for_success_and_has_all_rows_at_once(spark, served, gate, path, trainer, way):  # noqa: F811
    rows = 200_000
    with served.client() as client:
        output, training = Output(served, client, path), trainer("success", server=served)
        with beside(gate, write_files, numbers(spark, rows, gate, {(1, None)}, 2), output.urls[way], 1):
            wait_held(gate, 1)
            wait_for(lambda: output.committed_tasks(1) == TASKS - 1, what="the commit of the other tasks")
            assert training.is_silent(), "before the job's commit it has nothing"
            open_gate(gate)
            assert training.told()["first"] > 0 and output.whole()
        assert training.told() == {"rows": rows, "once": True, "error": None}
        output.assert_one_commit(rows)
