"""Datasets whose files or directory somebody touches by name, and tickets that are shown where another dataset is by then."""

import uuid

import pyarrow as pa
import pytest

from tests.harness import descriptor, protobuf


def rows(*ids):
    return pa.record_batch([pa.array(ids, pa.int64())], names=["id"])


def ids(client, path, **keys):
    return sorted(i for b in client.batches(path, **keys) for i in b.column("id").to_pylist())


@pytest.fixture
def path():
    return f"/touched/{uuid.uuid4().hex[:8]}"


def copied(client, source, target):
    for name in client.names(source):
        client.put_file(name.replace(source, target), client.file(name))
    return target


def test_a_copy_of_a_dataset_goes_on_from_what_was_copied(client, path):
    for k in range(3):
        client.put(path, rows(k))
    copy = copied(client, path, path + "-copy")
    client.put(copy, rows(9))
    assert ids(client, copy) == ids(client, copy, follow=True) == [0, 1, 2, 9]
    overwritten = copied(client, path, path + "-overwritten")
    client.put(overwritten, rows(9), mode="overwrite")
    assert (ids(client, overwritten), len(client.names(overwritten))) == ([9], 1)
    assert ids(client, path) == [0, 1, 2]


def test_a_dataset_is_whole_without_the_files_of_its_parts(client, path):
    for k in range(2):
        client.put(path, rows(k))
    for name in client.names(path):
        client.act("delete", path=name)
        assert ids(client, path) == [0, 1]
    client.put(path, rows(2))
    assert ids(client, path) == [0, 1, 2] and ids(client, path, version=2) == [0, 1]
    client.put(path, rows(9), mode="overwrite")
    assert ids(client, path) == [9] and ids(client, path, version=3) == [0, 1, 2]


def test_a_ticket_is_good_for_its_dataset_and_for_no_other_at_the_path(client, path):
    def shown(ticket):
        return client.call("DoGet", protobuf(_1=ticket.ticket))[0]

    def tickets(path):
        asked = [{"limit": 3}, {"follow": True}, {"follow": True, "from": "2:1"}, {"version": 2, "limit": 1}, {}]
        return [client.flight.get_flight_info(descriptor(path, **keys)).endpoints[0].ticket for keys in asked]

    def make(path, first):
        for k in range(2):
            client.put(path, rows(first + k))

    make(path, 0)
    mine = tickets(path)
    assert [shown(ticket) for ticket in mine] == ["OK"] * 5
    client.put(path, rows(2))
    assert [shown(ticket) for ticket in mine] == ["OK"] * 5
    client.act("delete", path=path, recursive=True)
    make(path, 500)
    # What was deleted with a directory is collected a little later.
    assert [shown(ticket) for ticket in mine[:4]] == ["NOT_FOUND"] * 4 and shown(mine[4]) in ("OK", "NOT_FOUND")

    # The same where another one was renamed to the path: only a part's ticket says by itself what it means.
    mine = tickets(path)
    make(path + "-other", 700)
    client.act("rename", **{"from": path, "to": path + "-old"})
    client.act("rename", **{"from": path + "-other", "to": path})
    assert [shown(ticket) for ticket in mine] == ["NOT_FOUND"] * 4 + ["OK"]
    assert [i for c in client.flight.do_get(mine[-1]) for i in c.data.column("id").to_pylist()] == [500]
