"""What one door writes the others show at once: Flight to the mount, the mount to Flight, the under-storage to the mount."""

import errno
import os
import random
import shutil
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.mount.mounted import only_forebay, wait_until
from tests.mount.test_files import opened, refused

pytestmark = only_forebay


@pytest.fixture
def both(mount, folder, client):
    """The same directory by its path on the mount and in the namespace."""
    return folder, f"/{folder.relative_to(mount.folder)}"


def rows(start, stop):
    return pa.record_batch([pa.array(range(start, stop)), pa.array([str(k) for k in range(start, stop)])], names=["id", "s"])


def attribute(path, name):
    return os.getxattr(path, f"user.forebay.{name}").decode()


class TestFlightToMount:
    def test_a_file_that_was_put_is_there(self, both, client):
        folder, path = both
        for k, size in enumerate([0, 1, 4096, 100_000, 9_000_000]):
            assert not (folder / f"f{k}").exists()  # What was not there a moment ago must not stay so.
            content = random.Random(k).randbytes(size)
            client.put_file(f"{path}/f{k}", content)
            assert (folder / f"f{k}").stat().st_size == size and (folder / f"f{k}").read_bytes() == content
            assert f"f{k}" in os.listdir(folder)

    def test_an_overwrite_shows_without_remounting(self, both, client):
        folder, path = both
        for k in range(30):
            content = b"%03d" % k * random.Random(k).choice([1000, 1000, 30_000])
            client.put_file(f"{path}/f", content)
            assert (folder / "f").read_bytes() == content and (folder / "f").stat().st_size == len(content), k

    def test_an_open_descriptor_keeps_its_version(self, both, client):
        folder, path = both
        client.put_file(f"{path}/f", b"old" * 10_000)
        with opened(folder / "f", os.O_RDONLY) as fd:
            client.put_file(f"{path}/f", b"new" * 10_000)
            assert os.pread(fd, 30_000, 0) == b"old" * 10_000
            client.act("delete", path=f"{path}/f")
            assert os.pread(fd, 30_000, 0) == b"old" * 10_000
        assert not (folder / "f").exists()

    def test_a_listing_that_the_kernel_keeps_is_never_old(self, both, client, mount):
        folder, path = both
        for k in range(20):
            assert sorted(os.listdir(folder)) == sorted(os.listdir(folder)), "once from the server, once from the kernel"
            client.put_file(f"{path}/f{k}", b"x")
            assert f"f{k}" in os.listdir(folder)
            client.act("rename", **{"from": f"{path}/f{k}", "to": f"{path}/g{k}"})
            assert f"g{k}" in os.listdir(folder) and f"f{k}" not in os.listdir(folder)
            if k % 2:
                client.act("delete", path=f"{path}/g{k}")
                assert f"g{k}" not in os.listdir(folder)
        client.act("wait_persisted", path=path, timeout="30s")
        assert "outside" not in os.listdir(folder)
        (mount.lake / path[1:] / "outside").write_bytes(b"x")
        wait_until(lambda: "outside" in os.listdir(folder), "what the store got by itself is listed", timeout=3)

    def test_an_open_directory_sees_what_comes_and_goes(self, both, client):
        folder, path = both
        with opened(folder, os.O_RDONLY) as fd:
            client.put_file(f"{path}/a", b"a")
            client.act("mkdir", path=f"{path}/d")
            assert sorted(os.listdir(fd)) == ["a", "d"]
            client.act("rename", **{"from": f"{path}/a", "to": f"{path}/d/b"})
            assert sorted(os.listdir(fd)) == ["d"] and (folder / "d/b").read_bytes() == b"a"
            with refused(errno.ENOENT):
                os.stat("a", dir_fd=fd)
            client.act("rename", **{"from": f"{path}/d", "to": f"{path}/e"})
            assert (folder / "e/b").read_bytes() == b"a" and os.listdir(fd) == ["e"]
            client.act("delete", path=f"{path}/e", recursive=True)
            assert os.listdir(fd) == []

    def test_an_append_and_a_truncation_show(self, both, client):
        folder, path = both
        client.put_file(f"{path}/f", b"one")
        assert (folder / "f").read_bytes() == b"one"
        client.put_file(f"{path}/f", b"two", mode="append", offset=3)
        assert (folder / "f").read_bytes() == b"onetwo"
        client.act("truncate", path=f"{path}/f", size=4)
        assert (folder / "f").read_bytes() == b"onet"

    def test_many_puts_are_each_seen_by_the_next_look(self, both, client):
        folder, path = both
        for k in range(200):
            client.put_file(f"{path}/f{k}", b"%d" % k)
            assert len(os.listdir(folder)) == k + 1 and (folder / f"f{k}").read_bytes() == b"%d" % k


