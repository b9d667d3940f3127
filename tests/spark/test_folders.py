"""partitionBy: a job's folders appear in one step, whatever dies; which of them an overwrite touches; values that name folders."""

import datetime
import decimal
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness import descriptor
from tests.spark import cluster
from tests.spark.cluster import DAYS, TASKS, beside, by_day, fails_late, kill, numbers, open_gate, wait_for, wait_held

ROWS, NULL = 210_000, "__HIVE_DEFAULT_PARTITION__"


@pytest.fixture
def save(server):
    """`save(df, path, columns, save_mode, option=…)` saves a data frame into folders."""

    def save(df, path, columns, mode="append", **options):
        writer = df.write.format("forebay").option("addr", server.flight).options(**options)
        (writer if mode is None else writer.mode(mode)).partitionBy(*columns).save(path)

    return save


def folders(client, path):
    """Versions of the datasets below a path, by their folders."""
    entries = client.act("list", path=path, recursive=True)
    return {e["path"].removeprefix(path + "/"): e["version"] for e in entries if e.get("version")}


def ids(client, path):
    return sorted(client.table(path)["id"].to_pylist())


def assert_one_commit(client, path, rows=ROWS, version=1):
    assert folders(client, path) == {f"day={day}": version for day in range(DAYS)}
    table = client.table(path)
    assert table["id"].combine_chunks().sort().equals(pa.array(range(rows), pa.int64())), "every row once"
    assert all(int(day) == id % DAYS for id, day in zip(table["id"].to_pylist(), table["day"].to_pylist()))


def test_rows_come_back_with_the_columns_of_their_folders(spark, save, read, client, path):
    rows = [
        (1, "a", "de", 7),
        (2, "b", None, 7),
        (3, "c", "f/r=%", 8),
        (4, None, "ä ö", 8),
        (5, "e", "", 8),
        (6, "f", "x" * 200, 8),
    ]
    df = spark.createDataFrame(rows, "id long, s string, country string, day int")
    save(df, path, ["day", "country"])
    save(df.where("id <= 2").selectExpr("day", "s", "id + 10 id", "country"), path, ["day", "country"])
    null = f"country={NULL}"
    assert folders(client, path) == {
        "day=7/country=de": 2,
        f"day=7/{null}": 2,
        "day=8/country=f%252Fr%253D%2525": 1,
        "day=8/country=ä ö": 1,
        f"day=8/{null}": 1,
        f"day=8/country={'x' * 200}": 1,
    }
    # As in Spark's own sources a text of nothing names a folder as a null does. Columns of folders are behind the others.
    expected = [(id, s, day, country or None) for id, s, country, day in rows]
    expected += [(id + 10, s, day, country) for id, s, country, day in rows[:2]]
    assert sorted(map(tuple, read(path).collect())) == sorted(expected)
    assert read(path).columns == ["id", "s", "day", "country"]


def test_a_filter_on_a_folder_reads_that_folder_alone(spark, save, read, client, path):
    save(by_day(spark.range(700)), path, ["day"])
    assert read(path).rdd.getNumPartitions() == DAYS, "rows of a folder come to one task"
    for condition, folders in [("day = 3", 1), ("day = '3'", 1), ("day in (1, 2) and id < 9", 2), ("day > 4", 2), ("day is null", 0)]:
        assert read(path).where(condition).rdd.getNumPartitions() == folders, condition
    assert sorted(r.id for r in read(path).where("day = 3").select("id").collect()) == list(range(3, 700, 7))


# What folders of one column are called, and the type that Spark gives it. A time in a name is escaped.
NAMES = {
    "one int": (["1", "02", "+3", NULL], "int"),
    "a long beside an int": (["1", "2147483648"], "bigint"),
    "more than a long": (["9223372036854775808", "1"], "decimal(19,0)"),
    "an exponent": (["1E5", "7"], "decimal(10,0)"),
    "fractions": (["1", "1.5", "NaN", "-0.0"], "double"),
    "a long and a fraction": (["2147483648", "1.5"], "string"),
    "dates": (["2024-10-04", "0001-01-01", NULL], "date"),
    "times": (["2024-10-04 12%3A30%3A00", "2024-10-04"], "timestamp"),
    "months": (["2024-10", "2024-11"], "string"),
    "a date and a number": (["2024-10-04", "7"], "string"),
    "words beside numbers": (["01", "1", "x"], "string"),
    "truths": (["true", "false"], "string"),
}


