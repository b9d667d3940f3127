"""The policy `pack`: few objects in the under-store, files one by one at our doors; also where nothing is left but the store."""

import random
import threading

import pytest

from tests.harness import Server

FILES = 300
PACKS = ".forebay-packs"


def contents(number, seed=0):
    return random.Random(number * 1000 + seed).randbytes(1_000 + number * 211)


def write_all(server, files, writers=8):
    """Writes all files, several at a time."""
    failed, todo = [], list(files.items())

    def write():
        try:
            with server.client() as client:
                while todo:
                    path, content = todo.pop()
                    client.put_file(path, content)
        except IndexError:
            return
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed, failed


def served(client, path="/lake"):
    paths = [p for p in client.names(path, recursive=True) if client.act("stat", path=p)[0]["kind"] == "file"]
    return {p: client.file(p) for p in paths}


def objects(lake):
    """Names of the store's objects: those with names of their own, and packs."""
    names = sorted(str(p.relative_to(lake)) for p in lake.rglob("*") if p.is_file())
    return [n for n in names if not n.startswith(PACKS)], [n for n in names if n.startswith(PACKS)]


def shows_everywhere(server, lake, tmp_path, files):
    """At once, read from the store, after a kill, and by a server with an empty data folder."""
    with server.client() as client:
        assert served(client) == files
        client.act("wait_persisted", path="/lake", timeout="60s")
        client.act("free", path="/lake")
        assert served(client) == files
    server.restart()
    with server.client() as client:
        assert served(client) == files
    number = len(list(tmp_path.glob("empty*")))
    with Server(tmp_path / f"empty{number}", under={"/lake": f"file://{lake}"}) as other, other.client() as client:
        assert served(client) == files


def test_packed_files_are_few_objects_and_show_one_by_one_whatever_happens_to_them(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    files = {f"/lake/p/d{n % 3}/f{n:03}": contents(n) for n in range(FILES)}
    with Server(tmp_path / "data", under={"/lake": f"file://{lake}"}) as server:
        with server.client() as client:
            client.act("policy_set", path="/lake/p", pack=True)
        write_all(server, files)
        shows_everywhere(server, lake, tmp_path, files)
        own, packs = objects(lake)
        assert own == [] and 1 <= len(packs) <= FILES // 4, packs

        with server.client() as client:
            for n in range(0, FILES, 3):
                client.act("delete", path=f"/lake/p/d0/f{n:03}")
                del files[f"/lake/p/d0/f{n:03}"]
            for n in range(1, FILES, 9):
                path = f"/lake/p/d1/f{n:03}"
                files[path] = contents(n, seed=1)
                client.put_file(path, files[path])
            client.act("rename", **{"from": "/lake/p/d1/f004", "to": "/lake/p/d1/moved"})
            files["/lake/p/d1/moved"] = files.pop("/lake/p/d1/f004")
            client.act("rename", **{"from": "/lake/p/d2", "to": "/lake/p/other"})
            files = {path.replace("/p/d2/", "/p/other/"): content for path, content in files.items()}
            # One of a name that was deleted, one too large for a pack, one that is not under the policy.
            for path in ["/lake/p/d0/f000", "/lake/p/large", "/lake/plain"]:
                files[path] = contents(7, seed=2) * (500 if path.endswith("large") else 1)
                client.put_file(path, files[path])
        shows_everywhere(server, lake, tmp_path, files)
        assert objects(lake)[0] == ["p/large", "plain"]

        with server.client() as client:
            client.act("policy_set", path="/lake/p", pack=None)
            assert served(client) == files
            client.act("delete", path="/lake/p", recursive=True)
        shows_everywhere(server, lake, tmp_path, {"/lake/plain": files["/lake/plain"]})
        own, packs = objects(lake)
        assert own == ["plain"] and len(packs) <= 1
        assert sum((lake / name).stat().st_size for name in packs) < 1000


def test_a_pack_that_others_change_is_named_and_its_files_are_not_served_wrong(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    with Server(tmp_path / "data", under={"/lake": f"file://{lake}"}) as server, server.client() as client:
        client.act("policy_set", path="/lake", pack=True, revalidate="always")
        client.put_file("/lake/a", b"a" * 1000)
        client.act("wait_persisted", path="/lake")
        client.act("free", path="/lake")
        [pack] = (lake / PACKS).iterdir()
        good = pack.read_bytes()

        pack.write_bytes(b"X" + good[1:])
        with pytest.raises(Exception, match="checksum|damaged"):
            client.file("/lake/a")
        pack.write_bytes(good[:-1])
        with Server(tmp_path / "other", under={"/lake": f"file://{lake}"}) as other, other.client() as its:
            with pytest.raises(Exception, match=f"{PACKS}/{pack.name}.*delete it"):
                its.names("/lake")
            pack.write_bytes(good)
            assert its.names("/lake") == ["/lake/a"] and its.file("/lake/a") == b"a" * 1000


def test_names_of_the_packs_folder_are_refused_by_the_store_and_say_why(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    with Server(tmp_path / "data", under={"/lake": f"file://{lake}"}) as server, server.client() as client:
        client.put_file(f"/lake/{PACKS}/x", b"mine")
        with pytest.raises(Exception, match="timed|persisted"):
            client.act("wait_persisted", path="/lake", timeout="2s")
        blocked = client.act("status")[0]["blocked"]
        assert any(PACKS in item["reason"] for item in blocked), blocked
        assert client.file(f"/lake/{PACKS}/x") == b"mine"
