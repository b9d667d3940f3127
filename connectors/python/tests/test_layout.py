"""Where rows lie, with a server that says how much each part holds and one that does not; asked as little as can be."""

import json

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from forebay.address import Address, Options
from forebay.connection import Connection
from forebay.layout import Layout

PARTS = [[3, 4], [1, 0, 5], [10]]
ROWS = 23


class Stand(fl.FlightServerBase):
    """As much of a server as a layout asks. Counts the rows that it sends with columns and the parts that it counts without."""

    def __init__(self, told, empty_batches):
        super().__init__("grpc://127.0.0.1:0")
        self.told, self.sent, self.counted = told, 0, []
        self.parts, at = [], 0
        for sizes in PARTS:
            self.parts.append([])
            for size in sizes:
                self.parts[-1].append(pa.record_batch([pa.array(range(at, at + size), pa.int64())], names=["id"]))
                at += size
        self.empty_batches = empty_batches

    def get_flight_info(self, context, descriptor):
        keys = json.loads(descriptor.command)
        skip = int(keys["from"].split(":")[1]) if keys.get("from") else 0
        columns, endpoints = keys.get("columns"), []
        for part, batches in enumerate(self.parts):
            skipped = min(skip, len(batches))
            skip -= skipped
            if skipped == len(batches):
                continue
            note = {"rows": sum(b.num_rows for b in batches), "batches": len(batches)} if self.told and not skipped else None
            ticket = json.dumps({"part": part, "skip": skipped, "columns": columns})
            endpoints.append(fl.FlightEndpoint(ticket, [], None, json.dumps(note).encode() if note else b""))
        schema = pa.schema([] if columns == [] else [("id", pa.int64())])
        note = json.dumps({"version": 1, "batches": sum(map(len, PARTS))}).encode()
        return fl.FlightInfo(schema, descriptor, endpoints, ROWS if not keys.get("from") else -1, -1, True, note)

    def do_get(self, context, ticket):
        told = json.loads(ticket.ticket)
        batches = self.parts[told["part"]][told["skip"] :]
        if told["columns"] == []:
            self.counted.append(told["part"])
            batches = [b.select([]) for b in batches if b.num_rows or self.empty_batches]
        return fl.GeneratorStream(batches[0].schema, self.sending(batches, told["columns"] != []))

    def sending(self, batches, is_read):
        for batch in batches:
            self.sent += batch.num_rows if is_read else 0
            yield batch


@pytest.fixture(
    params=[(True, True), (True, False), (False, True), (False, False)],
    ids=["told", "told, empty left out", "not told", "not told, empty left out"],
)
def stand(request):
    with Stand(*request.param) as server:
        yield server


@pytest.fixture
def layout(stand):
    return Layout(Connection(Address(f"grpc+tcp://127.0.0.1:{stand.port}"), Options()), "/x", 1, None, None)


def test_any_range_is_read(layout):
    assert layout.rows == ROWS
    for start in range(ROWS + 1):
        for end in range(start, ROWS + 1):
            assert [i for batch in layout.read(start, end) for i in batch["id"].to_pylist()] == list(range(start, end))


def test_a_row_s_place(layout):
    assert [layout.place_of(row) for row in (0, 6, 7, 12, 13, 22)] == [(0, 0), (0, 6), (1, 0), (1, 5), (2, 0), (2, 9)]


def test_only_the_part_of_the_first_row_is_counted_where_the_others_are_told(stand, layout):
    assert len(list(layout.read(9, 10))) == 1
    if stand.told and stand.empty_batches:
        assert stand.counted == [1] and stand.sent <= 5, "from its very batch on"
    if stand.told:
        stand.counted.clear()
        list(layout.read(7, 8))
        assert stand.counted == [], "the first row of a part needs no count"
