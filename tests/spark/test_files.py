"""The ways by files: Parquet by Spark's own committers, through the mount (file://) and by webhdfs://, with executors and drivers that die.

What is promised here is less than with format("forebay"), since a commit is many renames: who waits for `_SUCCESS` sees nothing or one
commit, row for row; so does the store, with the policy `persist=commit`; and a directory that is renamed is there in one step.
"""

import collections
import contextlib
import os
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from tests.mount.mounted import mounted
from tests.spark import cluster
from tests.spark.cluster import DAYS, TASKS, kill, wait_for, wait_held

ROWS = 2_000_000
WAYS = [("file", 1), ("file", 2), ("webhdfs", 1), ("webhdfs", 2)]
KILLS = 5

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(scope="module")
def served():
    with mounted() as mount, mount.client() as client:
        client.act("policy_set", path="/", persist="commit")
        yield mount


@pytest.fixture(scope="module")
def standalone(tmp_path_factory):
    with cluster.Standalone(tmp_path_factory.mktemp("standalone")) as standalone:
        yield standalone


class Output:
    """A job's output, by every way in which it can be looked at."""

    def __init__(self, served, client, path):
        self.client, self.path = client, path
        self.urls = {"file": f"file://{served.folder}{path}", "webhdfs": served.http.replace("http://", "webhdfs://") + path}
        self.mounted, self.stored = served.folder / path[1:], served.lake / path[1:]

    def names(self):
        """All files below it, as relative names."""
        with contextlib.suppress(pa.ArrowKeyError):
            found = self.client.act("list", path=self.path, recursive=True)
            return {entry["path"].removeprefix(f"{self.path}/") for entry in found if entry["kind"] == "file"}
        return set()

    def whole(self):
        """Whether a reader that waits for `_SUCCESS` would begin."""
        return self.client.exists(f"{self.path}/_SUCCESS")

    def visible(self):
        """Files that a reader would take that does not wait for `_SUCCESS`."""
        return {name for name in self.names() if name.startswith("day=") and not name.split("/")[-1].startswith((".", "_"))}

    def committed_tasks(self, version):
        """Tasks whose output lies where the algorithm's task commit puts it."""
        if version == 1:
            return len({name.split("/")[2] for name in self.names() if name.startswith("_temporary/0/task_")})
        files = collections.Counter(name.split("part-")[1][:5] for name in self.visible())
        return sum(count == DAYS for count in files.values())

    def in_store(self):
        return {str(file.relative_to(self.stored)) for file in self.stored.rglob("*") if file.is_file()}

    def assert_one_commit(self, rows, tasks=TASKS):
        # By webhdfs:// an attempt that is killed late may still bring its file, to `_temporary`, where no reader looks.
        names = {name for name in self.names() if not name.startswith("_temporary/")}
        assert self.whole()
        assert len(self.visible()) == tasks * DAYS
        assert_rows(self.client.table(self.path), rows)
        assert_rows(ds.dataset(self.mounted, partitioning="hive").to_table(), rows)
        self.client.act("wait_persisted", path=self.path, timeout="60s")
        assert self.in_store() == names, "what was committed is in the store, and nothing beside it"
        assert_rows(ds.dataset(self.stored, partitioning="hive").to_table(), rows)


def assert_rows(table, rows):
    """Whether there is each row once, in its folder."""
    ids = table["id"].combine_chunks()
    order = pc.sort_indices(ids)
    assert ids.take(order).equals(pa.array(range(rows), pa.int64()))
    assert pc.all(pc.equal(table["twice"], pc.multiply(table["id"], 2))).as_py()
    days = pc.subtract(table["id"], pc.multiply(pc.divide(table["id"], DAYS), DAYS))
    assert pc.all(pc.equal(pc.cast(table["day"], pa.int64()), days)).as_py()


@pytest.fixture
def output(served, path):
    with served.client() as client:
        yield Output(served, client, path)


