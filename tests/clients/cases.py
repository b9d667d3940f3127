"""What Arrow's integration tests generate, by name: every type that pyarrow can build, with nulls, in batches of unequal length."""

import datetime
import decimal
import random
import string

import pyarrow as pa

LENGTHS = (7, 10, 0, 3)


def sequence(kind, length, chance):
    """An array of a type; each fourth value is missing."""
    return pa.array([None if chance.random() < 0.25 else value(kind, chance) for _ in range(length)], kind)


def value(kind, chance):
    is_ = pa.types
    if is_.is_null(kind):
        return None
    if is_.is_boolean(kind):
        return chance.random() < 0.5
    if is_.is_signed_integer(kind):
        return chance.randrange(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1))
    if is_.is_unsigned_integer(kind):
        return chance.randrange(2**kind.bit_width)
    if is_.is_floating(kind):
        return chance.randrange(-1000, 1000) / 8
    if is_.is_decimal(kind):
        return decimal.Decimal(chance.randrange(-(10 ** (kind.precision - 1)), 10 ** (kind.precision - 1))).scaleb(-kind.scale, decimal.Context(prec=80))
    if is_.is_fixed_size_binary(kind):
        return chance.randbytes(kind.byte_width)
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind):
        return chance.randbytes(chance.randrange(30))
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "".join(chance.choices(string.ascii_letters + "äλ🙂", k=chance.randrange(30)))
    if is_.is_date(kind):
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=chance.randrange(-30_000, 30_000))
    if is_.is_time(kind):
        return datetime.time(chance.randrange(24), chance.randrange(60), chance.randrange(60))
    if is_.is_timestamp(kind) or is_.is_duration(kind):
        return chance.randrange(-(10**9), 10**9)
    if is_.is_interval(kind):
        return pa.MonthDayNano([chance.randrange(-100, 100), chance.randrange(-100, 100), chance.randrange(-(10**12), 10**12)])
    if is_.is_map(kind):
        return [(value(kind.key_type, chance), value(kind.item_type, chance)) for _ in range(chance.randrange(4))]
    if is_.is_fixed_size_list(kind):
        return [value(kind.value_type, chance) for _ in range(kind.list_size)]
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_list_view(kind) or is_.is_large_list_view(kind):
        return [None if chance.random() < 0.25 else value(kind.value_type, chance) for _ in range(chance.randrange(4))]
    if is_.is_struct(kind):
        return {field.name: value(field.type, chance) for field in kind}
    raise NotImplementedError(kind)


def columns(*kinds, lengths=LENGTHS, metadata=None):
    """Batches of columns of these types."""
    chance = random.Random(str(kinds))
    schema = pa.schema([pa.field(f"c{k}_{kind}".split("<")[0].split("[")[0], kind) for k, kind in enumerate(kinds)], metadata=metadata)
    return schema, [pa.record_batch([sequence(kind, n, chance) for kind in kinds], schema=schema) for n in lengths]


def encoded(index, values):
    """A dictionary encoded column in batches, by one dictionary for all of them."""
    chance, dictionary = random.Random(str(index)), pa.array(values)
    kind = pa.dictionary(index, dictionary.type)
    return [pa.DictionaryArray.from_arrays(sequence_of_indices(index, n, len(values), chance), dictionary) for n in LENGTHS], kind


def sequence_of_indices(index, length, count, chance):
    return pa.array([None if chance.random() < 0.25 else chance.randrange(count) for _ in range(length)], index)


def dictionaries(*indices):
    found = [encoded(index, values) for index, values in zip(indices, (["foo", "bar", "", "λ"], [50, -60, 7], ["x" * 40, "y"]), strict=True)]
    schema = pa.schema([pa.field(f"dict{k}", kind) for k, (_, kind) in enumerate(found)])
    return schema, [pa.record_batch([arrays[b] for arrays, _ in found], schema=schema) for b in range(len(LENGTHS))]


def nested_dictionaries():
    arrays, kind = encoded(pa.int32(), ["a", "b", "c"])
    schema = pa.schema([("list", pa.list_(kind)), ("struct", pa.struct([("d", kind), ("n", pa.int8())]))])
    batches = []
    for array in arrays:
        offsets = pa.array(range(len(array) + 1), pa.int32())
        struct = pa.StructArray.from_arrays([array, pa.array(range(len(array)), pa.int8())], fields=list(schema.field("struct").type))
        batches.append(pa.record_batch([pa.ListArray.from_arrays(offsets, array), struct], schema=schema))
    return schema, batches


