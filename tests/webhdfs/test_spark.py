"""A stock Spark with two executors that writes and reads by webhdfs://: its committers, speculation, an executor that dies.

Wants PySpark in the environment; without it the suite passes these tests over.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest


pyspark = pytest.importorskip("pyspark", reason="PySpark is not installed")

HOME = os.path.dirname(pyspark.__file__)
ENVIRONMENT = {"SPARK_HOME": HOME, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable, "HADOOP_USER_NAME": "ada"}
COMMITTER = "mapreduce.fileoutputcommitter.algorithm.version"
BLOCK_OF_ROWS = 50_000


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Two workers on two addresses: an attempt is not repeated where the first one runs."""
    folder, processes = tmp_path_factory.mktemp("spark"), []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def start(name, host, *arguments):
        command = [f"{HOME}/bin/spark-class", f"org.apache.spark.deploy.{name}", "--host", host, "--webui-port", "0", *arguments]
        environment = {**os.environ, **ENVIRONMENT, "SPARK_LOCAL_IP": host, "SPARK_DAEMON_MEMORY": "256m"}
        log = open(folder / f"{name}-{host}.log", "w")
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))

    start("master.Master", "127.0.0.1", "--port", str(port))
    for host in ("127.0.0.1", "127.0.0.2"):
        start("worker.Worker", host, "--cores", "2", "--memory", "700m", "--work-dir", str(folder / "work"), f"spark://127.0.0.1:{port}")
    os.environ.update(ENVIRONMENT)
    settings = {
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false",
        "spark.executor.memory": "600m", "spark.local.dir": str(folder / "local"), "spark.sql.shuffle.partitions": "4",
        "spark.speculation": "true", "spark.speculation.interval": "100ms", "spark.speculation.quantile": "0.3",
        "spark.speculation.multiplier": "1.1", "spark.speculation.minTaskRuntime": "500ms",
        "spark.sql.sources.partitionOverwriteMode": "dynamic",
    }
    builder = pyspark.sql.SparkSession.builder.master(f"spark://127.0.0.1:{port}").appName("forebay-tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
    for process in reversed(processes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def root(server):
    return server.http.replace("http://", "webhdfs://")


def held(gate):
    """Passes batches on; the first attempt of task 0 says where it runs and waits for the gate."""
    gate = str(gate)

    def pass_on(batches):
        import os
        import time

        from pyspark import TaskContext

        context = TaskContext.get()
        for batch in batches:
            if (context.partitionId(), context.attemptNumber()) == (0, 0) and not os.path.exists(gate):
                with open(f"{gate}-.tmp", "w") as note:
                    note.write(str(os.getpid()))
                os.rename(f"{gate}-.tmp", f"{gate}-held")
                while not os.path.exists(gate) and os.getppid() != 1:
                    time.sleep(0.02)
            yield batch

    return pass_on


def executor_of(pid):
    """The executor's process above a Python worker's."""
    while pid > 1:
        if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    raise AssertionError("no executor above this process")


def below(hdfs, path):
    """All files below a path."""
    found = []
    for entry in hdfs.get(path, "LISTSTATUS").json["FileStatuses"]["FileStatus"]:
        at = f"{path}/{entry['pathSuffix']}"
        found += below(hdfs, at) if entry["type"] == "DIRECTORY" else [at]
    return found


def rows(spark, where):
    return [row.id for row in spark.read.parquet(where).select("id").orderBy("id").collect()]


@pytest.mark.parametrize("version", [1, 2])
def test_parquet_comes_back(spark, server, hdfs, root, path, version):
    spark.range(0, BLOCK_OF_ROWS, 1, 4).write.option(COMMITTER, version).parquet(root + path)
    files = below(hdfs, path)
    assert f"{path}/_SUCCESS" in files and len(files) == 5 and not any("_temporary" in file for file in files)
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS))
    with pytest.raises(Exception, match="already exists"):
        spark.range(1).write.parquet(root + path)
    spark.range(BLOCK_OF_ROWS, BLOCK_OF_ROWS + 10, 1, 1).write.option(COMMITTER, version).mode("append").parquet(root + path)
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS + 10))
    with server.client() as client:
        assert client.table(path, columns=["id"]).num_rows == BLOCK_OF_ROWS + 10, "Flight sees the same rows"
    spark.range(7).write.option(COMMITTER, version).mode("overwrite").parquet(root + path)
    assert rows(spark, root + path) == list(range(7))


@pytest.mark.parametrize("form", ["csv", "json", "orc", "text"])
def test_other_formats_come_back(spark, root, path, form):
    rows = [(f"row {k} ü",) for k in range(1000)]
    spark.createDataFrame(rows, "value string").write.format(form).save(root + path)
    read = spark.read.format(form).schema("value string").load(root + path)
    assert sorted(read.collect()) == sorted(rows)


@pytest.mark.parametrize("version", [1, 2])
def test_partitions_are_overwritten_one_by_one(spark, hdfs, root, path, version):
    def write(days, value):
        frame = spark.createDataFrame([(day, value) for day in days], "day int, value string")
        frame.write.option(COMMITTER, version).mode("overwrite").partitionBy("day").parquet(root + path)

    write([1, 2, 3], "old")
    write([2, 4], "new")
    found = sorted(tuple(row) for row in spark.read.parquet(root + path).select("day", "value").collect())
    assert found == [(1, "old"), (2, "new"), (3, "old"), (4, "new")]
    assert not any(".spark-staging" in file or "_temporary" in file for file in below(hdfs, path))