class Patient(threading.Thread):
    """Reads when `_SUCCESS` is there, as a job that comes after would; it has waited from before the first attempt."""

    def __init__(self, served, output):
        super().__init__(daemon=True)
        self.served, self.path, self.table, self.over = served, output.path, None, threading.Event()
        self.start()

    def run(self):
        with self.served.client() as client:
            while not self.over.wait(0.002):
                if client.exists(f"{self.path}/_SUCCESS"):
                    self.table = client.table(self.path)
                    return

    def end(self):
        self.over.set()
        self.join(60)
        return self.table


@pytest.fixture
def patient(served, output):
    thread = Patient(served, output)
    yield thread
    thread.end()


@pytest.mark.parametrize(("way", "version"), WAYS)
def test_who_waits_for_success_sees_nothing_or_one_commit(output, patient, standalone, driver, tmp_path, way, version):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    options = [f"files={version}", f"rows={ROWS}", f"master={standalone.master}"]
    # The driver dies when all tasks but one have committed.
    first = driver(output.urls[way], "hold=1", *options, folder=folders[0])
    wait_held(folders[0], 1)
    wait_for(lambda: output.committed_tasks(version) == TASKS - 1, what="the commit of the other tasks")
    first.kill()
    assert len(output.visible()) == {1: 0, 2: (TASKS - 1) * DAYS}[version], "version 2 shows each task when it has committed"
    assert not output.whole() and patient.table is None
    assert output.in_store() == set(), "the policy lets nothing go that is not committed"
    # The first attempt of one task dies with its executor, that of another is overtaken by its copy and never goes on.
    second = driver(output.urls[way], "first=1,5", *options, folder=folders[1])
    executor = wait_held(folders[1], 1)
    wait_held(folders[1], 5)
    assert not output.whole()
    kill(executor)
    second.end()
    assert not (folders[1] / "gate").exists(), "the first attempts have never gone on"
    output.assert_one_commit(ROWS)
    assert_rows(patient.end(), ROWS)


@pytest.mark.parametrize("way", ["file", "webhdfs"])
def test_a_driver_that_is_killed_within_its_commit_leaves_a_part_without_success(spark, served, driver, tmp_path, path, way):
    """Version 1 moves folder by folder, file by file, and `_SUCCESS` comes last."""
    cluster.open_gate(tmp_path)
    options, moved = ("files=1", "rows=200000", "master=local[2]"), TASKS * DAYS
    with served.client() as client:
        for attempt in range(KILLS):
            output = Output(served, client, f"{path}-{attempt}")
            patient = Patient(served, output)
            first = driver(output.urls[way], *options)
            wait_for(lambda: output.visible() or first.process.poll() is not None, what="the commit", pause=0)
            assert first.process.poll() is None, first.text()[-3000:]
            first.kill()
            moved = len(output.visible())
            print(f"killed after {moved} of {TASKS * DAYS} files")
            if moved < TASKS * DAYS:
                break
            # It was faster than the kill, which proves nothing.
            patient.end()
        assert 0 < moved < TASKS * DAYS, f"none of {KILLS} drivers was killed within its commit"
        assert not output.whole() and patient.table is None
        assert output.in_store() == set(), "the policy lets nothing go that is not committed"
        cluster.write_files(cluster.numbers(spark, 200_000, "", set(), 0), output.urls[way], 1)
        output.assert_one_commit(200_000)
        wait_for(lambda: patient.table is not None, 60, "the commit at who waits for it")
        assert_rows(patient.end(), 200_000)


def test_an_output_that_is_renamed_appears_in_one_step(served, output, spark):
    """What to do where readers do not wait for `_SUCCESS`."""
    beside, seen, over = output.mounted.with_name(f".{output.mounted.name}"), set(), threading.Event()

    def look():
        with served.client() as client:
            while not over.is_set():
                try:
                    seen.add(client.info(output.path).total_records)
                except pa.ArrowKeyError:
                    seen.add(None)

    reader = threading.Thread(target=look)
    reader.start()
    cluster.write_files(cluster.numbers(spark, 100_000, "", set(), 0), f"file://{beside}", 1)
    assert seen == {None}
    beside.rename(output.mounted)
    wait_for(lambda: 100_000 in seen, what="the rows at the reader")
    over.set()
    reader.join()
    assert seen == {None, 100_000}
    output.assert_one_commit(100_000)
