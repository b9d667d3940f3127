"""Reads: what the server does of a query, and that it makes no difference to the answer."""

import random

import pyarrow as pa
import pytest


@pytest.fixture(scope="module")
def words(server, spark):
    """A dataset of three versions and eleven parts with nulls, quotes and odd names, and the same rows as Spark has them."""
    path = "/read/words"
    rows = spark.range(0, 60_000, 1, 5).selectExpr(
        "id",
        "if(id % 7 = 0, null, cast(id % 100 as int)) small",
        "if(id % 11 = 0, null, concat('w', cast(id % 50 as string), if(id % 3 = 0, '''', '%_ü'))) `a \"word\"`",
        "if(id % 13 = 0, null, date_add(date'2020-01-01', cast(id % 400 as int))) day",
        "if(id % 17 = 0, null, timestamp_micros(1600000000000000 + id * 1000001)) at",
        "if(id % 5 = 0, null, cast(id % 1000 as decimal(9,2)) / 4) price",
        "id % 2 = 0 even",
        "if(id % 9 = 0, double('NaN'), cast(id % 10 - 5 as double)) x",
    )
    rows = rows.withColumn("price", rows.price.cast("decimal(12,3)"))
    for part in (rows.where("id < 20000"), rows.where("id >= 20000 and id < 40000"), rows.where("id >= 40000").coalesce(1)):
        part.write.format("forebay").option("addr", server.flight).mode("append").save(path)
    return path, rows


def plan(df):
    return df._jdf.queryExecution().executedPlan().toString()


def test_what_is_read_is_what_was_written(words, read):
    path, rows = words
    there = read(path)
    assert there.schema.simpleString() == rows.schema.simpleString()
    assert there.count() == 60_000
    assert there.exceptAll(rows).count() == 0 and rows.exceptAll(there).count() == 0


def test_a_partition_for_each_part(words, read, client):
    path, _ = words
    [*_, last] = client.act("versions", path=path)
    assert read(path).rdd.getNumPartitions() == last["parts"]


def test_only_the_columns_asked_for_come(words, read):
    path, _ = words
    query = read(path).select("small", "id")
    assert "columns [id, small]" in plan(query)
    assert sorted(r.id for r in query.where("id < 3").collect()) == [0, 1, 2]


def test_a_count_reads_no_column(words, read):
    path, _ = words
    query = read(path).groupBy().count()
    assert "columns []" in plan(query)
    assert query.collect()[0][0] == 60_000


PUSHED = [
    ("id = 17", '"id" = 17'),
    ("id > 59990 or id < 3", "OR"),
    ("small in (1, 2, 3)", '"small" IN (1, 2, 3)'),
    ("not (small = 5)", '"small" = 5'),
    ("small <=> 5", "IS NOT DISTINCT FROM"),
    ("small is null and id > 100", '"small" IS NULL'),
    ("`a \"word\"` = 'w3\\''", "w3''"),
    ("`a \"word\"` like 'w1%'", "starts_with"),
    ("`a \"word\"` like '%ü'", "ends_with"),
    ("contains(`a \"word\"`, '%_')", "contains("),
    ("day between date'2020-02-01' and date'2020-02-03'", "CAST('2020-02-01' AS DATE)"),
    ("at >= timestamp'2020-09-14 01:00:00' and at < timestamp'2020-09-14 01:05:00'", "AS TIMESTAMP(6))"),
    ("price = 3.750", "AS DECIMAL(12, 3)"),
    ("even", '"even" = true'),
    ("-3 < small", '"small" > -3'),
]


@pytest.mark.parametrize(("condition", "says"), PUSHED)
def test_what_translates_is_filtered_by_the_server(words, read, condition, says):
    path, rows = words
    query = read(path).where(condition)
    assert says in plan(query) and " Filter " not in plan(query), plan(query)
    assert sorted(r.id for r in query.collect()) == sorted(r.id for r in rows.where(condition).collect())


@pytest.mark.parametrize("condition", ["x > 0", "x = 'NaN'", "x < 1 or id < 10", "id % 3 = 1", "length(`a \"word\"`) = 3", "`a \"word\"` like 'w_\\''"])
def test_what_does_not_translate_exactly_stays_with_spark(words, read, condition):
    path, rows = words
    query = read(path).where(condition)
    assert " Filter " in plan(query)
    assert sorted(r.id for r in query.collect()) == sorted(r.id for r in rows.where(condition).collect())