@pytest.mark.parametrize("version", [1, 2])
def test_of_two_attempts_one_counts(spark, hdfs, root, path, version, tmp_path):
    frame = spark.range(0, BLOCK_OF_ROWS, 1, 4).mapInArrow(held(tmp_path / "gate"), "id long")
    frame.write.option(COMMITTER, version).parquet(root + path)
    assert (tmp_path / "gate-held").exists(), "the first attempt was under way"
    (tmp_path / "gate").touch()
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS))
    time.sleep(1)
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS)), "whatever the late one still did"
    assert not any("_temporary" in file for file in below(hdfs, path))


@pytest.mark.parametrize("version", [1, 2])
def test_an_executor_that_dies_in_the_middle_costs_nothing(spark, hdfs, root, path, version, tmp_path):
    frame = spark.range(0, BLOCK_OF_ROWS, 1, 4).mapInArrow(held(tmp_path / "gate"), "id long")
    failed = []

    def write():
        try:
            frame.write.option(COMMITTER, version).parquet(root + path)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    end = time.monotonic() + 90
    while not (tmp_path / "gate-held").exists():
        assert time.monotonic() < end and not failed, failed
        time.sleep(0.02)
    os.kill(executor_of(int((tmp_path / "gate-held").read_text())), signal.SIGKILL)
    thread.join(180)
    assert not thread.is_alive() and not failed, failed
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS))
    assert not any("_temporary" in file for file in below(hdfs, path))


MANIFEST = "org.apache.hadoop.mapreduce.lib.output.committer.manifest.ManifestCommitter"
TEXT = "org.apache.hadoop.mapreduce.lib.output.TextOutputFormat"


def test_the_manifest_committer_commits_one_of_two_attempts(spark, hdfs, root, path, tmp_path):
    """Tasks leave a list of their files, and the job's commit renames them. Spark gets to it by Hadoop's output formats."""
    gate = str(tmp_path / "gate")

    def held_once(task, records):
        import os
        import time

        from pyspark import TaskContext

        # Not the first task, which Spark also runs alone, to see of what types the records are.
        attempt = TaskContext.get().attemptNumber()
        if (task, attempt) == (1, 0):
            open(f"{gate}-held", "w").close()
        # The copy begins when the first attempt has, which goes on when the copy was committed.
        while task == 1 and not os.path.exists(f"{gate}-held" if attempt else gate) and os.getppid() != 1:
            time.sleep(0.02)
        return records

    records = spark.sparkContext.range(0, 4000, 1, 4).mapPartitionsWithIndex(held_once).map(lambda number: (str(number), str(2 * number)))
    text = "org.apache.hadoop.io.Text"
    settings = {"mapreduce.outputcommitter.factory.scheme.webhdfs": f"{MANIFEST}Factory"}
    records.saveAsNewAPIHadoopFile(root + path, TEXT, text, text, conf=settings)
    assert os.path.exists(f"{gate}-held"), "the first attempt was under way"
    Path(gate).touch()
    time.sleep(1)
    assert [file.rsplit("/", 1)[1] for file in below(hdfs, path)] == ["_SUCCESS", *(f"part-r-0000{task}" for task in range(4))]
    summary = json.loads(hdfs.read(f"{path}/_SUCCESS"))
    assert (summary["committer"], summary["success"]) == (MANIFEST, True), "no other committer was at work"
    for task in range(4):
        lines = hdfs.read(f"{path}/part-r-0000{task}").decode().splitlines()
        assert lines == [f"{number}\t{2 * number}" for number in range(1000 * task, 1000 * task + 1000)]


def test_what_is_committed_arrives_in_the_store_and_nothing_else(spark, server, hdfs, root, path, lake):
    name = path.replace("/w/", "")
    spark.range(0, BLOCK_OF_ROWS, 1, 4).write.parquet(f"{root}/kept/{name}")
    with server.client() as client:
        client.act("wait_persisted", path=f"/kept/{name}", timeout="60s")
    stored = sorted(str(file.relative_to(lake)) for file in (lake / name).rglob("*") if file.is_file())
    # A speculative attempt that is killed late may make its folder again after the commit took it away, on any file system.
    seen = [file.removeprefix("/kept/") for file in below(hdfs, f"/kept/{name}")]
    late = [file for file in seen if "/_temporary/" in file]
    assert stored == sorted(file for file in seen if file not in late)
    assert {f"{name}/{file.rsplit('/', 1)[1]}" for file in late} <= set(stored), "more than another attempt at what was committed"
    assert f"{name}/_SUCCESS" in stored and len(stored) == 5


def test_a_task_that_fails_is_tried_again(spark, root, path):
    def fail_once(batches):
        from pyspark import TaskContext

        context = TaskContext.get()
        for batch in batches:
            yield batch
            if (context.partitionId(), context.attemptNumber()) == (1, 0):
                raise RuntimeError("on purpose")

    spark.range(0, BLOCK_OF_ROWS, 1, 4).mapInArrow(fail_once, "id long").write.parquet(root + path)
    assert rows(spark, root + path) == list(range(BLOCK_OF_ROWS))
