"""Who waits for whom: a program that waits for room holds no other one up, two mounts of one server do not wait for each other, and a server
that was killed while its mounts waited is replaced."""

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.harness import BINARY, Server
from tests.mount.mounted import ForebayMount, answers, file_system, mounted, only_forebay, take_away, wait_until
from tests.mount.test_files import refused

pytestmark = only_forebay


def forebay(server, *words):
    subprocess.run([BINARY, *map(str, words)], check=True, timeout=30, capture_output=True, env={**os.environ, "FOREBAY_ADDR": server.flight})


@contextlib.contextmanager
def in_threads(*jobs):
    """Runs them beside; they have to be over soon after. An exception of one is raised."""
    errors = []

    def run(job):
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads), "a program is stuck"
    if errors:
        raise errors[0]


def slowest(*calls):
    """The longest that one of these calls takes, s."""
    longest = 0
    for call in calls:
        began = time.monotonic()
        call()
        longest = max(longest, time.monotonic() - began)
    return longest


@contextlib.contextmanager
def full(tmp_path, stall_max):
    """A mount with a file that is persisted, at whose dirty limit a writer waits for so long."""
    config = tmp_path / "config"
    config.write_text(f'[write]\nstall_max = "{stall_max}"\n')
    with mounted(dirty_max="1MiB", config=config) as mount:
        (mount.folder / "d").mkdir()
        (mount.folder / "d/0").write_bytes(b"cached")
        forebay(mount, "persist", "/", "--wait")
        forebay(mount, "policy", "set", "/", "persist=never")
        for k in range(3):
            (mount.folder / f"fill{k}").write_bytes(b"z" * (300 << 10))
        yield mount


class TestTheDirtyLimit:
    def test_a_close_that_waits_for_room_holds_nobody_up(self, tmp_path):
        with full(tmp_path, "6s") as mount:
            d, refusals, names = mount.folder / "d", [], iter(range(100))

            def write():
                with refused(errno.ENOSPC), open(mount.folder / "more", "wb") as file:
                    file.write(b"z" * (300 << 10))
                refusals.append(time.monotonic())

            def others():
                n = next(names)
                return slowest(
                    lambda: (d / f"{n}").rename(d / f"{n + 1}"), lambda: (d / f"{n + 1}").read_bytes(), lambda: os.listdir(d),
                    lambda: (d / "missing").exists(), lambda: (d / "e").mkdir(), lambda: (d / "e").rmdir(),
                )

            began = time.monotonic()
            with in_threads(write):
                time.sleep(1)
                assert others() < 2 and not refusals
                wait_until(lambda: refusals, "the close is refused", timeout=20)
                # What was refused is given up without another wait.
                assert others() < 2
            assert refusals[0] - began > 5
            wait_until(lambda: not (mount.folder / "more").exists(), "the name of what was refused is gone", timeout=2)

    def test_sigterm_does_not_wait_for_room(self, tmp_path):
        with full(tmp_path, "60s") as mount:
            def write():
                with contextlib.suppress(OSError), open(mount.folder / "more", "wb") as file:
                    file.write(b"z" * (300 << 10))

            with in_threads(write):
                time.sleep(1)
                assert mount.term(timeout=20) == 0


@pytest.fixture
def two(root):
    """Two mounts of one server, and a directory in them. Whatever is stuck in them at the end is freed."""
    with mounted() as mount:
        second = mount.folder.with_name("second")
        second.mkdir()
        try:
            forebay(mount, "mount", second)
            wait_until(lambda: answers(second), "mounted")
            (mount.folder / "d").mkdir()
            yield mount, second
            if mount.alive() and file_system(second):
                forebay(mount, "unmount", second)
        finally:
            for folder in (mount.folder, second):
                if not mount.alive():
                    subprocess.run(["umount", "-f", folder], capture_output=True)
            take_away(second)


