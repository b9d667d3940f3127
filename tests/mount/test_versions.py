"""What is open keeps its version, whatever other doors do with its name; and who writes is told when another door was there first."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import urllib.request

import pyarrow as pa
import pytest

from tests.mount.mounted import attached, mounted, only_forebay, wait_until
from tests.mount.test_doors import rows
from tests.mount.test_files import opened, refused

pytestmark = only_forebay


@pytest.fixture(scope="module")
def several(root, tmp_path_factory):
    """One server with a pipeline mount of its own, a second one, and one for training."""
    home = tmp_path_factory.mktemp("several")
    with mounted() as mount, attached(mount, home / "other") as other, attached(mount, home / "ds", "--mode", "dataset") as training:
        yield mount, other, training


@pytest.fixture
def mount(several):
    return several[0]


def webhdfs_delete(mount, path):
    urllib.request.urlopen(urllib.request.Request(f"{mount.http}/webhdfs/v1{path}?op=DELETE", method="DELETE")).read()


def rename_over(client, path):
    client.put_file(f"{path}.new", b"theirs")
    client.act("rename", **{"from": f"{path}.new", "to": path, "replace": True})


def rename_over_here(other, path):
    (other / f"{path[1:]}.new").write_bytes(b"theirs")
    os.rename(other / f"{path[1:]}.new", other / path[1:])


# What is at the path afterwards: `old` stands for what was there before.
FILES = {
    "overwrite": (lambda mount, other, client, path: client.put_file(path, b"theirs"), lambda old: b"theirs"),
    "append": (lambda mount, other, client, path: client.put_file(path, b"+theirs", mode="append"), lambda old: old + b"+theirs"),
    "truncate": (lambda mount, other, client, path: client.act("truncate", path=path, size=3), lambda old: old[:3].ljust(3, b"\0")),
    "delete": (lambda mount, other, client, path: client.act("delete", path=path), lambda old: None),
    "delete, put": (lambda mount, other, client, path: [client.act("delete", path=path), client.put_file(path, b"theirs")], lambda old: b"theirs"),
    "rename over": (lambda mount, other, client, path: rename_over(client, path), lambda old: b"theirs"),
    "delete parent": (lambda mount, other, client, path: client.act("delete", path=os.path.dirname(path), recursive=True), lambda old: None),
    "webhdfs delete": (lambda mount, other, client, path: webhdfs_delete(mount, path), lambda old: None),
    "other mount unlink": (lambda mount, other, client, path: os.unlink(other / path[1:]), lambda old: None),
    "other mount rename over": (lambda mount, other, client, path: rename_over_here(other, path), lambda old: b"theirs"),
    "other mount write": (lambda mount, other, client, path: (other / path[1:]).write_bytes(b"theirs"), lambda old: b"theirs"),
}
PARTS = {
    "overwrite": lambda client, at, part: client.put(at, rows(50, 60), mode="overwrite"),
    "no version left": lambda client, at, part: [client.put(at, rows(k, k + 5), mode="overwrite") for k in range(8)],
    "delete part": lambda client, at, part: client.act("delete", path=f"{at}/{part}"),
    "delete dataset": lambda client, at, part: client.act("delete", path=at, recursive=True),
    "rename dataset": lambda client, at, part: client.act("rename", **{"from": at, "to": f"{at}-renamed"}),
}


def content_at(client, path):
    try:
        return client.file(path)
    except (KeyError, pa.ArrowException):
        return None


def root_of(several, where):
    mount, other, training = several
    return {"pipeline": mount.folder, "other": other, "training": training}[where]


def part_of(folder, client, count):
    """A dataset of one part, and that part's name."""
    client.put(f"/{folder.name}/set", rows(0, count))
    return f"/{folder.name}/set", *os.listdir(folder / "set")


@contextlib.contextmanager
def mapped(path):
    """A process that has mapped a file, read nothing of it and closed it; asked, it sums up all its bytes."""
    program = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