class TestMountToFlight:
    def test_a_closed_file_is_there(self, both, client):
        folder, path = both
        for k, size in enumerate([0, 1, 4096, 100_000, 9_000_000]):
            content = random.Random(k).randbytes(size)
            (folder / f"f{k}").write_bytes(content)
            assert client.file(f"{path}/f{k}") == content
            assert client.act("stat", path=f"{path}/f{k}")[0]["size"] == size

    def test_what_was_synced_is_there_before_the_close(self, both, client):
        folder, path = both
        with opened(folder / "f", os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, b"synced")
            os.fsync(fd)
            assert client.file(f"{path}/f") == b"synced"

    def test_changes_of_names_are_there(self, both, client):
        folder, path = both
        (folder / "d").mkdir()
        (folder / "d/f").write_bytes(b"f")
        os.rename(folder / "d", folder / "e")
        os.rename(folder / "e/f", folder / "e/g")
        os.symlink("g", folder / "e/link")
        entries = {e["path"]: e["kind"] for e in client.act("list", path=path, recursive=True)}
        assert entries == {f"{path}/e": "dir", f"{path}/e/g": "file", f"{path}/e/link": "symlink"}
        os.unlink(folder / "e/link")
        os.unlink(folder / "e/g")
        os.rmdir(folder / "e")
        assert client.names(path) == []

    def test_changes_in_the_middle_are_there(self, both, client):
        folder, path = both
        (folder / "f").write_bytes(b"0" * 100_000)
        with opened(folder / "f", os.O_WRONLY) as fd:
            os.pwrite(fd, b"middle", 50_000)
        os.truncate(folder / "f", 60_000)
        assert client.file(f"{path}/f") == b"0" * 50_000 + b"middle" + b"0" * 9_994

    def test_modes_and_times_are_told(self, both, client):
        folder, path = both
        (folder / "f").write_bytes(b"x")
        os.chmod(folder / "f", 0o640)
        os.utime(folder / "f", (1_000_000_000, 1_000_000_000))
        [told] = client.act("stat", path=f"{path}/f")
        assert told["mtime"].startswith("2001-09-09T01:46:40") and told["mode"] in (0o640, 0o100640, "0640", "640")


class TestDatasets:
    def test_a_published_dataset_is_its_part_files(self, both, client):
        folder, path = both
        [begun] = client.act("begin", path=f"{path}/set")
        client.put(f"{path}/set", rows(0, 100), session=begun["session"])
        client.put(f"{path}/set", rows(100, 200), session=begun["session"])
        assert not (folder / "set").exists() or os.listdir(folder / "set") == []
        client.act("publish", session=begun["session"], success_file=True)
        names = sorted(os.listdir(folder / "set"))
        assert names[0] == "_SUCCESS" and all(n.startswith("part-0000") and n.endswith(".arrow") for n in names[1:]) and len(names) == 3
        tables = [pa.ipc.open_file(folder / "set" / n).read_all() for n in names[1:]]
        assert pa.concat_tables(tables) == pa.Table.from_batches([rows(0, 100), rows(100, 200)])

    def test_a_new_version_takes_the_place_of_the_old(self, both, client):
        folder, path = both
        client.put(f"{path}/set", rows(0, 10))
        [old] = (folder / "set").iterdir()
        with pa.memory_map(str(old)) as view:
            before = pa.ipc.open_file(view).read_all()
            client.put(f"{path}/set", rows(50, 60), mode="overwrite")
            assert before == pa.Table.from_batches([rows(0, 10)])
        [new] = (folder / "set").iterdir()
        assert new.name != old.name and pa.ipc.open_file(new).read_all() == pa.Table.from_batches([rows(50, 60)])

    def test_parquet_files_written_here_are_a_dataset_there(self, both, client):
        folder, path = both
        (folder / "set").mkdir()
        for k in range(3):
            pq.write_table(pa.Table.from_batches([rows(10 * k, 10 * k + 10)]), folder / f"set/part-{k}.parquet")
        assert client.table(f"{path}/set").column("id").to_pylist() == list(range(30))

    def test_attributes_tell_what_it_belongs_to(self, both, client):
        folder, path = both
        client.put(f"{path}/set", rows(0, 10))
        client.put(f"{path}/set", rows(10, 20))
        parts = sorted((folder / "set").iterdir())
        assert {attribute(p, "dataset") for p in parts} == {f"{path}/set"}
        assert "2" in {attribute(p, "version") for p in parts}


