"""Several data folders: each is used, none is mistaken for another, and one that is full or lost costs no more than what lies on it."""

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.cli.conftest import Cli, forebay
from tests.harness import LoopDisk, Server, StartFailed

needs_loop = pytest.mark.skipif(os.geteuid() != 0 or subprocess.run(["losetup", "-f"], capture_output=True).returncode != 0, reason="needs root and loop devices")


def content(k):
    return random.Random(k).randbytes([300, 40_000, 3_000_000][k % 3])


def fill(server, names):
    with server.client() as client:
        for k in names:
            client.put_file(f"/f{k}", content(k))


def assert_there(server, names):
    with server.client() as client:
        for k in names:
            assert client.file(f"/f{k}") == content(k), k


def segments(folder):
    return [p for p in Path(folder).iterdir() if p.suffix in (".shared", ".data")]


def refused(*args, **keys):
    with pytest.raises(StartFailed) as failed:
        Server(*args, **keys).start(timeout=20)
    return str(failed.value)


def test_all_folders_are_used_and_their_order_means_nothing(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    with Server(folders) as server:
        fill(server, range(30))
        assert all(segments(folder) for folder in folders)
        disks = Cli(server).json("status")["disks"]
        assert [disk["folder"] for disk in disks] == [str(folder) for folder in folders]
        assert all(disk["tier"] == "disk" and 0 < disk["free_bytes"] <= disk["total_bytes"] for disk in disks)
        assert sum(disk["used_bytes"] for disk in disks) >= 30_000_000
        assert "disk " in Cli(server).text("status")
        assert server.term() == 0
    with Server(folders[::-1]) as server:
        assert_there(server, range(30))
        fill(server, range(30, 40))
        server.restart()
        assert_there(server, range(40))
        assert server.term() == 0
    assert [folder.name for folder in folders if (folder / "meta.sqlite").exists()] == ["a"]
    checked = forebay("fsck", *(arg for folder in folders for arg in ("--data", folder)), "--json")
    report = json.loads(checked.stdout)
    assert checked.returncode == 0 and report["folders"] == [str(folder) for folder in folders], report
    assert report["findings"] == report["notes"] == [] and report["streams"] >= 40
    alone = json.loads(forebay("fsck", "--data", folders[0], "--json").stdout)
    assert alone["findings"] == [] and any("data folder 1" in note for note in alone["notes"]), alone


def test_a_folder_joins_and_is_missed_from_then_on(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    with Server(old) as server:
        fill(server, range(6))
    with Server([new, old]) as server:
        assert_there(server, range(6))
        fill(server, range(6, 30))
        assert segments(new) and not (new / "meta.sqlite").exists()
        server.kill()
    assert "data folder 1" in refused(old)
    assert "data folder 0" in refused(new) and not (new / "meta.sqlite").exists()
    # Its disk is not mounted: there is an empty folder in its place.
    shutil.move(new, tmp_path / "aside")
    new.mkdir()
    said = refused([old, new])
    assert "data folder 1" in said and "mount" in said, said
    assert list(new.iterdir()) == []
    new.rmdir()
    # Nor is another one taken for it.
    with Server(tmp_path / "foreign") as other:
        assert other.term() == 0
    assert "cluster" in refused([old, tmp_path / "foreign"])
    shutil.move(tmp_path / "aside", new)
    with Server([old, new]) as server:
        assert_there(server, range(30))


def test_a_folder_is_taken_out_once_nothing_lies_on_it(tmp_path):
    (tmp_path / "lake").mkdir()
    home, out = tmp_path / "home", tmp_path / "out"
    named = ["--data", home, "--data", out]
    with Server([home, out], under={"/": f"file://{tmp_path}/lake"}) as server:
        fill(server, range(20))
        assert "in use" in forebay("disk", "remove", out, *named).stderr.decode()
        assert server.term() == 0
        for folder, why in ((out, "has segments"), (home, "home"), (tmp_path / "other", "not among")):
            refused_ = forebay("disk", "remove", folder, *named)
            assert refused_.returncode == 1 and why in refused_.stderr.decode(), (folder, refused_)
        server.start()
        with server.client() as client:
            assert client.act("wait_persisted", path="/", timeout="60s")[0]["state"] in ("persisted", "clean")
            client.act("free", path="/")
        assert server.term() == 0
    assert json.loads(forebay("disk", "remove", out, *named, "--json").stdout) == {"folder": str(out)}
    with Server(home, under={"/": f"file://{tmp_path}/lake"}) as server:
        assert_there(server, range(20))
        fill(server, range(20, 24))
        assert server.term() == 0
    with Server([home, out], under={"/": f"file://{tmp_path}/lake"}) as server:
        assert_there(server, range(24))


@pytest.fixture
def two_disks(tmp_path, request):
    """Two small disks of about the same size."""
    disks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        disks.append(LoopDisk(tmp_path / name, request.param, size="400M"))
    yield disks
    for disk in disks:
        disk.close()


def use_up(disk):
    """Fills the disk with a file of somebody else's."""
    file, free = Path(disk.mount) / "filler", os.statvfs(disk.mount)
    subprocess.run(["fallocate", "-l", str(free.f_bfree * free.f_frsize), file], check=False, capture_output=True)
    with open(file, "ab", buffering=0) as f:
        for piece in (1 << 20, 1 << 12):
            try:
                while True:
                    f.write(bytes(piece))
                    os.fsync(f.fileno())
            except OSError:
                pass
    return file


def told(server, folder):
    [disk] = [disk for disk in Cli(server).json("status")["disks"] if disk["folder"] == str(folder)]
    return disk


@needs_loop
@pytest.mark.parametrize("two_disks", ["ext4"], indirect=True)
def test_a_full_disk_is_passed_over_while_the_other_has_room(two_disks):
    folders = [Path(disk.mount) / "d" for disk in two_disks]
    server = Server(folders)
    try:
        with server:
            fill(server, range(12))
            assert all(segments(folder) for folder in folders)
            use_up(two_disks[1])
            begun = time.monotonic()
            fill(server, range(100, 130))
            assert time.monotonic() - begun < 30, "writers were held up by the full disk"
            assert_there(server, [*range(12), *range(100, 130)])
            assert told(server, folders[1])["free_bytes"] < 4 << 20
            server.restart()
            assert_there(server, [*range(12), *range(100, 130)])
    finally:
        server.kill()


@needs_loop
@pytest.mark.parametrize("two_disks", ["ext4"], indirect=True)
def test_clean_data_makes_room_on_the_disk_that_lacks_it(two_disks, tmp_path):
    (tmp_path / "lake").mkdir()
    folders = [Path(disk.mount) / "d" for disk in two_disks]
    server = Server(folders, under={"/": f"file://{tmp_path}/lake"}, cache_max="4GiB", dirty_max="4GiB")
    try:
        with server:
            fill(server, range(2, 60, 3))
            with server.client() as client:
                assert client.act("wait_persisted", path="/", timeout="60s")[0]["state"] in ("persisted", "clean")
            before = [told(server, folder)["used_bytes"] for folder in folders]
            assert all(used > 15 << 20 for used in before), before
            file = use_up(two_disks[1])
            end = time.monotonic() + 30
            while told(server, folders[1])["used_bytes"] > before[1] - (5 << 20):
                assert time.monotonic() < end, "clean data stays on a full disk"
                time.sleep(0.2)
            assert told(server, folders[0])["used_bytes"] >= before[0]
            file.unlink()
            assert_there(server, range(2, 60, 3))
    finally:
        server.kill()


@needs_loop
@pytest.mark.parametrize("two_disks", ["xfs"], indirect=True)
def test_a_disk_that_is_lost_costs_what_lies_on_it(two_disks):
    folders = [Path(disk.mount) / "d" for disk in two_disks]
    server = Server(folders)
    try:
        with server:
            fill(server, range(12))
            assert all(segments(folder) for folder in folders)
            subprocess.run(["xfs_io", "-x", "-c", "shutdown", two_disks[1].mount], check=True)
            failed = 0
            with server.client() as client:
                for k in range(100, 130):
                    while True:
                        try:
                            client.put_file(f"/f{k}", content(k), timeout=30)
                            break
                        except pa.ArrowException:
                            failed += 1
                            assert failed <= 3, "writes still go to the disk that is lost"
            assert_there(server, range(100, 130))
            read = 0
            with server.client() as client:
                for k in range(12):
                    try:
                        read += client.file(f"/f{k}") == content(k)
                    except pa.ArrowException as error:
                        assert f"/f{k}" in str(error) or "Input/output" in str(error) or "segment" in str(error), error
            assert read > 0
            server.kill()
            for disk in two_disks[1:]:
                subprocess.run(["umount", disk.mount], check=True)
                subprocess.run(["mount", "-o", "loop", disk.image, disk.mount], check=True)
            server.start()
            assert_there(server, [*range(12), *range(100, 130)])
    finally:
        server.kill()