@pytest.fixture
def beside_parquet(spark, client, read, path, tmp_path):
    """`beside_parquet(names, schema=…)`: folders `k=NAME` with a row each, read here and as Parquet files by Spark's own source."""

    def readers(names, schema=None):
        for n, name in enumerate(names):
            rows = pa.table({"id": pa.array([n], pa.int64())})
            (tmp_path / f"k={name}").mkdir()
            pq.write_table(rows, tmp_path / f"k={name}/part.parquet")
            client.put(f"{path}/k={name.replace('%', '%25')}", *rows.to_batches())
        return read(path, schema), (spark.read.schema(schema) if schema else spark.read).parquet(str(tmp_path))

    return readers


@pytest.mark.parametrize("what", NAMES)
def test_columns_of_folders_have_the_types_that_spark_gives_them(beside_parquet, what):
    names, kind = NAMES[what]
    ours, theirs = beside_parquet(names)
    assert ours.dtypes == theirs.dtypes == [("id", "bigint"), ("k", kind)]
    # As text: of NaN there is no equal.
    assert sorted(map(str, ours.collect())) == sorted(map(str, theirs.collect()))


def test_a_column_of_nulls_alone_is_a_string(client, read, path):
    """Newer Sparks give it no type at all, with which nothing can be done."""
    client.put(f"{path}/k={NULL}", pa.record_batch({"id": [1]}))
    assert read(path).dtypes == [("id", "bigint"), ("k", "string")] and read(path).where("k is null").count() == 1


def test_columns_of_folders_are_strings_where_spark_is_told_so(spark, beside_parquet):
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    try:
        ours, theirs = beside_parquet(["01", "2", NULL])
        assert ours.dtypes == theirs.dtypes == [("id", "bigint"), ("k", "string")]
        assert sorted(map(str, ours.collect())) == sorted(map(str, theirs.collect()))
    finally:
        spark.conf.unset("spark.sql.sources.partitionColumnTypeInference.enabled")


@pytest.mark.parametrize("kind", ["string", "bigint", "smallint", "double", "decimal(9,2)"])
def test_a_schema_that_a_user_says_goes_before_what_folders_are_called(beside_parquet, kind):
    ours, theirs = beside_parquet(["01", "2", "3", NULL], f"id bigint, k {kind}")
    assert ours.dtypes == [("id", "bigint"), ("k", kind)]
    # Of `01` Spark itself makes the decimal 0.01.
    numbers = ours.sparkSession.createDataFrame([(0, 1), (1, 2), (2, 3), (3, None)], "id long, k int")
    expected = numbers.selectExpr("id", f"cast(k as {kind}) k") if "decimal" in kind else theirs
    assert sorted(map(str, ours.collect())) == sorted(map(str, expected.collect()))
    assert {r.id for r in ours.where("k >= 2").collect()} == {1, 2}


def test_a_schema_that_does_not_fit_the_folders_is_refused(client, read, path):
    client.put(f"{path}/k=x", pa.record_batch({"id": [1]}))
    for schema, says in [
        ("id bigint, k binary", 'no column "k" of type binary'),
        ("id string", 'no column "id" of type string'),
        ("id bigint, k date", "folder k=x is no value of type date"),
    ]:
        with pytest.raises(Exception, match=says):
            read(path, schema).collect()


def test_a_condition_on_values_keeps_every_folder_that_has_them(beside_parquet):
    """`01` and `1` are one number, and a null is none."""
    ours, theirs = beside_parquet(["01", "1", "+1", "2", "10", NULL])
    for condition, folders in [
        ("k = 1", 3),
        ("k <> 1", 2),
        ("k < 10", 4),
        ("k >= 2 and k < 10", 1),
        ("2 <= k", 2),
        ("k in (1, 10)", 4),
        ("k not in (1, 10)", 1),
        ("not (k = 1 or k is null)", 2),
        ("k is null", 1),
        ("k is not null", 5),
        ("k <=> null", 1),
        ("k = 7", 0),
        ("k = 1 and id > 0 or k = 2", 4),
        ("id = 4", 6),
        ("k = '01'", 3),
        ("k + 1 = 3", 6),
        ("cast(k as string) = '1'", 6),
    ]:
        found = ours.where(condition)
        assert sorted(map(str, found.collect())) == sorted(map(str, theirs.where(condition).collect())), condition
        if "+" not in condition and "cast" not in condition and "<=>" not in condition:
            assert found.rdd.getNumPartitions() == folders, condition