def unions():
    batches, kinds = [], [pa.int32(), pa.string()]
    for n in LENGTHS:
        chance = random.Random(n)
        types = pa.array([chance.randrange(2) for _ in range(n)], pa.int8())
        sparse = pa.UnionArray.from_sparse(types, [sequence(kind, n, chance) for kind in kinds], ["i", "s"], [0, 1])
        places = [0, 0]
        offsets = []
        for each in types.to_pylist():
            offsets.append(places[each])
            places[each] += 1
        children = [sequence(kind, count, chance) for kind, count in zip(kinds, places, strict=True)]
        dense = pa.UnionArray.from_dense(types, pa.array(offsets, pa.int32()), children, ["i", "s"], [0, 1])
        batches.append(pa.record_batch([sparse, dense], names=["sparse", "dense"]))
    return batches[0].schema, batches


def run_ends():
    """Columns whose runs end in the middle; a run of nulls among them."""
    def array(kind, n):
        ends = sorted({1, (n + 1) // 2, n} - {0}) if n else []
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind), pa.array(["a", None, "c"][: len(ends)], pa.string()))

    batches = [pa.record_batch([array(kind, n) for kind in (pa.int16(), pa.int32(), pa.int64())], names=["r16", "r32", "r64"]) for n in LENGTHS]
    return batches[0].schema, batches


def metadata():
    schema = pa.schema([pa.field("a", pa.int8(), metadata={"key": "value", "λ": ""}), pa.field("b", pa.string(), nullable=False)], metadata={"of": "the schema"})
    return schema, [pa.record_batch([pa.array([1, None], pa.int8()), pa.array(["x", "y"])], schema=schema)]


def duplicate_names():
    schema = pa.schema([("ints", pa.int8()), ("ints", pa.int32()), ("struct", pa.struct([("", pa.int32()), ("", pa.float64())]))])
    struct = pa.StructArray.from_arrays([pa.array([1, 2], pa.int32()), pa.array([0.5, None])], fields=list(schema.field(2).type))
    return schema, [pa.record_batch([pa.array([1, 2], pa.int8()), pa.array([3, None], pa.int32()), struct], schema=schema)]


def extension():
    chance = random.Random(1)
    storage = pa.array([chance.randbytes(16), None, chance.randbytes(16)], pa.binary(16))
    batch = pa.record_batch([pa.ExtensionArray.from_storage(pa.uuid(), storage)], names=["uuids"])
    return batch.schema, [batch]


NUMBERS = (pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64())
PRIMITIVE = (*NUMBERS, pa.binary(), pa.string(), pa.binary(19), pa.binary(120))
UNITS = ("s", "ms", "us", "ns")

# name → (schema, batches)
CASES = {
    "primitive": lambda: columns(*PRIMITIVE),
    "primitive_no_batches": lambda: columns(*PRIMITIVE, lengths=()),
    "primitive_zerolength": lambda: columns(*PRIMITIVE, lengths=(0, 0, 0)),
    "primitive_large_offsets": lambda: columns(pa.large_binary(), pa.large_string()),
    "half_floats": lambda: columns(pa.float16()),
    "null": lambda: columns(pa.null(), pa.int32(), pa.null()),
    "null_trivial": lambda: columns(pa.null(), lengths=(0, 10)),
    "decimal": lambda: columns(*(pa.decimal128(p, 2) for p in (3, 7, 18, 38))),
    "decimal256": lambda: columns(*(pa.decimal256(p, 5) for p in (37, 50, 70))),
    "decimal32_64": lambda: columns(pa.decimal32(7, 2), pa.decimal64(18, 3)),
    "datetime": lambda: columns(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
                                *map(pa.timestamp, UNITS), *(pa.timestamp(u, z) for u, z in zip(UNITS, ("UTC", "America/New_York", "Europe/Paris", "+07:30")))),
    "duration": lambda: columns(*map(pa.duration, UNITS)),
    "interval_mdn": lambda: columns(pa.month_day_nano_interval()),
    "map": lambda: columns(pa.map_(pa.string(), pa.int32()), pa.map_(pa.int64(), pa.list_(pa.string()))),
    "nested": lambda: columns(pa.list_(pa.int32()), pa.list_(pa.int32(), 4), pa.struct([("a", pa.int32()), ("b", pa.string())])),
    "recursive_nested": lambda: columns(pa.list_(pa.list_(pa.int16())), pa.list_(pa.struct([("a", pa.int16()), ("b", pa.list_(pa.string()))]))),
    "nested_large_offsets": lambda: columns(pa.large_list(pa.int32()), pa.large_list(pa.large_list(pa.int16()))),
    "list_view": lambda: columns(pa.list_view(pa.int32()), pa.large_list_view(pa.int32())),
    "binary_view": lambda: columns(pa.binary_view(), pa.string_view()),
    "dictionary": lambda: dictionaries(pa.int8(), pa.int32(), pa.int16()),
    "dictionary_unsigned": lambda: dictionaries(pa.uint8(), pa.uint16(), pa.uint32()),
    "nested_dictionary": nested_dictionaries,
    "union": unions,
    "run_end_encoded": run_ends,
    "custom_metadata": metadata,
    "duplicate_fieldnames": duplicate_names,
    "extension": extension,
}
