"""Where rows lie, with a server that says how much each part holds and one that does not; asked as little as can be."""

import contextlib
import json
import threading
import time

import forebay.layout
import pyarrow as pa
import pyarrow.flight as fl
import pytest
from forebay.address import Address, Options
from forebay.connection import Connection
from forebay.layout import Layout
from forebay.reading import EndpointStream

PARTS = [[3, 4], [1, 0, 5], [10]]
ROWS = 23


class Stand(fl.FlightServerBase):
    """As much of a server as a layout asks. Counts the rows that it sends with columns and the parts that it counts without."""

    def __init__(self, told, empty_batches, parts=PARTS):
        super().__init__("grpc://127.0.0.1:0")
        self.told, self.sent, self.counted = told, 0, []
        self.asked = [threading.Event() for _ in parts]
        self.parts, at = [], 0
        for sizes in parts:
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
        if told["columns"] != []:
            self.asked[told["part"]].set()
        else:
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


def layout_of(stand, **options):
    return Layout(Connection(Address(f"grpc+tcp://127.0.0.1:{stand.port}"), Options()), "/x", 1, None, None, **options)


@pytest.fixture
def layout(stand):
    return layout_of(stand)


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


def test_the_next_part_is_asked_for_before_this_one_is_consumed_and_the_one_behind_the_range_never():
    with Stand(True, True) as stand, contextlib.closing(layout_of(stand).read(5, 8)) as rows:
        first = next(rows)
        assert first["id"].to_pylist() == [5, 6] and stand.asked[1].wait(10), "nobody has asked for a second batch"
        assert [i for batch in rows for i in batch["id"].to_pylist()] == [7]
        assert not stand.asked[2].is_set()


@pytest.mark.parametrize("bound", [0, 5])
def test_what_is_read_ahead_is_bounded(monkeypatch, bound):
    size, taken = 1 << 10, []

    class Counted(EndpointStream):
        def __next__(self):
            chunk = super().__next__()
            taken.append(chunk)
            return chunk

    monkeypatch.setattr(forebay.layout, "EndpointStream", Counted)
    with Stand(True, True, [[size] * 40] * 3) as stand:
        with contextlib.closing(layout_of(stand, bytes_ahead=bound * size * 8).read(0, 120 * size)) as rows:
            next(rows)
            before = -1
            while before != len(taken):
                before = len(taken)
                time.sleep(0.3)
            # The one that was given, those that are kept, and one in the hand of each stream.
            assert bound < len(taken) <= 1 + max(bound, 1) + 2
            assert sum(batch.num_rows for batch in rows) == 119 * size and len(taken) == 120


def test_a_reader_that_is_left_in_the_middle_leaves_no_thread(layout):
    rows = layout.read(0, ROWS)
    next(rows)
    rows.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "forebay-read"]