class TestAttributes:
    def test_a_file_tells_its_state_from_open_to_persisted(self, both, client):
        folder, path = both
        with opened(folder / "f", os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, b"x" * 5000)
            assert attribute(folder / "f", "state") == "open"
        assert attribute(folder / "f", "state") in ("sealed", "persisted", "clean")
        assert attribute(folder / "f", "level") == "local"
        client.act("wait_persisted", path=f"{path}/f", timeout="30s")
        assert attribute(folder / "f", "state") in ("persisted", "clean") and attribute(folder / "f", "etag")

    def test_they_cannot_be_set(self, both):
        folder, _ = both
        (folder / "f").touch()
        with pytest.raises(OSError):
            os.setxattr(folder / "f", "user.forebay.state", b"clean")

    def test_modes_owners_times_and_attributes_outlive_eviction(self, both, client):
        folder, path = both
        (folder / "f").write_bytes(b"x" * 100_000)
        os.setxattr(folder / "f", "user.mine", b"kept")
        os.chmod(folder / "f", 0o640)
        os.chown(folder / "f", 12, 34)
        os.utime(folder / "f", ns=(1, 1_000_000_000_000_000_000))
        before = (folder / "f").stat()
        client.act("wait_persisted", path=path, timeout="30s")
        client.act("free", path=path)
        wait_until(lambda: client.act("stat", path=f"{path}/f")[0].get("cached_bytes") == 0, "evicted")
        after = (folder / "f").stat()
        assert [getattr(after, n) for n in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size", "st_ino")] == [
            getattr(before, n) for n in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size", "st_ino")]
        assert os.getxattr(folder / "f", "user.mine") == b"kept" and (folder / "f").read_bytes() == b"x" * 100_000


def test_a_large_file_that_is_changed_parts_from_those_who_read_it(folder):
    """The kernel reads it by itself for them, and shows them no change."""
    at, old = folder / "f", b"old" * 1_000_000
    for change in ("write", "truncate", "append", "rewrite"):
        at.write_bytes(old)
        with opened(at, os.O_RDONLY) as fd:
            assert os.pread(fd, 3, 0) == b"old"
            expected = bytearray(old)
            match change:
                case "write":
                    with opened(at, os.O_RDWR) as writing:
                        os.pwrite(writing, b"new", 5)
                        assert os.pread(writing, 3, 5) == b"new"
                    expected[5:8] = b"new"
                case "truncate":
                    os.truncate(at, 2_000_000)
                    del expected[2_000_000:]
                case "append":
                    with open(at, "ab") as more:
                        more.write(b"more")
                    expected += b"more"
                case "rewrite":
                    at.write_bytes(b"new" * 500_000)
                    expected = b"new" * 500_000
            assert at.read_bytes() == expected and at.stat().st_size == len(expected)
            assert os.pread(fd, len(old) + 1, 0) == old
        assert at.read_bytes() == expected


def test_what_is_deleted_while_it_is_closed_stays_away(folder):
    """Closing makes a file visible, and must not bring it back."""
    for _ in range(200):
        fds = [os.open(folder / "f", os.O_CREAT | os.O_WRONLY) for _ in range(2)]
        os.write(fds[0], b"x" * 5000)
        closing = [threading.Thread(target=os.close, args=(fd,)) for fd in fds]
        for thread in closing:
            thread.start()
        os.unlink(folder / "f")
        for thread in closing:
            thread.join()
        assert not (folder / "f").exists() and os.listdir(folder) == []


class TestUnderStorage:
    def test_what_is_only_there_is_read_through(self, both, mount, client):
        folder, path = both
        (folder / "makes-the-directory").write_bytes(b"1")
        client.act("wait_persisted", path=path, timeout="30s")
        content = random.Random(5).randbytes(20_000_000)
        (mount.lake / path[1:] / "outside").write_bytes(content)
        client.act("sync", path=path, wait=True)
        assert sorted(os.listdir(folder)) == ["makes-the-directory", "outside"]
        with opened(folder / "outside", os.O_RDONLY) as fd:
            assert os.pread(fd, 1000, 15_000_000) == content[15_000_000:15_001_000]
        assert (folder / "outside").read_bytes() == content

    def test_what_the_mount_wrote_last_is_what_is_persisted(self, both, mount, client):
        """Rewritten, cut, renamed and deleted while it is on its way."""
        folder, path = both
        chance, expected = random.Random(6), {}
        for k in range(300):
            name = f"f{chance.randrange(10)}"
            match chance.randrange(4):
                case 0 | 1:
                    expected[name] = chance.randbytes(chance.choice([10, 5000, 300_000]))
                    (folder / name).write_bytes(expected[name])
                case 2 if name in expected:
                    os.rename(folder / name, folder / f"r{k}")
                    expected[f"r{k}"] = expected.pop(name)
                case 3 if name in expected:
                    os.unlink(folder / name)
                    del expected[name]
        client.act("wait_persisted", path=path, timeout="60s")
        assert {p.name: p.read_bytes() for p in (mount.lake / path[1:]).iterdir()} == expected

    def test_a_directory_of_many_files_is_persisted_under_its_last_name(self, both, mount, client):
        folder, path = both
        (folder / "d").mkdir()
        for k in range(500):
            (folder / f"d/{k}").write_bytes(b"%d" % k)
        os.rename(folder / "d", folder / "e")
        client.act("wait_persisted", path=path, timeout="60s")
        lake = mount.lake / path[1:]
        assert os.listdir(lake) == ["e"] and {p.name: p.read_bytes() for p in (lake / "e").iterdir()} == {str(k): b"%d" % k for k in range(500)}

    def test_a_path_too_long_for_a_store_holds_nothing_else_up(self, both):
        folder, _ = both
        deep = folder / "/".join(["d" * 200] * 8)
        deep.mkdir(parents=True)
        (deep / "f").write_bytes(b"only here")
        for k in range(300):
            (folder / f"d{k}").mkdir()
            (folder / f"d{k}/f").write_bytes(b"x")
        assert (deep / "f").read_bytes() == b"only here"
        shutil.rmtree(folder / ("d" * 200))
