"""Writes: what a save mode means, what is refused, and where the dataset comes from."""

import json

import pyarrow as pa
import pytest

from tests.harness import descriptor
from tests.spark.cluster import beside, held, open_gate, wait_held


def ids(client, path, **keys):
    return sorted(client.table(path, **keys)["id"].to_pylist())


def test_a_job_makes_one_version_with_a_part_for_each_task_in_their_order(spark, write, client, path):
    write(spark.range(0, 100_000, 1, 4), path)
    [version] = client.act("versions", path=path)
    assert (version["version"], version["rows"], version["parts"]) == (1, 100_000, 4)
    assert client.table(path)["id"].to_pylist() == list(range(100_000))


def test_save_modes_say_what_happens_to_what_is_there(spark, write, client, path):
    write(spark.range(10), path, None)
    assert ids(client, path) == list(range(10))
    with pytest.raises(Exception, match="ALREADY_EXISTS.*exists already"):
        write(spark.range(10), path, None)
    write(spark.range(5), path, "ignore")
    assert ids(client, path) == list(range(10))
    write(spark.range(10, 15), path, "append")
    assert ids(client, path) == list(range(15))
    write(spark.range(3), path, "overwrite")
    assert ids(client, path) == [0, 1, 2]
    with pytest.raises(Exception, match="ALREADY_EXISTS"):
        write(spark.range(3), path, "append", mode="create")
    assert [v["version"] for v in client.act("versions", path=path)] == [1, 2, 3]


def test_a_table_without_rows_has_its_columns(spark, write, read, client, path):
    write(spark.range(10).where("id < 0").selectExpr("id", "cast(id as string) name"), path)
    assert client.table(path).schema.names == ["id", "name"]
    assert read(path).count() == 0
    assert read(path).schema.simpleString() == "struct<id:bigint,name:string>"


def test_tasks_without_rows_make_no_parts(spark, write, client, path):
    write(spark.range(0, 1000, 1, 8).where("id >= 900"), path)
    assert ids(client, path) == list(range(900, 1000))
    [version] = client.act("versions", path=path)
    assert version["parts"] == 2, "the one with rows, and the first, which says what the columns are"


def test_rows_of_every_size_become_bounded_batches(spark, write, client, path):
    write(spark.range(0, 300, 1, 1).selectExpr("id", "repeat('x', cast(id * 1000 as int)) text"), path)
    batches = client.batches(path)
    assert sum(b.num_rows for b in batches) == 300
    assert len(batches) > 3, "45 MB are more than one batch"
    assert max(b.nbytes for b in batches) < 16 << 20
    write(spark.range(0, 1000, 1, 1), path + "-rows", batchRows=100)
    assert [b.num_rows for b in client.batches(path + "-rows")] == [100] * 10


def test_options_reach_the_session(spark, write, client, path):
    write(spark.range(1000), path, format="parquet", compression="zstd", ack="local", successFile="true", sessionTimeout="2min")
    names = client.names(path)
    assert f"{path}/_SUCCESS" in names
    assert [n for n in names if n.endswith(".parquet")] == [n for n in names if not n.endswith("_SUCCESS")]
    assert ids(client, path) == list(range(1000))


@pytest.mark.parametrize("options", [{"ack": "soon"}, {"compression": "rar"}, {"format": "csv"}, {"sessionTimeout": "never"}, {"batchRows": "0"}])
def test_wrong_options_are_refused_and_leave_nothing(spark, write, client, path, options):
    with pytest.raises(Exception, match=str(next(iter(options.values())))):
        write(spark.range(10), path, **options)
    assert not client.exists(path)


def test_a_relative_path_and_a_wrong_address_are_refused_in_words(spark, write, server):
    with pytest.raises(Exception, match="is not absolute"):
        write(spark.range(1), "features")
    for addr, says in [("http://127.0.0.1:1", "its scheme"), ("grpc://x", "no host and port"), ("grpc://u:secret@h:1", "credentials")]:
        with pytest.raises(Exception, match=says):
            write(spark.range(1), "/features", addr=addr)
    with pytest.raises(Exception, match="UNAVAILABLE: .*127.0.0.1:9"):
        write(spark.range(1), "/features", addr="grpc://127.0.0.1:9")


