"""Followers: batches while they are written, each once and in order, over restarts, publishes and lost connections."""

import threading
import time

import forebay
import pyarrow as pa
import pytest

from tests.harness import Server

SCHEMA = pa.schema([("n", pa.int64())])


def one(n):
    return pa.record_batch([pa.array([n])], schema=SCHEMA)


class Follower(threading.Thread):
    """Reads in a thread; `got` has the numbers, `tokens` where each left off."""

    def __init__(self, address, path, **keys):
        super().__init__(daemon=True)
        self.address, self.path, self.keys = address, path, keys
        self.got, self.tokens, self.error = [], [], None
        self.start()

    def run(self):
        try:
            with forebay.connect(self.address, retry_for=20) as client:
                follow = client.follow(self.path, **self.keys)
                for batch in follow:
                    self.got += batch["n"].to_pylist()
                    self.tokens.append(follow.token)
        except Exception as error:
            self.error = error

    def wait_for(self, count, seconds=20):
        end = time.monotonic() + seconds
        while len(self.got) < count and self.error is None and time.monotonic() < end:
            time.sleep(0.005)
        assert len(self.got) >= count, (self.got, self.error)

    def end(self):
        self.join(30)
        assert not self.is_alive(), "the follower still waits"
        return self.got, self.error


class Steady(Server):
    """A server that comes back on its port."""

    def start(self, timeout=60, **env):
        super().start(timeout, **env)
        self.command[self.command.index("--listen") + 1] = self.flight.split("://")[1]
        return self


@pytest.fixture
def steady(tmp_path):
    with Steady(tmp_path / "d") as server:
        yield server


def test_each_batch_comes_as_it_is_acknowledged_and_the_publish_ends_it(server, client, path):
    client.put(path, [one(0)])
    with client.session(path) as session:
        follower = Follower(server.flight, path)
        for n in range(1, 4):
            session.put([one(n)])
            follower.wait_for(n + 1)
        assert client.read(path).num_rows == 1
    assert follower.end() == ([0, 1, 2, 3], None)
    assert follower.tokens == [f"{session.id}:{k}" for k in range(4)]


def test_it_waits_for_a_dataset_to_come_into_being(server, client, path):
    follower = Follower(server.flight, path, wait=10)
    time.sleep(0.3)
    client.put(path, [one(1), one(2)])
    assert follower.end() == ([1, 2], None)


def test_columns_filter_and_limit(server, client, path):
    with client.session(path) as session:
        session.put([pa.record_batch([pa.array([n]), pa.array([-n])], names=["n", "m"]) for n in range(6)])
        found = [client.follow(path, columns=["m"], filter="n > 2", limit=2), client.follow(path, columns=["m", "n"])]
        assert [next(found[0]).to_pydict() for _ in range(2)] == [{"m": [-3]}, {"m": [-4]}] and found[0].token is None
        assert next(found[1]).schema.names == ["m", "n"] and found[1].token == f"{session.id}:1"
        [each.close() for each in found]


def test_an_abort_is_an_error(server, client, path):
    session = client.session(path)
    session.put([one(0)])
    follower = Follower(server.flight, path)
    follower.wait_for(1)
    session.abort()
    got, error = follower.end()
    assert got == [0] and isinstance(error, forebay.Aborted)


@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_token_goes_on_where_it_was_left_before_and_after_the_publish(server, client, path, read):
    client.put(path, [one(0)])
    with client.session(path) as session:
        session.put([one(n) for n in range(1, 5)])
        follow = client.follow(path)
        first = [next(follow)["n"][0].as_py() for _ in range(read)]
        token = follow.token
        follow.close()
        live = Follower(server.flight, path, resume=token)
        live.wait_for(5 - read)
    assert (first + live.end()[0], live.error) == ([0, 1, 2, 3, 4], None)
    assert first + [b["n"][0].as_py() for b in client.follow(path, resume=token)] == [0, 1, 2, 3, 4]


