"""What is asked of every under-store alike, through a server that persists at `/lake`."""

import hashlib
import time


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