class Movers:
    """Programs that change names in one directory, each through a mount of its own."""

    def __init__(self, folders, change):
        self.folders, self.change, self.stop = folders, change, False
        self.took = {folder: [] for folder in folders}

    def jobs(self):
        return [lambda k=k, folder=folder: self.run(k, folder) for k, folder in enumerate(self.folders)]

    def run(self, k, folder):
        self.change(folder, k, None)
        n = 0
        while not self.stop:
            began = time.monotonic()
            try:
                self.change(folder, k, n)
            except OSError as error:
                assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), error
                return
            self.took[folder].append(time.monotonic() - began)
            n += 1


def rename_directory(folder, k, n):
    if n is None:
        return (folder / f"d/{k}-0").mkdir()
    return (folder / f"d/{k}-{n}").rename(folder / f"d/{k}-{n + 1}")


def rename_file(folder, k, n):
    if n is None:
        return (folder / f"d/{k}-0").write_bytes(b"x")
    return (folder / f"d/{k}-{n}").rename(folder / f"d/{k}-{n + 1}")


def create_and_unlink(folder, k, n):
    if n is not None:
        (folder / f"d/{k}").write_bytes(b"x")
        (folder / f"d/{k}").unlink()


class TestTwoMounts:
    @pytest.mark.parametrize("change", [rename_directory, rename_file, create_and_unlink])
    def test_names_of_one_directory_are_changed_through_both(self, two, change):
        mount, second = two
        movers = Movers([mount.folder, second], change)
        with in_threads(*movers.jobs()):
            time.sleep(3)
            movers.stop = True
        for took in movers.took.values():
            assert len(took) > 20 and max(took) < 1, f"{len(took)} changes, the slowest in {max(took, default=0):.1f} s"
        assert sorted(os.listdir(mount.folder / "d")) == sorted(os.listdir(second / "d"))
        # What was told late is told.
        for folder in (mount.folder, second):
            for name in os.listdir(folder / "d"):
                k, _, n = name.partition("-")
                assert not n or not (folder / f"d/{k}-{int(n) - 1}").exists()

    def test_a_server_that_was_killed_meanwhile_is_replaced(self, two):
        mount, second = two
        movers = Movers([mount.folder, second], rename_directory)
        with in_threads(*movers.jobs()):
            time.sleep(1)
            killed = mount.process
            os.kill(killed.pid, signal.SIGKILL)
            time.sleep(1)
            mount.start(timeout=20)
            movers.stop = True
            assert killed.wait(5) == -signal.SIGKILL
        assert len(os.listdir(mount.folder / "d")) == 2


@pytest.fixture
def below(tmp_path):
    """A server whose mount is the under-store of another one, and can be stopped."""
    (tmp_path / "lake").mkdir()
    with Server(tmp_path / "below", fuse=tmp_path / "lake") as server:
        wait_until(lambda: answers(tmp_path / "lake"), "mounted")
        yield server
        os.kill(server.process.pid, signal.SIGCONT)
    take_away(tmp_path / "lake")


def states(pid):
    """How the threads of a process are; of those that are gone meanwhile nothing."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            yield stat.read_text().rpartition(")")[2].split()[0]


def test_a_server_that_is_stuck_in_its_mount_after_a_kill_is_replaced(below, tmp_path):
    """The store does not answer, so a lookup holds its directory in the kernel, which takes no note of a name there meanwhile. The server is
    killed while it waits for that, and then nobody answers the lookup."""
    (tmp_path / "lake/d").mkdir()
    mount = ForebayMount(tmp_path).start()
    try:
        (mount.folder / "d/f").write_bytes(b"here")
        os.kill(below.process.pid, signal.SIGSTOP)
        looking = subprocess.Popen(["stat", mount.folder / "d/missing"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        with mount.client() as client:
            client.put_file("/d/f", b"there")
        killed = mount.process
        killed.kill()
        # All threads have ended but those that can not.
        wait_until(lambda: set(states(killed.pid)) == {"Z", "D"}, "it is not stuck", 10)
        assert looking.poll() is None
        os.kill(below.process.pid, signal.SIGCONT)
        mount.start(timeout=20)
        assert killed.wait(5) == -signal.SIGKILL and looking.wait(5) != 0
        assert (mount.folder / "d/f").read_bytes() == b"there"
        mount.close()
    finally:
        subprocess.run(["umount", "-f", mount.folder], capture_output=True)
        take_away(mount.folder)
