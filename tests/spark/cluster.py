"""A Spark with real executors, and a hand on its tasks: which of them wait where, and in which process they run.

Tasks are held in the middle of their rows by a file: a task that is told to hold says where it runs and goes on when the gate is there.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyspark

JAR = os.environ.get("FOREBAY_SPARK_JAR") or str(
    next(iter(sorted((Path(__file__).parent.parent.parent / "connectors/spark/target").glob("forebay-spark-*.jar"))), "")
)
ENVIRONMENT = {"SPARK_HOME": os.path.dirname(pyspark.__file__), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}


# For Java machines that live for seconds.
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
TASKS, DAYS = 8, 7


def session(folder, master="local-cluster[2,1,1024]", **settings):
    """A Spark session, a new one. Keywords are settings, `__` for the dot."""
    from pyspark.sql import SparkSession

    os.environ.update(ENVIRONMENT)
    assert os.path.exists(JAR), "connectors/spark is not built: tests/setup.sh spark"
    builder = SparkSession.builder.master(master).appName("forebay-tests")
    fixed = {
        "spark.jars": JAR,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.executor.memory": "640m",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.session.timeZone": "UTC",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{folder}/events",
        "spark.eventLog.compress": "false",
        "spark.local.dir": f"{folder}/local",
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
    }
    os.makedirs(f"{folder}/events", exist_ok=True)
    for name, value in {**fixed, **{k.replace("__", "."): v for k, v in settings.items()}}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    return spark


class Standalone:
    """A master and two workers, each at an address of its own: Spark starts no copy of a task on the host where it runs, and in a
    local cluster all executors are on one."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def __enter__(self):
        port = free_port()
        self.master = f"spark://127.0.0.1:{port}"
        self.start("master.Master", "127.0.0.1", "--port", str(port))
        for host in ("127.0.0.1", "127.0.0.2"):
            self.start("worker.Worker", host, "--cores", "1", "--memory", "700m", "--work-dir", str(self.folder / "work"), self.master)
        return self

    def start(self, name, host, *arguments):
        command = [f"{ENVIRONMENT['SPARK_HOME']}/bin/spark-class", f"org.apache.spark.deploy.{name}", "--host", host, "--webui-port", "0"]
        environment = {**os.environ, **ENVIRONMENT, "SPARK_LOCAL_IP": host, "SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": QUICK}
        log = open(self.folder / f"{name}-{host}.log", "w")
        command = [*command, *arguments]
        self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))

    def __exit__(self, *_):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Driver:
    """A driver of its own, as a process with its executors, that writes one dataset: tests/spark/driver.py says how."""

    def __init__(self, addr, folder, path, *options):
        command = [sys.executable, "-m", "tests.spark.driver", addr, str(folder), path, *options]
        self.log = open(folder / "driver.log", "a+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def kill(self):
        """Its Java first, which would clean up when its Python is gone. Executors are left to themselves."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                kill(int(child))
        self.process.kill()
        self.process.wait()

    def end(self):
        assert self.process.wait(400) == 0, self.text()[-3000:]

    def text(self):
        self.log.seek(0)
        return self.log.read()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def executor_of(pid):
    """The executor's process above a Python worker's."""
    while pid > 1:
        if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    raise AssertionError("no executor above this process")


def held(folder, holds, after=3):
    """A function for mapInArrow that passes batches on. Attempts of tasks that `holds` names, as (task, attempt) or (task, None) for
    any, say where they run after `after` batches and wait for the gate."""
    folder = str(folder)

    def pass_on(batches):
        import os
        import sys
        import time

        from pyspark import TaskContext

        context = TaskContext.get()
        task, attempt = context.partitionId(), context.attemptNumber()
        waits = (task, attempt) in holds or (task, None) in holds
        for k, batch in enumerate(batches):
            if waits and k == after:
                pid = os.getpid()
                with open(f"{folder}/.{task}-{attempt}", "w") as note:
                    note.write(str(pid))
                os.rename(f"{folder}/.{task}-{attempt}", f"{folder}/held-{task}-{attempt}")
                while not os.path.exists(f"{folder}/gate"):
                    if os.getppid() == 1:
                        sys.exit(1)
                    time.sleep(0.02)
            yield batch

    return pass_on


def numbers(spark, rows, folder, holds, after):
    """Numbered rows in `TASKS` tasks, which `held` holds."""
    df = spark.range(0, rows, 1, TASKS)
    return df.mapInArrow(held(folder, holds, after), df.schema).selectExpr("id", "id * 2 twice")


def by_day(df):
    """The rows with a column that says to which of `DAYS` days each belongs."""
    return df.selectExpr("*", f"id % {DAYS} day")


def write_files(df, url, version):
    """Parquet with a folder for each day, by version 1 or 2 of Hadoop's FileOutputCommitter."""
    writer = by_day(df).write.option("mapreduce.fileoutputcommitter.algorithm.version", version)
    writer.mode("overwrite").partitionBy("day").parquet(url)


def fails_late():
    """A function for mapInArrow that passes all rows on, and then the task of partition 3 fails, however often it is tried."""

    def pass_on(batches):
        from pyspark import TaskContext

        yield from batches
        if TaskContext.get().partitionId() == 3:
            raise ValueError("this task never succeeds")

    return pass_on


def wait_for(condition, seconds=240, what="it", pause=0.05):
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what} did not come about in {seconds} s"
        time.sleep(pause)
    return answer


def wait_held(folder, task, attempt=0, seconds=240):
    """Waits until the attempt holds; the process id of its executor."""
    note = Path(folder) / f"held-{task}-{attempt}"
    wait_for(note.exists, seconds, f"attempt {attempt} of task {task} at the gate")
    return executor_of(int(note.read_text()))


def executor_logs(spark):
    """What each executor of a local cluster has written so far, by its number. Spark keeps it below its own folder."""
    work = Path(ENVIRONMENT["SPARK_HOME"], "work", spark.sparkContext.applicationId)
    return {log.parent.name: log.read_text(errors="replace") for log in work.glob("*/stderr")}


def open_gate(folder):
    (Path(folder) / "gate").touch()


@contextlib.contextmanager
def beside(folder, function, *arguments, **options):
    """Runs a job in a thread; nothing that goes wrong here leaves it waiting at the gate."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(function, *arguments, **options)
    finally:
        open_gate(folder)
        pool.shutdown()


def kill(pid):
    os.kill(pid, signal.SIGKILL)