def test_random_conditions_make_no_difference(words, read):
    path, rows = words
    chance = random.Random(7)
    kept, there = rows.select("id", "small", "day", "price", "even", rows['`a "word"`'].alias("word")), read(path)
    there = there.select("id", "small", "day", "price", "even", there['`a "word"`'].alias("word"))

    def leaf():
        return chance.choice(
            [
                f"small {chance.choice(['=', '<', '>=', '<>', '<=>'])} {chance.randint(-5, 105)}",
                f"day {chance.choice(['=', '<', '>='])} date'2020-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}'",
                f"price {chance.choice(['=', '<', '>'])} {chance.randint(0, 1000) / 4:.3f}",
                f"word {chance.choice(['=', '<', '>'])} 'w{chance.randint(0, 50)}'''",
                f"id in ({chance.randint(0, 60000)}, {chance.randint(0, 60000)})",
                "even",
                f"{chance.choice(['small', 'day', 'price', 'word'])} is {chance.choice(['', 'not '])}null",
            ]
        )

    def condition(depth):
        if depth == 0:
            return leaf()
        kind = chance.choice(["and", "or", "not", "leaf"])
        if kind == "not":
            return f"not ({condition(depth - 1)})"
        return leaf() if kind == "leaf" else f"({condition(depth - 1)}) {kind} ({condition(depth - 1)})"

    for _ in range(12):
        sql = condition(3)
        a, b = (df.where(sql).selectExpr("count(*)", "sum(id)", "sum(small)").collect() for df in (there, kept))
        assert a == b, sql


def test_a_limit_ends_at_the_server(words, read):
    path, _ = words
    query = read(path).limit(7)
    assert "limit 7" in plan(query) and "GlobalLimit" not in plan(query)
    assert len(query.collect()) == 7
    assert read(path).where("small = 3").limit(5).count() == 5
    assert read(path).where("id < 4").limit(10).count() == 4


def test_statistics_are_told(words, read, spark):
    path, _ = words
    # Spark 4.3 looks at the rows only with this.
    spark.conf.set("spark.sql.cbo.enabled", "true")
    stats = read(path)._jdf.queryExecution().optimizedPlan().stats()
    spark.conf.unset("spark.sql.cbo.enabled")
    assert stats.rowCount().get() == 60_000
    whole, one = int(str(stats.sizeInBytes())), read(path).select("id")._jdf.queryExecution().optimizedPlan().stats()
    assert 60_000 * 20 < whole < 60_000 * 400
    assert 0 < int(str(one.sizeInBytes())) < whole / 2


def test_a_query_reads_one_version_and_old_ones_can_be_named(words, read, spark, write, path):
    write(spark.range(10), path)
    query = read(path)
    first = query.count()
    write(spark.range(10, 30), path)
    assert (first, query.count(), read(path, version="1").count(), read(path, version="2").count()) == (10, 30, 10, 30)
    with pytest.raises(Exception, match="version 9 is not kept"):
        read(path, version="9")
    with pytest.raises(Exception, match="option version"):
        read(path, version="old")


def test_what_is_not_there_is_told_by_name(read):
    with pytest.raises(Exception, match="NOT_FOUND.*/nothing/here: not found"):
        read("/nothing/here")


def test_a_read_may_wait_for_a_dataset(read, client, server, path):
    import threading

    def later():
        with server.client() as other:
            other.put(path, pa.record_batch([[1, 2]], names=["id"]))

    timer = threading.Timer(1.5, later)
    timer.start()
    assert read(path, wait="30s").count() == 2
    timer.join()


def test_a_join_and_an_aggregate(words, read):
    path, rows = words
    there = read(path)
    joined = there.where("small < 10").join(there.where("id < 1000").select("small", "price").distinct(), "small").groupBy("small").count()
    expected = rows.where("small < 10").join(rows.where("id < 1000").select("small", "price").distinct(), "small").groupBy("small").count()
    assert sorted(joined.collect()) == sorted(expected.collect())


def test_files_of_others_are_read(read, client, server, path):
    client.put(path, pa.record_batch([[1, 2, 3]], names=["id"]))
    [part] = client.names(path)
    content = client.file(part)
    client.put_file(f"{path}-files/data.arrow", content)
    assert sorted(r.id for r in read(f"{path}-files").collect()) == [1, 2, 3]
    assert [r.id for r in read(f"{path}-files/data.arrow").where("id = 2").collect()] == [2]


def test_a_schema_that_is_said_must_fit(words, server, spark, read):
    path, _ = words

    def with_schema(schema):
        return spark.read.format("forebay").option("addr", server.flight).schema(schema).load(path)

    assert with_schema("small int, id bigint").where("id = 8").collect()[0].asDict() == {"small": 8, "id": 8}
    with pytest.raises(Exception, match='no column "id" of type string'):
        with_schema("id string").collect()