sys.stdin.readline()
print(sum(view[:]), len(view), flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "mapped\n"

        def asked():
            answer, _ = child.communicate("\n", timeout=30)
            assert child.returncode == 0, f"it ended with {child.returncode}"
            return tuple(int(word) for word in answer.split())

        yield asked
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("where", ["pipeline", "other", "training"])
@pytest.mark.parametrize("size", [100, 3_000_000])
class TestReaders:
    @pytest.mark.parametrize("what", FILES)
    def test_a_descriptor_of_a_file_keeps_its_version(self, several, folder, client, where, size, what):
        mount, other, _ = several
        if (what, where) == ("other mount write", "other"):
            pytest.skip("that is no other door, and seen by everybody there")
        root = root_of(several, where)
        change, after = FILES[what]
        content, path = os.urandom(size), f"/{folder.name}/d/f"
        client.put_file(path, content)
        before = os.stat(root / path[1:])
        with opened(root / path[1:], os.O_RDONLY) as fd:
            change(mount, other, client, path)
            assert os.pread(fd, size + 10, 0) == content
            now = os.fstat(fd)
            assert (now.st_size, now.st_mode, now.st_mtime_ns, now.st_ino) == (size, before.st_mode, before.st_mtime_ns, before.st_ino)
            # Of what lies below a name that goes the kernel is not told, and remembers what it has.
            assert now.st_nlink == 0 or what == "delete parent"
            there = after(content)
            assert content_at(client, path) == there
            if there is None:
                assert not (root / path[1:]).exists()
            else:
                assert (root / path[1:]).read_bytes() == there
            assert os.pread(fd, size + 10, 0) == content

    @pytest.mark.parametrize("what", PARTS)
    def test_a_descriptor_of_a_part_keeps_its_version(self, several, folder, client, where, size, what):
        root = root_of(several, where)
        at, part = part_of(folder, client, size // 10)
        content = (folder / "set" / part).read_bytes()
        size = os.stat(root / at[1:] / part).st_size
        with opened(root / at[1:] / part, os.O_RDONLY) as fd:
            PARTS[what](client, at, part)
            assert os.pread(fd, size + 10, 0) == content and os.fstat(fd).st_size == size

    @pytest.mark.parametrize("what", PARTS)
    def test_a_mapped_part_keeps_its_version(self, several, folder, client, where, size, what):
        root = root_of(several, where)
        at, part = part_of(folder, client, size // 10)
        content = (folder / "set" / part).read_bytes()
        with mapped(root / at[1:] / part) as asked:
            PARTS[what](client, at, part)
            assert asked() == (sum(content), len(content))


class TestTraining:
    def test_what_is_held_for_a_reader_goes_with_him(self, several, folder, client):
        """As with any file system: the bytes of a removed file stay until its last descriptor and mapping are gone."""
        mount, _, training = several
        content, path = os.urandom(20_000_000), f"/{folder.name}/f"
        data = mount.lake.with_name("data")
        used = lambda: sum(f.stat().st_blocks * 512 for f in data.rglob("*") if f.is_file())
        client.put_file(path, content)
        with opened(training / path[1:], os.O_RDONLY) as fd:
            held = used()
            client.act("delete", path=path)
            assert os.pread(fd, 5, 19_999_990) == content[19_999_990:19_999_995]
            assert os.pread(fd, 5, 5) == content[5:10]
        wait_until(lambda: used() < held - 15_000_000, "the bytes of the removed file are given back")

    @pytest.mark.parametrize("what", FILES)
    def test_a_mapped_file_outlives_its_name(self, several, folder, client, what):
        mount, other, training = several
        content, path = os.urandom(3_000_000), f"/{folder.name}/d/f"
        client.put_file(path, content)
        with mapped(training / path[1:]) as asked:
            FILES[what][0](mount, other, client, path)
            assert asked() == (sum(content), len(content))


HOWS = {"read and write": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND, "truncate": os.O_RDWR | os.O_TRUNC}


class TestWriters:
    @pytest.mark.parametrize("what", FILES)
    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("size", [10, 3_000_000])
    def test_whoever_changes_what_another_door_changed_is_told(self, several, folder, client, size, how, what):
        mount, other, _ = several
        change, after = FILES[what]
        at, path = folder / "d/f", f"/{folder.name}/d/f"
        for early in (False, True):
            at.parent.mkdir(exist_ok=True)
            at.write_bytes(b"0" * size)
            fd = os.open(at, HOWS[how])
            # What is opened to be written anew is empty here alone.
            old = content_at(client, path)
            assert old == b"0" * size and at.read_bytes() == (b"" if how == "truncate" else old)
            if early:
                os.write(fd, b"early")
            change(mount, other, client, path)
            os.write(fd, b"late")
            with refused(errno.ESTALE):
                os.fsync(fd)
            with refused(errno.ESTALE):
                os.close(fd)
            there = after(old)
            assert content_at(client, path) == there and (at.read_bytes() if at.exists() else None) == there

    @pytest.mark.parametrize("what", FILES)
    @pytest.mark.parametrize("size", [10, 3_000_000])
    def test_what_was_closed_before_is_not_in_the_way(self, several, folder, client, size, what):
        mount, other, _ = several
        change, after = FILES[what]
        at, path = folder / "d/f", f"/{folder.name}/d/f"
        at.parent.mkdir()
        at.write_bytes(b"0" * size)
        with opened(at, os.O_RDWR):
            change(mount, other, client, path)
        assert content_at(client, path) == after(b"0" * size)

    @pytest.mark.parametrize("size", [10, 3_000_000])
    @pytest.mark.parametrize("synced", [False, True])
    def test_whoever_creates_what_another_door_created_is_told(self, several, folder, client, size, synced):
        at, path = folder / "f", f"/{folder.name}/f"
        fd = os.open(at, os.O_RDWR | os.O_CREAT)
        os.write(fd, b"m" * size)
        if synced:
            os.fsync(fd)
        client.put_file(path, b"theirs")
        assert os.pread(fd, size + 10, 0) == b"m" * size
        os.write(fd, b"late")
        with refused(errno.ESTALE):
            os.fsync(fd)
        with refused(errno.ESTALE):
            os.close(fd)
        assert client.file(path) == b"theirs" == at.read_bytes()
        at.write_bytes(b"mine, after theirs")
        assert client.file(path) == b"mine, after theirs"

    def test_a_rename_by_another_door_takes_a_writer_along(self, folder, client):
        at, path = folder / "f", f"/{folder.name}/f"
        at.write_bytes(b"0123456789")
        with opened(at, os.O_RDWR) as fd:
            client.act("rename", **{"from": path, "to": f"{path}-renamed"})
            os.pwrite(fd, b"new", 0)
        assert client.file(f"{path}-renamed") == b"new3456789" and content_at(client, path) is None

    def test_two_mounts_that_rename_at_the_same_time_do_not_wait_for_each_other(self, several, folder):
        mount, other, _ = several

        def rename(root, name):
            at = root / folder.name / f"of-{name}"
            at.mkdir()
            (at / name).write_bytes(b"x")
            for k in range(100):
                os.rename(at / f"{name}{k or ''}", at / f"{name}{k + 1}")

        renaming = [threading.Thread(target=rename, args=who) for who in ((mount.folder, "f"), (other, "g"))]
        [thread.start() for thread in renaming]
        [thread.join() for thread in renaming]
        assert [os.listdir(folder / f"of-{name}") for name in "fg"] == [["f100"], ["g100"]]

    def test_attributes_that_another_door_sets_are_no_change_of_content(self, several, folder):
        _, other, _ = several
        at = folder / "f"
        at.write_bytes(b"0123456789")
        with opened(at, os.O_RDWR) as fd:
            os.chmod(other / folder.name / "f", 0o600)
            os.pwrite(fd, b"new", 0)
        assert at.read_bytes() == b"new3456789" and at.stat().st_mode & 0o777 == 0o600

    def test_an_unlink_on_the_same_mount_is_what_it_always_was(self, folder):
        at = folder / "f"
        fd = os.open(at, os.O_RDWR | os.O_CREAT)
        os.write(fd, b"scratch")
        os.unlink(at)
        os.fsync(fd)
        assert os.pread(fd, 10, 0) == b"scratch"
        os.close(fd)
        assert not at.exists()