def test_a_folder_that_comes_later_is_never_passed_over(spark, save, read, path):
    save(spark.createDataFrame([(1, "1"), (2, "2")], "id long, k string"), path, ["k"])
    before = read(path)
    assert before.dtypes[1] == ("k", "int")
    save(spark.createDataFrame([(3, "3"), (4, "03")], "id long, k string"), path, ["k"])
    assert {r.id for r in before.where("k = 3").collect()} == {3, 4}
    save(spark.createDataFrame([(5, "x")], "id long, k string"), path, ["k"])
    for late in [before, before.where("k = 3")]:
        with pytest.raises(Exception, match="folder k=x is no value of type int.*load the table again"):
            late.collect()
    assert {(r.id, r.k) for r in read(path).where("k > '2'").collect()} == {(3, "3"), (5, "x")}, "strings, now"


def test_a_column_that_the_files_have_is_not_the_folders(client, read, path):
    """It is read as it is written, whatever the folder is called, by this way as by all others."""
    client.put(f"{path}/k=1", pa.record_batch({"id": [1], "k": ["x"]}))
    client.put(f"{path}/k=2", pa.record_batch({"id": [2], "k": ["1"]}))
    assert read(path).dtypes == [("id", "bigint"), ("k", "string")]
    assert [tuple(r) for r in read(path).where("k = '1'").collect()] == [(2, "1")]


def test_folders_of_several_columns_are_chosen_by_each(spark, save, read, path):
    df = spark.range(48).selectExpr("id", "cast('2024-10-01' as date) + cast(id % 4 as int) day", "cast(id % 3 as string) part")
    save(df, path, ["day", "part"])
    table = read(path)
    assert table.dtypes == [("id", "bigint"), ("day", "date"), ("part", "int")]
    for condition, folders in [("day = '2024-10-02'", 3), ("day > date'2024-10-02' and part = 0", 2), ("part in (1, 2)", 8)]:
        found = table.where(condition)
        assert found.rdd.getNumPartitions() == folders, condition
        assert {r.id for r in found.collect()} == {r.id for r in df.where(condition).collect()}, condition


def test_values_of_many_types_name_folders_as_spark_does(spark, save, client, path):
    values = {
        "boolean": (True, "true"),
        "smallint": (-3, "-3"),
        "decimal(10,2)": (decimal.Decimal("1.50"), "1.50"),
        "date": (datetime.date(2024, 10, 4), "2024-10-04"),
        "double": (0.5, "0.5"),
        "timestamp_ntz": (datetime.datetime(2024, 10, 4, 12, 30), "2024-10-04 12%253A30%253A00"),
    }
    for k, (kind, (value, text)) in enumerate(values.items()):
        save(spark.createDataFrame([(1, value)], f"id long, k {kind}"), f"{path}/{k}", ["k"])
        assert list(folders(client, f"{path}/{k}")) == [f"k={text}"], kind


def test_an_overwrite_empties_the_folders_that_no_row_came_to(spark, save, read, client, path):
    save(by_day(spark.range(14)), path, ["day"])
    # Another schema: all folders have it from now on.
    save(spark.range(100, 102).selectExpr("id", "'x' s", "id - 100 day"), path, ["day"], "overwrite", successFile="true")
    assert sorted(map(tuple, read(path).collect())) == [(100, "x", 0), (101, "x", 1)]
    assert folders(client, path) == {f"day={day}": 2 for day in range(DAYS)}
    assert sorted(client.table(f"{path}/day=6", version=1)["id"].to_pylist()) == [6, 13]
    save(spark.range(200, 201).selectExpr("id", "'y' s", "6 day"), path, ["day"])
    assert ids(client, path) == [100, 101, 200]


@pytest.mark.parametrize("by", ["option", "conf"])
def test_a_dynamic_overwrite_leaves_other_folders_alone(spark, save, client, path, by):
    save(by_day(spark.range(14)), path, ["day"])
    before = folders(client, path)
    rows, options = spark.range(100, 102).selectExpr("id", "id - 100 day"), {}
    if by == "option":
        options = {"partitionOverwriteMode": "dynamic"}
    else:
        spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
    try:
        save(rows, path, ["day"], "overwrite", **options)
        with pytest.raises(Exception, match="all folders of a table have the same"):
            save(rows.selectExpr("id", "'x' s", "day"), path, ["day"], "overwrite", **options)
    finally:
        spark.conf.unset("spark.sql.sources.partitionOverwriteMode")
    assert folders(client, path) == before | {"day=0": 2, "day=1": 2}
    assert ids(client, path) == sorted([100, 101] + [n for n in range(14) if n % 7 > 1])