def test_another_schema_is_refused_before_anything_is_visible(spark, write, client, path):
    write(spark.range(10), path)
    with pytest.raises(Exception, match="cast it to the dataset's type|FAILED_PRECONDITION"):
        write(spark.range(10).selectExpr("cast(id as string) id"), path)
    with pytest.raises(Exception, match="FAILED_PRECONDITION.*schema"):
        write(spark.range(10).selectExpr("id", "id more"), path)
    assert len(client.act("versions", path=path)) == 1


def test_columns_are_put_in_the_datasets_order(spark, write, client, path):
    write(spark.range(3).selectExpr("id", "cast(id as string) name"), path)
    write(spark.range(3, 6).selectExpr("cast(id as string) name", "id"), path)
    assert client.table(path).sort_by("id").to_pydict() == {"id": list(range(6)), "name": [str(k) for k in range(6)]}


def test_a_dataset_that_others_began_keeps_its_types(spark, write, client, path):
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            ("name", pa.large_string()),
            ("vector", pa.list_(pa.float32(), 3)),
            ("tags", pa.large_list(pa.string())),
        ]
    )
    client.put(path, pa.record_batch([[0], ["a"], [[1.0, 2.0, 3.0]], [["x"]]], schema=schema))
    rows = spark.range(1, 3).selectExpr(
        "id", "cast(id as string) name", "if(id = 2, null, array(cast(id as float), 0f, 1f)) vector", "array('y', cast(id as string)) tags"
    )
    write(rows, path)
    table = client.table(path)
    assert table.schema.types == schema.types
    assert table.sort_by("id").to_pylist()[1:] == [
        {"id": 1, "name": "1", "vector": [1.0, 0.0, 1.0], "tags": ["y", "1"]},
        {"id": 2, "name": "2", "vector": None, "tags": ["y", "2"]},
    ]
    for wrong, says in [
        ("cast(null as bigint) id, 'x' name, array(0f, 0f, 0f) vector, array('y') tags", "can hold none"),
        ("5L id, 'x' name, array(0f) vector, array('y') tags", "an array of 1 items"),
    ]:
        with pytest.raises(Exception, match=says):
            write(spark.sql("select " + wrong), path)
    assert client.info(path).total_records == 3


def test_datasets_in_folders_are_read_together(spark, write, read, path):
    rows = spark.range(6).selectExpr("id", "id % 2 day")
    for day in (0, 1):
        write(rows.where(f"day = {day}").drop("day"), f"{path}/day={day}", "overwrite")
    assert sorted(map(tuple, read(path).collect())) == [(k, k % 2) for k in range(6)]
    assert [r.id for r in read(path).where("day = '1'").orderBy("id").collect()] == [1, 3, 5]


def test_the_first_attempt_that_ended_well_counts_whoever_wrote_it(spark, write, client, gate, path):
    """The executor of an attempt may be lost after the server took its rows and before Spark heard of it."""
    rows = spark.range(0, 200_000, 1, 4)
    gated = rows.mapInArrow(held(gate, {(2, None)}, after=1), rows.schema)
    with beside(gate, write, gated, path, job="etl") as job:
        wait_held(gate, 2)
        session = json.loads(client.flight.get_flight_info(descriptor(path, follow=True)).app_metadata)["session"]
        mine = pa.table({"id": pa.array(range(100_000, 150_000), pa.int64())}).to_batches(25_000)
        task = {"job": "etl", "stage": 0, "task": 2, "attempt": 10_000}
        client.put(path, *mine, session=session, task=task)
        open_gate(gate)
        job.result(120)
    assert client.table(path)["id"].to_pylist() == list(range(200_000))
    assert len(client.act("versions", path=path)) == 1
    assert [b.num_rows for b in client.batches(path)].count(25_000) == 2, "the batches are the first attempt's"
    with pytest.raises(pa.ArrowInvalid, match="is published as version 1"):
        client.put(path, *mine, session=session, task=task)
