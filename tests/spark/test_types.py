"""Types: what Spark writes as Arrow has it, what others write as Spark has it, value by value."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyspark
import pytest

UTC = datetime.timezone.utc

# Spark's expression for rows 0 to 5 of which 3 is null, and the Arrow type that it is written as.
WRITTEN = {
    "bool": ("id % 2 = 0", pa.bool_()),
    "byte": ("cast(id - 3 as byte)", pa.int8()),
    "short": ("cast(id * 1000 as short)", pa.int16()),
    "int": ("cast(id * 100000 as int)", pa.int32()),
    "long": ("id * 10000000000", pa.int64()),
    "float": ("cast(id / 4 as float)", pa.float32()),
    "double": ("cast(id as double) / 3", pa.float64()),
    "decimal": ("cast(id * 7 as decimal(9, 2))", pa.decimal128(9, 2)),
    "wide": ("cast(concat('-1234567890123456789012345678', id, '.123456789') as decimal(38, 9))", pa.decimal128(38, 9)),
    "string": ("concat('ü', repeat('x', cast(id as int)))", pa.string()),
    "binary": ("cast(concat('b', cast(id as string)) as binary)", pa.binary()),
    "date": ("date_add(date'1969-12-30', cast(id as int))", pa.date32()),
    "time": ("timestamp_micros(id * 1000000000001 - 1)", pa.timestamp("us", "UTC")),
    "local": ("cast('2024-02-29 12:34:56.789012' as timestamp_ntz)", pa.timestamp("us")),
    "days": ("make_dt_interval(cast(id as int), 1, 2, 3.000004)", pa.duration("us")),
    "array": ("array(id, null, id + 1)", pa.list_(pa.int64())),
    "nested": ("array(array('a'), array(), null, array(cast(id as string), null))", pa.list_(pa.list_(pa.string()))),
    "struct": (
        "named_struct('a', id, 'b', named_struct('c', cast(id as string), 'd', array(id)))",
        pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.string()), ("d", pa.list_(pa.int64()))]))]),
    ),
    "map": ("map('k', id, cast(id as string), null)", pa.map_(pa.string(), pa.int64())),
    "structs": ("array(named_struct('x', id), null)", pa.list_(pa.struct([("x", pa.int64())]))),
    "nothing": ("null", pa.null()),
}
if pyspark.__version__ < "4":
    del WRITTEN["days"]  # Spark 3.5 saves no intervals


@pytest.fixture(scope="module")
def written(spark, server):
    columns = [f"if(id = 3, null, {sql}) `{name}`" if name != "nothing" else f"{sql} `{name}`" for name, (sql, _) in WRITTEN.items()]
    rows = spark.range(0, 6, 1, 2).selectExpr("id", *columns)
    rows.write.format("forebay").option("addr", server.flight).mode("append").save("/types/written")
    return rows.orderBy("id").collect()


@pytest.mark.parametrize("name", list(WRITTEN))
def test_what_spark_writes(written, read, client, name):
    table = client.table("/types/written", columns=["id", name])
    assert table.schema.field(name).type == WRITTEN[name][1]
    values, expected = table[name].to_pylist(), [row[name] for row in written]
    assert [plain(v) for v in values] == [plain(v) for v in expected], "as Arrow has it"
    assert [row[name] for row in read("/types/written").select("id", name).orderBy("id").collect()] == expected, "as it comes back"


def plain(value):
    """One form for what Spark and Arrow say in Python."""
    if hasattr(value, "asDict"):
        return {k: plain(v) for k, v in value.asDict().items()}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        # A map is a list of pairs in Arrow.
        pairs = value and all(isinstance(v, tuple) for v in value)
        return {k: plain(v) for k, v in value} if pairs else [plain(v) for v in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)
# What others write, the Spark type it is read as, and the values.
OTHERS = {
    "uint8": (pa.array([0, None, 255], pa.uint8()), "smallint", [0, None, 255]),
    "uint16": (pa.array([0, None, 65535], pa.uint16()), "int", [0, None, 65535]),
    "uint32": (pa.array([0, None, 2**32 - 1], pa.uint32()), "bigint", [0, None, 2**32 - 1]),
    "uint64": (pa.array([0, None, 2**64 - 1], pa.uint64()), "decimal(20,0)", [Decimal(0), None, Decimal(2**64 - 1)]),
    "half": (pa.array([np.float16(1.5), None, np.float16(-0.25)], pa.float16()), "float", [1.5, None, -0.25]),
    "large": (pa.array(["a", None, "ü" * 100], pa.large_string()), "string", ["a", None, "ü" * 100]),
    "view": (pa.array(["a", None, "ü" * 100], pa.string_view()), "string", ["a", None, "ü" * 100]),
    "bytes": (pa.array([b"a", None, b"\0" * 50], pa.large_binary()), "binary", [b"a", None, b"\0" * 50]),
    "fixed": (pa.array([b"abcd", None, b"\0\1\2\3"], pa.binary(4)), "binary", [b"abcd", None, b"\0\1\2\3"]),
    "date64": (pa.array([DAY, None, datetime.date(1960, 1, 2)], pa.date64()), "date", [DAY, None, datetime.date(1960, 1, 2)]),
    "seconds": (pa.array([NOON.replace(microsecond=0), None, None], pa.timestamp("s")), "timestamp_ntz", [NOON.replace(microsecond=0), None, None]),
    "millis": (pa.array([1700000000123, None, -1], pa.timestamp("ms", "UTC")), "timestamp", [1700000000123000, None, -1000]),
    "nanos": (pa.array([1700000000123456789, None, -1], pa.timestamp("ns", "UTC")), "timestamp", [1700000000123456, None, -1]),
    "duration": (pa.array([1500, None, -1], pa.duration("ms")), "interval day to second", [datetime.timedelta(seconds=1.5), None, -datetime.timedelta(milliseconds=1)]),
    "wide": (pa.array([Decimal("1.23"), None, Decimal("-9.99")], pa.decimal256(30, 2)), "decimal(30,2)", [Decimal("1.23"), None, Decimal("-9.99")]),
    "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), "string", ["a", None, "b"]),
    "embedding": (pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32(), 2)), "array<float>", [[1.0, 2.0], None, [3.0, None]]),
    "largelist": (pa.array([[1], None, []], pa.large_list(pa.int32())), "array<int>", [[1], None, []]),
    "dictionaries": (
        pa.ListArray.from_arrays(pa.array([0, 2, 2, 3]), pa.array(["x", "y", "x"]).dictionary_encode()),
        "array<string>",
        [["x", "y"], [], ["x"]],
    ),
    "map": (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())), "map<string,tinyint>", [{"k": 1}, None, {}]),
}


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_what_others_write(read, client, name, compression):
    values, spark_type, expected = OTHERS[name]
    path = f"/types/others/{name}-{compression}"
    client.put(path, pa.record_batch([pa.array([0, 1, 2]), values], names=["id", "it"]), compression=compression)
    df = read(path)
    assert dict(df.dtypes)["it"] == spark_type
    column = "unix_micros(it) it" if spark_type == "timestamp" else "it"
    assert [row.it for row in df.orderBy("id").selectExpr(column).collect()] == expected
    assert df.where("it is null").count() == expected.count(None)


@pytest.mark.parametrize("values", [pa.array([1], pa.time64("us")), pa.array([(1, 2, 3)], pa.month_day_nano_interval())])
def test_what_spark_has_no_type_for_is_refused_by_name(read, client, path, values):
    client.put(path, pa.record_batch([values], names=["odd"]))
    with pytest.raises(Exception, match='column "odd" is of Arrow type'):
        read(path)


@pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3.5 has no variants")
def test_what_is_not_written_is_refused_by_name(spark, write, client, path):
    with pytest.raises(Exception, match='column "v" is of type variant'):
        write(spark.sql("select parse_json('{}') v"), path)
    assert not client.exists(path)