def test_save_modes(spark, save, client, path):
    rows = by_day(spark.range(7))
    save(rows, path, ["day"], None)
    with pytest.raises(Exception, match="exists already"):
        save(rows, path, ["day"], "errorifexists")
    save(rows, path, ["day"], "ignore")
    assert folders(client, path) == {f"day={day}": 1 for day in range(DAYS)}
    save(rows.where("false"), path, ["day"])
    assert folders(client, path) == {f"day={day}": 1 for day in range(DAYS)}, "no rows, no folders"
    save(rows.where("false"), path, ["day"], "overwrite")
    assert ids(client, path) == []


def test_what_can_not_be_folders_is_refused(spark, save, write, client, path):
    rows = spark.range(4).selectExpr("id", "id % 2 day", "array(id) a")
    for columns, says in [
        (["nosuch"], "no column"),
        (["a"], "folders are not named by array"),
        (["id", "day", "a"], "folders are not named by array|names all columns"),
    ]:
        with pytest.raises(Exception, match=says):
            save(rows, path, columns)
    with pytest.raises(Exception, match="names all columns"):
        save(rows.select("id", "day"), path, ["id", "day"])
    assert not client.exists(path)
    write(rows, path + "-whole")
    with pytest.raises(Exception, match="is a dataset itself"):
        save(rows, path + "-whole", ["day"])
    save(rows, path, ["day"])
    with pytest.raises(Exception, match='lies where folders of "id" are'):
        save(rows, path, ["id"], "overwrite")
    with pytest.raises(Exception, match="all folders of a table have the same"):
        save(rows.drop("a"), path, ["day"])
    with pytest.raises(Exception, match="cast it to the dataset's type"):
        save(rows.selectExpr("cast(id as string) id", "day", "a"), path, ["day"])
    assert folders(client, path) == {"day=0": 1, "day=1": 1}


def test_an_executor_that_is_killed_costs_nothing(spark, client, save, gate, path):
    rows = by_day(numbers(spark, ROWS, gate, {(1, 0)}, 1))
    with beside(gate, save, rows, path, ["day"], distribution="none", sessionTimeout="1min") as job:
        executor = wait_held(gate, 1)
        wait_for(lambda: client.act("status")[0]["dirty_bytes"] > 100_000, what="rows of other tasks")
        assert not job.done() and not client.exists(path), "nothing is to be seen before the commit"
        kill(executor)
        open_gate(gate)
        job.result(400)
    assert_one_commit(client, path)
    assert {len(client.info(f"{path}/day={day}").endpoints) for day in range(DAYS)} == {TASKS}


def test_attempts_that_spark_does_not_know_of_do_not_count(spark, client, save, gate, path):
    """The executor of an attempt may be lost when the server has taken its rows of some folders and not of others: none of them count."""
    rows = by_day(numbers(spark, ROWS, gate, {(2, None)}, 1))
    with beside(gate, save, rows, path, ["day"], distribution="none", job="etl") as job:
        wait_held(gate, 2)

        def session():
            return json.loads(client.flight.get_flight_info(descriptor(f"{path}/day=3", follow=True, wait="60s")).app_metadata)["session"]

        lost = pa.table({"id": pa.array([-1], pa.int64()), "twice": pa.array([-1], pa.int64())}).to_batches()
        client.put(f"{path}/day=3", *lost, session=session(), task={"job": "etl", "stage": 0, "task": (2 << 32) + 99_999, "attempt": 99_999})
        open_gate(gate)
        job.result(240)
    assert_one_commit(client, path)


def test_a_job_that_fails_leaves_no_folder(spark, client, save, path):
    def dirty():
        return client.act("status")[0]["dirty_bytes"]

    rows, before = by_day(spark.range(0, 40_000, 1, 4)), dirty()
    with pytest.raises(Exception, match="this task never succeeds"):
        save(rows.mapInArrow(fails_late(), rows.schema), path, ["day"], distribution="none")
    assert not client.exists(path)
    wait_for(lambda: dirty() <= before, what="the space of what came to nothing")


