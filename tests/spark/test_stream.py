"""Streams: each row once, over restarts, epochs that run again, and overwrites."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.spark.cluster import wait_for


@pytest.fixture
def copy(spark, server, tmp_path):
    """`copy(source, target, option=…)` streams what is there from one dataset into another, with one checkpoint."""

    def copy(source, target, mode="append", select=("*",), **options):
        rows = spark.readStream.format("forebay").option("addr", server.flight).options(**options).load(source).selectExpr(*select)
        stream = rows.writeStream.format("forebay").option("addr", server.flight).option("path", target).outputMode(mode)
        query = stream.option("checkpointLocation", str(tmp_path / "checkpoint")).trigger(availableNow=True).start()
        query.awaitTermination()
        return query

    return copy


def ids(client, path):
    return sorted(client.table(path)["id"].to_pylist())


def test_a_stream_reads_what_is_published_once(spark, write, client, copy, path):
    write(spark.range(0, 1000, 1, 3), path)
    copy(path, path + "-copy")
    assert ids(client, path + "-copy") == list(range(1000))
    copy(path, path + "-copy")
    assert len(client.act("versions", path=path + "-copy")) == 1, "nothing new, nothing published"
    for k in range(1, 6):
        # More versions than are kept.
        write(spark.range(k * 1000, k * 1000 + 1000, 1, 2), path)
    copy(path, path + "-copy")
    assert ids(client, path + "-copy") == list(range(6000))


def test_an_epoch_that_runs_again_is_there_once(spark, write, client, copy, path, tmp_path):
    write(spark.range(0, 100), path)
    copy(path, path + "-copy")
    write(spark.range(100, 200), path)
    copy(path, path + "-copy")
    # As after a crash between the publish and Spark's own note of it.
    commits = sorted((tmp_path / "checkpoint/commits").glob("[0-9]*"), key=lambda p: int(p.name))
    commits[-1].unlink()
    for note in (tmp_path / "checkpoint/commits").glob(f".{commits[-1].name}.crc"):
        note.unlink()
    copy(path, path + "-copy")
    assert ids(client, path + "-copy") == list(range(200))
    assert len(client.act("versions", path=path + "-copy")) == 2
    write(spark.range(200, 300), path)
    copy(path, path + "-copy")
    assert ids(client, path + "-copy") == list(range(300))


@pytest.mark.parametrize("fate", ["open", "aborted"])
def test_an_epoch_whose_publish_never_came_is_brought_to_its_end(spark, write, client, copy, path, tmp_path, fate):
    """A driver may die after it noted the session and before it published it."""
    write(spark.range(0, 100), path)
    copy(path, path + "-copy")
    write(spark.range(100, 200), path)
    [log] = [n for n in client.names(path + "-copy") if "/_spark-" in n]
    last = json.loads(client.file(log))
    # The note of the epoch to come, whose tasks have ended.
    [begun] = client.act("begin", path=path + "-copy", mode="append", timeout="60s")
    batch = pa.record_batch([pa.array(range(100, 200), pa.int64())], names=["id"])
    client.put(path + "-copy", batch, session=begun["session"], task={"job": "x", "stage": 0, "task": 0, "attempt": 0})
    client.put_file(log, json.dumps({"epoch": last["epoch"] + 1, "session": begun["session"]}).encode())
    if fate == "aborted":
        client.act("abort", session=begun["session"])
    copy(path, path + "-copy")
    assert ids(client, path + "-copy") == list(range(200))
    sessions = [v["session"] for v in client.act("versions", path=path + "-copy")]
    assert (begun["session"] in sessions) == (fate == "open"), "what was begun counts if it can"


def test_an_overwrite_ends_the_stream_or_begins_it_anew(spark, write, client, copy, path):
    write(spark.range(0, 100), path)
    copy(path, path + "-copy")
    write(spark.range(500, 510), path, "overwrite")
    with pytest.raises(Exception, match="was overwritten between version 1.*onOverwrite=restart"):
        copy(path, path + "-copy")
    copy(path, path + "-copy", onOverwrite="restart")
    assert ids(client, path + "-copy") == [*range(100), *range(500, 510)]
    write(spark.range(510, 520), path)
    copy(path, path + "-copy", onOverwrite="restart")
    assert ids(client, path + "-copy") == [*range(100), *range(500, 520)]


def test_a_stream_may_begin_after_a_version(spark, write, client, copy, path):
    write(spark.range(0, 100), path)
    write(spark.range(100, 200), path)
    copy(path, path + "-copy", version="1")
    assert ids(client, path + "-copy") == list(range(100, 200))


def test_a_stream_may_begin_before_its_dataset(spark, write, server, client, path, tmp_path):
    stream = spark.readStream.format("forebay").option("addr", server.flight).schema("id bigint").load(path)
    query = stream.writeStream.format("forebay").option("addr", server.flight).option("path", path + "-copy")
    query = query.option("checkpointLocation", str(tmp_path / "c")).trigger(processingTime="200 milliseconds").start()
    try:
        write(spark.range(50), path)
        write(spark.range(50, 80), path)
        wait_for(lambda: rows_of(client, path + "-copy") == 80, 240, "the copy")
    finally:
        query.stop()
    assert ids(client, path + "-copy") == list(range(80))


def test_a_complete_result_takes_the_place_of_the_last(spark, server, write, client, path, tmp_path):
    def totals():
        rows = spark.readStream.format("forebay").option("addr", server.flight).load(path).groupBy().count()
        query = rows.writeStream.format("forebay").option("addr", server.flight).option("path", path + "-count").outputMode("complete")
        query.option("checkpointLocation", str(tmp_path / "c")).trigger(availableNow=True).start().awaitTermination()
        return client.table(path + "-count")["count"].to_pylist()

    write(spark.range(10), path)
    assert totals() == [10]
    write(spark.range(10, 30), path)
    assert totals() == [30]


def test_the_checkpoint_says_versions(spark, write, copy, path, tmp_path):
    write(spark.range(0, 10, 1, 1), path)
    copy(path, path + "-copy")
    offsets = Path(tmp_path / "checkpoint/offsets/0").read_text().splitlines()
    assert json.loads(offsets[-1]) == {"version": 1, "parts": 1, "batches": 1, "base": 0}


def test_of_the_folders_of_a_stream_a_sink_hears_nothing(spark, server, write, client, path, tmp_path):
    """Spark tells no sink of this kind what `partitionBy` said, so that it can neither be done nor refused: docs/spark.md says what to do."""
    write(spark.range(70), path)
    rows = spark.readStream.format("forebay").option("addr", server.flight).load(path).selectExpr("*", "id % 7 day")
    stream = rows.writeStream.format("forebay").option("addr", server.flight).option("path", path + "-copy").partitionBy("day")
    stream.option("checkpointLocation", str(tmp_path / "c")).trigger(availableNow=True).start().awaitTermination()
    assert not [name for name in client.names(path + "-copy") if "day=" in name]
    table = client.table(path + "-copy")
    assert sorted(zip(*table.to_pydict().values())) == [(id, id % 7) for id in range(70)], "one dataset, and the column is in it"


def test_a_stream_into_folders_is_there_once_by_folders_of_epochs(spark, server, write, client, path, tmp_path):
    """As docs/spark.md has it: an epoch that runs again takes the place of what it wrote before."""
    target = path + "-folders"

    def save(df, epoch):
        rows = df.selectExpr("*", f"{epoch} epoch", "id % 7 day")
        writer = rows.write.format("forebay").option("addr", server.flight).option("partitionOverwriteMode", "dynamic")
        writer.mode("overwrite").partitionBy("epoch", "day").save(target)

    def run():
        rows = spark.readStream.format("forebay").option("addr", server.flight).load(path)
        query = rows.writeStream.foreachBatch(save).option("checkpointLocation", str(tmp_path / "c"))
        query.trigger(availableNow=True).start().awaitTermination()

    write(spark.range(70), path)
    run()
    write(spark.range(70, 140), path)
    run()
    last = max((tmp_path / "c/commits").glob("[0-9]*"), key=lambda note: int(note.name))
    for note in (last, last.with_name(f".{last.name}.crc")):
        note.unlink()
    run()
    assert ids(client, target) == list(range(140))
    versions = {e["path"].removeprefix(target + "/"): e["version"] for e in client.act("list", path=target, recursive=True) if e.get("version")}
    assert versions == {f"epoch={epoch}/day={day}": 1 + epoch for epoch in range(2) for day in range(7)}, "the second epoch ran twice"


@pytest.fixture
def following(spark, server, tmp_path):
    """`following(source, target)` starts a stream that follows live sessions; it is stopped when the test is over."""
    queries = []

    def following(source, target):
        rows = spark.readStream.format("forebay").option("addr", server.flight).option("follow", "true").schema("id bigint").load(source)
        stream = rows.writeStream.format("forebay").option("addr", server.flight).option("path", target)
        stream = stream.option("checkpointLocation", str(tmp_path / "following")).trigger(processingTime="100 milliseconds")
        queries.append(stream.start())
        return queries[-1]

    yield following
    for query in queries:
        query.stop()


def rows_of(client, path):
    try:
        return client.info(path).total_records
    except pa.ArrowKeyError:
        return 0


def put(client, path, begin, end, session, task):
    batch = pa.record_batch([pa.array(range(begin, end), pa.int64())], names=["id"])
    client.put(path, batch, session=session, task={"job": "etl", "stage": 0, "task": task, "attempt": 0})


def test_a_stream_may_follow_the_tasks_of_a_session_before_its_publish(client, following, path):
    [begun] = client.act("begin", path=path, mode="append")
    session = begun["session"]
    # Tasks end in another order than that of their numbers, which is the version's.
    put(client, path, 300, 400, session, 3)
    query = following(path, path + "-copy")
    wait_for(lambda: rows_of(client, path + "-copy") == 100, 240, "the first task's rows")
    query.stop()
    put(client, path, 0, 100, session, 0)
    following(path, path + "-copy")
    wait_for(lambda: rows_of(client, path + "-copy") == 200, 240, "the second task's, after a restart of the stream")
    assert client.exists(path) is False
    # Another session is published before it.
    write_other = client.act("begin", path=path, mode="append")[0]["session"]
    put(client, path, 1000, 1100, write_other, 0)
    client.act("publish", session=write_other)
    put(client, path, 100, 200, session, 1)
    client.act("publish", session=session)
    last = client.act("begin", path=path, mode="append")[0]["session"]
    put(client, path, 2000, 2100, last, 0)
    client.act("publish", session=last)
    wait_for(lambda: rows_of(client, path + "-copy") == 500, 240, "the rest")
    assert ids(client, path + "-copy") == [*range(200), *range(300, 400), *range(1000, 1100), *range(2000, 2100)]


def test_an_abort_fails_a_stream_that_has_read_what_does_not_count(client, following, path):
    session = client.act("begin", path=path, mode="append")[0]["session"]
    put(client, path, 0, 100, session, 0)
    query = following(path, path + "-copy")
    wait_for(lambda: rows_of(client, path + "-copy") == 100, 240, "the task's rows")
    client.act("abort", session=session)
    with pytest.raises(Exception, match="has come to nothing after the stream read 1 of its tasks"):
        query.awaitTermination(60)