def test_a_follower_goes_on_over_kills_of_the_server(steady):
    with forebay.connect(steady.flight, retry_for=20) as client:
        client.put("/f", [one(0), one(1)])
        session = client.session("/f")
        follower = Follower(steady.flight, "/f")
        kills = 0
        for n in range(2, 12):
            session.put([one(n)])
            if n % 3 == 0:
                follower.wait_for(n)
                kills += steady.kill()
                time.sleep(0.2)
                steady.start()
        session.publish()
        assert kills == 3 and follower.end() == (list(range(12)), None)


@pytest.mark.parametrize("published", [False, True])
def test_a_filtered_follower_skips_what_it_had(steady, published):
    with forebay.connect(steady.flight, retry_for=20) as client, forebay.connect(steady.flight, retry_for=20) as other:
        client.put("/f", [one(n) for n in range(4)])
        session = client.session("/f")
        session.put([one(n) for n in range(4, 10)])
        follow = other.follow("/f", filter="n % 2 = 1")
        got = [next(follow)["n"][0].as_py() for _ in range(3)]
        assert steady.kill()
        steady.start()
        session.put([one(n) for n in range(10, 14)])
        if published:
            session.publish()
        got += [next(follow)["n"][0].as_py() for _ in range(4)]
        if not published:
            session.publish()
        assert (got, list(follow)) == ([1, 3, 5, 7, 9, 11, 13], [])


def test_a_filtered_follower_says_when_it_can_not_go_on(steady):
    with forebay.connect(steady.flight, retry_for=20) as client, forebay.connect(steady.flight, retry_for=20) as other:
        session = client.session("/f")
        session.put([one(n) for n in range(10)])
        follow = other.follow("/f", filter="n % 2 = 1")
        next(follow)
        assert steady.kill()
        steady.start()
        session.publish()
        client.put("/f", [one(99)])
        with pytest.raises(forebay.FailedPrecondition, match="anew"):
            list(follow)


@pytest.mark.parametrize("read", [1, 3])
def test_a_session_that_is_published_while_the_connection_is_down_is_read_to_its_end_and_no_further(steady, read):
    """In the order in which it was delivered, whatever the order of its tasks, and without the session that is live by then."""
    with forebay.connect(steady.flight, retry_for=20) as client, forebay.connect(steady.flight, retry_for=20) as other:
        client.put("/f", [one(0), one(1)])
        session = client.session("/f")
        session.put([one(7), one(8)], task=2)
        follow = other.follow("/f")
        got = [next(follow)["n"][0].as_py() for _ in range(read)]
        assert got == [0, 1, 7][:read]
        session.put([one(3)], task=1)
        assert steady.kill()
        steady.start()
        session.publish()
        later = client.session("/f")
        later.put([one(99)])
        rest = [batch["n"][0].as_py() for batch in follow]
        assert sorted(got + rest) == [0, 1, 3, 7, 8], "each once"
        if read == 3:
            assert rest == [8, 3], "what was begun in one order is ended in it"
        later.abort()


def test_a_put_is_repeated_with_its_token(steady):
    """The server dies while a table is put, again and again; the table is there once."""
    table = pa.table({"x": [bytes(1 << 20)] * 48})
    big = pa.Table.from_batches(b for k in range(48) for b in table.slice(k, 1).to_batches())
    with forebay.connect(steady.flight, retry_for=30) as client:
        done = []
        writer = threading.Thread(target=lambda: done.append(client.put("/b", big)), daemon=True)
        writer.start()
        time.sleep(0.05)
        assert steady.kill() and not done, "the put was over before the kill"
        steady.start()
        writer.join(30)
        assert done == [1] and client.read("/b").equals(big)


def test_nobody_comes_back_and_it_says_so(tmp_path):
    with Steady(tmp_path / "d") as server, forebay.connect(server.flight, retry_for=0.5) as client:
        session = client.session("/f")
        session.put([one(0)])
        follow = client.follow("/f")
        next(follow)
        server.kill()
        begin = time.monotonic()
        with pytest.raises(forebay.Unavailable):
            next(follow)
        assert time.monotonic() - begin < 5
        assert list(follow) == []
