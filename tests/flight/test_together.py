"""One publish of sessions of several datasets: one instant for readers, all or nothing, and what is refused. With the stock client."""

import threading
import uuid

import pyarrow as pa
import pytest

DAYS = ("day=1", "day=2", "day=3")


def rows(*numbers):
    return pa.record_batch([pa.array(numbers, pa.int64())], names=["n"])


@pytest.fixture
def table():
    return f"/t/{uuid.uuid4().hex[:8]}"


def staged(client, table, *numbers, folders=DAYS, **keys):
    """A session for each folder, with the same rows."""
    sessions = []
    for folder in folders:
        [begun] = client.act("begin", path=f"{table}/{folder}", **keys)
        if numbers:
            client.put(f"{table}/{folder}", rows(*numbers), session=begun["session"])
        sessions.append(begun["session"])
    return sessions


def publish(client, sessions, **keys):
    [answer] = client.act("publish", session=sessions[0], **{"with": sessions[1:]}, **keys)
    return answer


def found(client, path, **keys):
    return sorted(n for b in client.batches(path, **keys) for n in b.column("n").to_pylist())


def test_versions_of_several_datasets_appear_in_one_instant_and_twice_the_same(client, other, server, table):
    sessions = staged(client, table, 1, 2)
    assert not other.exists(table)
    answer = publish(client, sessions, success_file=True)
    versions = [{"path": f"{table}/{day}", "session": s, "version": 1} for day, s in zip(DAYS, sessions)]
    assert answer == {"version": 1, "versions": versions}
    assert found(other, table) == [1, 1, 1, 2, 2, 2]
    assert all(other.exists(f"{table}/{day}/_SUCCESS") for day in DAYS)
    assert publish(client, sessions) == answer
    assert client.act("publish", session=sessions[1]) == [{"version": 1}], "alone it is asked for as ever"


def test_each_session_has_its_own_mode(client, table):
    publish(client, staged(client, table, 1))
    append = staged(client, table, 2, folders=DAYS[:1])
    overwrite = staged(client, table, 3, folders=DAYS[1:2], mode="overwrite")
    empty = staged(client, table, folders=DAYS[2:], mode="overwrite")
    publish(client, append + overwrite + empty)
    assert [found(client, f"{table}/{day}") for day in DAYS] == [[1, 2], [3], []]
    assert found(client, table) == [1, 2, 3]


def test_attempts_are_named_for_each_session(client, table):
    def attempt(task, attempt):
        return {"job": "j", "stage": 0, "task": task, "attempt": attempt}

    sessions = staged(client, table, folders=DAYS[:2])
    for day, session in zip(DAYS, sessions):
        for task in (0, 1):
            client.put(f"{table}/{day}", rows(task), session=session, task=attempt(task, 7))
    named = {"session": sessions[1], "tasks": [attempt(1, 7)]}
    [answer] = client.act("publish", session=sessions[0], tasks=[attempt(0, 7)], **{"with": [named]})
    assert [made["version"] for made in answer["versions"]] == [1, 1]
    assert [found(client, f"{table}/{day}") for day in DAYS[:2]] == [[0], [1]]


def test_where_one_can_not_be_published_none_is(client, table):
    sessions = staged(client, table, 1)

    def refused(sessions, code, text, **keys):
        got, _, message = client.action("publish", {"session": sessions[0], "with": sessions[1:], **keys})
        assert got == code and text in message, message
        assert not client.exists(table)

    refused([*sessions, "nosuchsession"], "NOT_FOUND", "nosuchsession")
    refused([*sessions, sessions[0]], "INVALID_ARGUMENT", "named twice")
    refused([sessions[0], *sessions[1:] * 500], "INVALID_ARGUMENT", "at most 1000")
    refused([sessions[0], {"session": sessions[1], "task": []}], "INVALID_ARGUMENT", "SESSION or {session, tasks}")
    aborted = staged(client, table, 1, folders=["day=4"])
    client.act("abort", session=aborted[0])
    refused(sessions + aborted, "FAILED_PRECONDITION", "was aborted")
    client.act("publish", session=sessions[2])
    code, _, message = client.action("publish", {"session": sessions[0], "with": sessions[1:]})
    assert code == "FAILED_PRECONDITION" and "published already" in message
    assert not client.exists(f"{table}/day=1")
    publish(client, sessions[:2])
    assert found(client, table) == [1, 1, 1]


def test_a_reader_of_the_table_never_sees_a_part_of_a_publish(client, server, table):
    publish(client, staged(client, table, 0))
    over, torn, reads = threading.Event(), [], 0

    def look():
        nonlocal reads
        with server.client() as reader:
            while not over.is_set():
                seen = found(reader, table)
                torn.extend(n for n in set(seen) if seen.count(n) != 3)
                reads += 1

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(1, 25):
        publish(client, staged(client, table, n))
    over.set()
    for reader in readers:
        reader.join()
    assert reads > 10 and torn == []
    assert found(client, table) == sorted(list(range(25)) * 3)


def test_a_filter_on_folders_leaves_the_others_out(client, table):
    publish(client, staged(client, table, 1, 2, folders=("day=1", "day=2", "day=__HIVE_DEFAULT_PARTITION__")))

    def endpoints(filter):
        return len(client.info(table, filter=filter).endpoints)

    for filter, left, expected in [
        ("day = '1'", 1, [1, 2]),
        ("day IN ('1', '2') AND n = 2", 2, [2, 2]),
        ("n = 1", 3, [1, 1, 1]),
        ("day IS NULL", 1, [1, 2]),
        ("day <> '1'", 1, [1, 2]),
        ("day = '1' OR n = 2", 3, [1, 2, 2, 2]),
        ("CAST(day AS INT) = 2", 1, [1, 2]),
        ("day = 'x'", 0, []),
    ]:
        assert (endpoints(filter), found(client, table, filter=filter)) == (left, expected), filter
