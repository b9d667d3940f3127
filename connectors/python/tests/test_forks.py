"""Forks: the child works, or says at once why it can not; it never hangs. The parent goes on in any case."""

import os
import signal
import time

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import forebay
from forebay import connection as module

ROWS = pa.table({"n": range(1000)})


def in_child(work):
    """What `work` answers, or the text of its error, from a forked process; "hangs" after 20 seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer or "hangs"


@pytest.fixture
def count(client, path):
    client.put(path, ROWS)
    return lambda: client.read(path).num_rows


def test_the_child_opens_connections_of_its_own_and_the_parent_new_ones(client, count, path):
    for _ in range(5):
        assert count() == 1000
        assert in_child(count) == "1000"
        assert in_child(lambda: sum(batch.num_rows for batch in client.scan(path))) == "1000"
    assert in_child(lambda: in_child(count)) == "1000", "a child of a child"
    assert in_child(lambda: (client.put(path, ROWS), count())[1]) == "2000" and count() == 2000


def test_an_open_stream_refuses_the_child_and_nobody_else(client, count, path):
    stream = client.scan(path, parallel=1)
    next(stream)
    assert in_child(count).startswith("FailedPrecondition: this process was forked while a stream from Forebay was open")
    assert list(stream) == [] and count() == 1000
    assert in_child(count) == "1000"


def test_errors_that_are_kept_keep_nothing_open(client, count, path):
    kept = []
    for fail in (
        lambda: client.read(path, filter="n >"), lambda: list(client.scan(path + "-nix")), lambda: client.put(path, {"m": [1]}),
        lambda: client.put(path, (ROWS if k else 1 / 0 for k in (1, 0))), lambda: client.act("frobnicate"), lambda: client.follow(path + "-nix"),
        lambda: client.read_bytes(path),
    ):  # fmt: skip
        with pytest.raises(Exception) as caught:
            fail()
        kept.append(caught)
        assert in_child(count) == "1000", caught.value


def test_a_flight_client_of_the_program_s_own(server, client, count, monkeypatch):
    monkeypatch.setattr(module, "_GRPC_ENDS_WITHIN", 0.3)
    own = fl.connect(server.flight)
    list(own.list_flights())
    count()
    assert in_child(count).startswith("FailedPrecondition: this process was forked while something else in it used pyarrow.flight")
    own.close()
    del own
    assert count() == 1000 and in_child(count) == "1000"


def test_another_library_s_grpc_is_none_of_our_business(server, count):
    with grpc.insecure_channel(server.flight.split("://")[1]) as channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/ListActions")
        list(call(iter([b""]), timeout=10))
        count()
        begin = time.monotonic()
        module._before_fork()
        module._after_fork_in_parent()
        assert time.monotonic() - begin < 2 and sum(module._runtimes(module._threads())) == 1


def test_a_fork_without_a_connection_costs_nothing():
    begin = time.monotonic()
    assert in_child(lambda: 7) == "7" and time.monotonic() - begin < 1