def test_a_driver_that_is_killed_before_the_commit_leaves_no_folder(server, client, driver, tmp_path, path):
    # A driver's tasks hold after ten batches.
    first = driver(path, "folders=yes", "distribution=none", "sessionTimeout=3s", "hold=1", f"rows={5 * ROWS}")
    wait_held(tmp_path, 1)
    wait_for(lambda: client.act("status")[0]["dirty_bytes"] > 100_000, what="rows of other tasks")
    session = wait_for(lambda: live(client, f"{path}/day=0"), what="a session of a folder")
    assert not client.exists(path)
    first.kill()
    wait_for(lambda: live(client, f"{path}/day=0") is None, 60, "the end of the sessions")
    code, _, message = client.action("publish", {"session": session})
    assert code == "FAILED_PRECONDITION" and "aborted" in message
    assert not client.exists(path)
    (tmp_path / "gate").touch()
    driver(path, "folders=yes", f"rows={5 * ROWS}").end()
    assert_one_commit(client, path, 5 * ROWS)


def test_a_driver_that_is_killed_at_its_commit_leaves_all_folders_or_none(server, client, driver, killed_at_its_commit, path):
    job = ["folders=yes", "rows=70000", "master=local[2]", "save=ignore"]
    days = [f"{path}/day={day}" for day in range(DAYS)]
    sessions = []
    kept = ["distribution=none", "sessionTimeout=3s"]
    left = killed_at_its_commit(path, *job, *kept, before=lambda: sessions.extend(live(client, day) for day in days))
    if left == "nothing":
        assert None not in sessions, "the publish has not come to the server"
        wait_for(lambda: not any(live(client, day) for day in days), 60, "the end of the sessions")
        assert not client.exists(path)
    else:
        assert not any(sessions), "the publish was done before its answer was kept back"
        assert_one_commit(client, path, 70_000)
    driver(path, *job).end()
    assert_one_commit(client, path, 70_000)


class Onlooker(threading.Thread):
    """Asks again and again how many rows there are; `seen` has every answer, `None` where there was nothing."""

    def __init__(self, server, path):
        super().__init__(daemon=True)
        self.server, self.path, self.seen, self.over = server, path, set(), threading.Event()
        self.start()

    def run(self):
        with self.server.client() as client:
            while not self.over.wait(0.01):
                try:
                    self.seen.add(client.info(self.path).total_records)
                except pa.ArrowKeyError:
                    self.seen.add(None)

    def end(self):
        self.over.set()
        self.join(60)
        return self.seen


def test_millions_of_rows_are_there_once_whatever_dies(server, client, driver, tmp_path, path):
    """A driver dies before its commit. When the job runs again an executor dies, and a slow task is overtaken by its copy."""
    rows, folders = 3_000_000, [tmp_path / "first", tmp_path / "second"]
    onlooker = Onlooker(server, path)
    for folder in folders:
        folder.mkdir()
    with cluster.Standalone(tmp_path) as standalone:
        options = ["folders=yes", "distribution=none", f"rows={rows}", f"master={standalone.master}"]
        first = driver(path, "hold=1", "sessionTimeout=3s", *options, folder=folders[0])
        wait_held(folders[0], 1)
        wait_for(lambda: client.act("status")[0]["dirty_bytes"] > 100_000, what="rows of other tasks")
        first.kill()
        wait_for(lambda: live(client, f"{path}/day=0") is None, 60, "the end of the sessions")
        assert onlooker.seen == {None}
        second = driver(path, "first=1,5", *options, folder=folders[1])
        executor = wait_held(folders[1], 1)
        wait_held(folders[1], 5)
        kill(executor)
        second.end()
    assert not (folders[1] / "gate").exists(), "the first attempts have never gone on"
    assert_one_commit(client, path, rows)
    wait_for(lambda: rows in onlooker.seen, what="the commit at the onlooker")
    assert onlooker.end() == {None, rows}


def live(client, path):
    try:
        return json.loads(client.flight.get_flight_info(descriptor(path, follow=True)).app_metadata)["session"]
    except pa.ArrowKeyError:
        return None


def test_a_thousand_folders_are_one_step_and_more_are_refused(spark, client, save, path):
    save(spark.range(5000).selectExpr("id", "id % 1000 k"), path, ["k"])
    assert len(folders(client, path)) == 1000 and ids(client, path) == list(range(5000))
    with pytest.raises(Exception, match="1001 folders|more than 1000 folders"):
        save(spark.range(5000).selectExpr("id", "id % 1001 k"), path + "-more", ["k"])
    assert not client.exists(path + "-more")
