"""What is asked of every under-store alike, through a server that persists at `/lake`."""

import hashlib
import random
import threading
import time

import pyarrow as pa


def wait(client, path="/lake", seconds=120):
    [answer] = client.act("wait_persisted", path=path, timeout=f"{seconds}s")
    assert answer["state"] in ("persisted", "clean")


def same(client, stored):
    """By listing and hash: the store, as path → content, holds exactly what Forebay serves. Answers how many files that are."""
    files = [path for path in client.names("/lake", recursive=True) if client.act("stat", path=path)[0]["kind"] == "file"]
    served = {path[len("/lake/") :]: hashlib.sha256(client.file(path)).hexdigest() for path in files}
    assert {path: hashlib.sha256(content).hexdigest() for path, content in stored.items()} == served
    return len(served)


def a_changed_target_is_kept_and_reported(client, put, stored):
    """`put` writes into the store as somebody else; `stored` answers what it holds."""
    client.put_file("/lake/c", b"mine")
    wait(client)
    put("c", b"theirs, written outside")
    client.put_file("/lake/c", b"mine again")
    end_at = time.monotonic() + 30
    while not (conflicts := client.act("status")[0]["conflicts"]):
        assert time.monotonic() < end_at, "no conflict reported"
        time.sleep(0.1)
    assert conflicts[0]["path"] == "/lake/c" and stored()["c"] == b"theirs, written outside"
    client.act("persist_resolve", path="/lake/c", how="keep-mine")
    wait(client)
    assert stored()["c"] == b"mine again"


class Load:
    """Writers that never stop, each file with a content of its own; what was acknowledged, and whatever went wrong."""

    def __init__(self, server, writers=4, size=64 << 10):
        self.acknowledged, self.failed, self.size, self.ended, self.goes = {}, [], size, threading.Event(), threading.Event()
        self.goes.set()
        self.threads = [threading.Thread(target=self.write, args=(server, k), daemon=True) for k in range(writers)]

    def __enter__(self):
        [thread.start() for thread in self.threads]
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.goes.set()
        [thread.join(90) for thread in self.threads]

    def write(self, server, writer):
        chance, n = random.Random(writer), 0
        with server.client() as client:
            while not self.ended.is_set():
                self.goes.wait()
                path, content = f"/lake/w{writer}/{n:05}", chance.randbytes(self.size)
                try:
                    client.put_file(path, content)
                except Exception as error:
                    self.failed.append(f"{path}: {error}")
                    return
                self.acknowledged[path[len("/lake/") :]] = hashlib.sha256(content).hexdigest()
                n += 1


def outages_under_load(server, away, back, stored, dirty_max, seconds, times=10):
    """The store goes `away` and comes `back` again and again under load. Acknowledgements go on up to the dirty limit, then writers wait
    and none fails; when it is back everything arrives, without a hand. `stored` answers what the store holds, as path → content."""
    stalls = 0
    with server.client() as client, Load(server) as load:
        for _ in range(times):
            before = len(load.acknowledged)
            wait_for(lambda: len(load.acknowledged) > before + 4, "nothing is acknowledged while the store is there")
            load.goes.clear()
            wait_for(lambda: client.act("status")[0]["dirty_bytes"] < dirty_max / 2, "the backlog does not drain by itself")
            away()
            load.goes.set()
            try:
                before = len(load.acknowledged)
                wait_for(lambda: len(load.acknowledged) > before + 4, "acknowledgements do not go on while the store is away", 10)
                time.sleep(seconds)
                seen = len(load.acknowledged)
                time.sleep(0.3)
                status = client.act("status")[0]
                assert status["dirty_bytes"] <= dirty_max, status["dirty_bytes"]
                stalls += len(load.acknowledged) == seen and status["dirty_bytes"] > dirty_max * 0.7
            finally:
                back()
        assert stalls >= times * 0.7, f"writers met the limit in {stalls} of {times} outages only"
        before = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > before + 4, "writers do not go on when the store is back")
    assert load.failed == []
    with server.client() as client:
        wait(client, seconds=180)
        status = client.act("status")[0]
        assert status["dirty_files"] == status["queued"] == 0 and status["blocked"] == status["conflicts"] == []
    held = {path: hashlib.sha256(content).hexdigest() for path, content in stored().items()}
    assert held == load.acknowledged
    return len(held)


def wait_for(what, otherwise, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def changes_outside_are_seen(client, put, delete):
    """`put` and `delete` change the store as somebody else. Within the second for which an answer is believed, or at a sync."""

    def seen(path):
        try:
            return client.file(path)
        except pa.ArrowKeyError:
            return None

    client.put_file("/lake/seen/ours", b"ours, persisted")
    wait(client)
    put("seen/theirs", b"theirs")
    assert seen("/lake/seen/ours") == b"ours, persisted" and seen("/lake/seen/theirs") == b"theirs"
    for name in ("ours", "theirs"):
        put(f"seen/{name}", b"written anew, and longer than before")
        wait_for(lambda: seen(f"/lake/seen/{name}") == b"written anew, and longer than before", f"{name}: not seen", 5)
        put(f"seen/{name}", b"cut")
        wait_for(lambda: seen(f"/lake/seen/{name}") == b"cut", f"{name}: not seen", 5)
    client.act("policy_set", path="/lake/seen", revalidate="never")
    assert seen("/lake/seen/theirs") == b"cut"
    put("seen/theirs", b"not asked for, so not seen")
    delete("seen/ours")
    put("seen/new", b"new")
    assert seen("/lake/seen/theirs") == b"cut" and seen("/lake/seen/ours") == b"cut"
    client.act("sync", path="/lake/seen", wait=True)
    assert seen("/lake/seen/theirs") == b"not asked for, so not seen" and seen("/lake/seen/ours") is None
    assert seen("/lake/seen/new") == b"new" and "sync_error" not in client.act("under_list")[0]
