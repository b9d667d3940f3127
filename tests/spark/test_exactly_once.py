"""Executors and drivers that die, attempts that run twice: readers see nothing or one commit, row for row; followers see each task once."""

import json
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.harness import descriptor
from tests.spark import cluster
from tests.spark.cluster import TASKS, beside, fails_late, held, kill, numbers, open_gate, wait_for, wait_held

ROWS = 2_000_000


class Follower(threading.Thread):
    """Follows a path from before it is there, and counts."""

    def __init__(self, server, path):
        super().__init__(daemon=True)
        self.server, self.path = server, path
        self.batches, self.error = [], None
        self.start()

    def run(self):
        try:
            with self.server.client() as client:
                for chunk in client.chunks(self.path, follow=True, wait="300s"):
                    self.batches.append(chunk.data)
        except Exception as error:  # the test looks at it
            self.error = error

    def rows(self):
        return sum(b.num_rows for b in self.batches)

    def end(self):
        self.join(60)
        assert not self.is_alive(), "the follower has not ended with the session"
        return self


def is_range(column, count):
    """Whether the column has each of 0 to count, once."""
    return column.combine_chunks().sort().equals(pa.array(range(count), pa.int64()))


def assert_one_commit(client, path, count=ROWS):
    [version] = client.act("versions", path=path)
    assert version["rows"] == count
    table = client.table(path)
    assert table["id"].combine_chunks().equals(pa.array(range(count), pa.int64())), "every row once, in the order of the tasks"
    assert pc.all(pc.equal(table["twice"], pc.multiply(table["id"], 2))).as_py()


def test_an_executor_that_is_killed_costs_nothing(spark, server, client, write, gate, path):
    follower = Follower(server, path)
    with beside(gate, write, numbers(spark, ROWS, gate, {(1, 0)}, 10), path) as job:
        executor = wait_held(gate, 1)
        wait_for(lambda: follower.rows() >= ROWS // TASKS, what="a committed task at the follower")
        assert not job.done() and not client.exists(path), "nothing is to be seen before the commit"
        kill(executor)
        open_gate(gate)
        job.result(400)
    assert_one_commit(client, path)
    ended = follower.end()
    assert ended.error is None
    assert is_range(pa.Table.from_batches(ended.batches)["id"], ROWS), "a follower gets each row once"


def test_a_job_that_fails_leaves_nothing(spark, server, client, write, path):
    def dirty():
        return client.act("status")[0]["dirty_bytes"]

    rows, before = spark.range(0, 400_000, 1, 4), dirty()
    with pytest.raises(Exception, match="this task never succeeds"):
        write(rows.mapInArrow(fails_late(), rows.schema), path)
    assert not client.exists(path)
    wait_for(lambda: dirty() <= before, what="the space of what came to nothing")


def test_a_driver_that_is_killed_before_the_commit_leaves_nothing(server, client, driver, tmp_path, path):
    follower = Follower(server, path)
    first = driver(path, "sessionTimeout=3s", "hold=1", f"rows={ROWS}")
    wait_held(tmp_path, 1)
    wait_for(lambda: follower.rows() > 0, what="a committed task at the follower")
    session = json.loads(client.flight.get_flight_info(descriptor(path, follow=True)).app_metadata)["session"]
    first.kill()
    follower.end()
    assert "was aborted" in str(follower.error), "a follower learns that what it has seen does not count"
    assert not client.exists(path)
    with pytest.raises(Exception, match="aborted"):
        client.act("publish", session=session)
    (tmp_path / "gate").touch()
    driver(path, f"rows={ROWS}").end()
    assert_one_commit(client, path)


def test_a_driver_that_is_killed_at_its_commit_leaves_nothing_or_one_commit(server, client, driver, killed_at_its_commit, path):
    job = ["rows=200000", "master=local[2]", "save=ignore"]
    session = []
    left = killed_at_its_commit(path, *job, "sessionTimeout=3s", before=lambda: session.append(live(client, path)))
    if left == "nothing":
        assert session != [None], "the publish has not come to the server"
        wait_for(lambda: live(client, path) is None, 30, "the end of the session")
        assert not client.exists(path)
        with pytest.raises(Exception, match="aborted"):
            client.act("publish", session=session[0])
    else:
        assert session == [None], "the publish was done before its answer was kept back"
        assert_one_commit(client, path, 200_000)
    driver(path, *job).end()
    assert_one_commit(client, path, 200_000)


def live(client, path):
    try:
        return json.loads(client.flight.get_flight_info(descriptor(path, follow=True)).app_metadata)["session"]
    except pa.ArrowKeyError:
        return None


def test_of_a_task_and_its_copy_one_counts(server, client, driver, tmp_path, path):
    follower = Follower(server, path)
    with cluster.Standalone(tmp_path) as standalone:
        # The first attempt of task 5 is slow; Spark starts a second one elsewhere, which does not wait.
        copied = driver(path, f"master={standalone.master}", "first=5", f"rows={ROWS}")
        wait_held(tmp_path, 5)
        copied.end()
    assert not (tmp_path / "gate").exists(), "the first attempt has never gone on"
    assert_one_commit(client, path)
    ended = follower.end()
    assert ended.error is None
    assert is_range(pa.Table.from_batches(ended.batches)["id"], ROWS)


def test_a_session_outlives_a_stage_that_is_longer_than_its_timeout(spark, client, write, gate, path):
    rows = spark.range(0, 1000, 1, 2)
    # No task has begun to write: the stage before holds.
    before = rows.mapInArrow(held(gate, {(0, None), (1, None)}, after=0), rows.schema)
    with beside(gate, write, before, path, sessionTimeout="1s") as job:
        wait_held(gate, 0)
        threading.Event().wait(4)
        open_gate(gate)
        job.result(60)
    assert client.info(path).total_records == 1000
