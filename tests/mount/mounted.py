"""A mounted directory: Forebay's own, by `serve --fuse`; or, with FOREBAY_TEST_PLAIN=1, ext4 in a loop file, the control which shows
that a check asks for nothing that a file system does not give."""

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import time
import weakref
from pathlib import Path

import pytest

from tests.harness import BINARY, LoopDisk, Server

RUNNING = weakref.WeakSet()
PLAIN = os.environ.get("FOREBAY_TEST_PLAIN") == "1"
LONG = os.environ.get("FOREBAY_MOUNT_LONG") == "1"
only_forebay = pytest.mark.skipif(PLAIN, reason="a plain file system has no such thing")


def file_system(folder):
    """The type of the file system mounted at `folder`, None when there is none. A mount whose daemon is dead counts."""
    types = [line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(folder)]
    return types[-1] if types else None


def answers(folder):
    """Whether a FUSE file system is mounted at `folder` and its daemon lives."""
    try:
        os.statvfs(folder)
    except OSError:
        return False
    return (file_system(folder) or "").startswith("fuse")


def wait_until(true, what, timeout=30):
    end = time.monotonic() + timeout
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not in {timeout} s: {what}")
        time.sleep(0.01)


def take_away(folder):
    """The last resort: whatever is mounted there goes, so that it harms no later test. Returns what it was."""
    left = file_system(folder)
    while file_system(folder):
        subprocess.run(["umount", "-l", folder], check=True)
    return left


class ForebayMount(Server):
    """`forebay serve --fuse`, persisting to a folder of its own. `folder` is where it is mounted, `root` is "/" of its namespace."""

    def __init__(self, home, disk=None, **flags):
        self.folder = Path(home) / "mnt"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lake = Path(disk.mount if disk else home) / "lake"
        self.lake.mkdir(exist_ok=True)
        super().__init__(self.lake.with_name("data"), under={"/": f"file://{self.lake}"}, fuse=self.folder, **flags)

    def start(self, timeout=60, **env):
        super().start(timeout, **env)
        RUNNING.add(self)
        wait_until(lambda: answers(self.folder), f"mounted at {self.folder}")
        return self

    def unmount_dead(self):
        """What a power cut does to a mount: it goes with its daemon."""
        self.kill()
        if file_system(self.folder):
            subprocess.run(["umount", self.folder], check=True)

    def close(self):
        """SIGTERM unmounts and exits 0."""
        status = self.term() if self.alive() else None
        left = take_away(self.folder)
        assert status in (0, None) and left is None, f"SIGTERM ended with {status}, {left} is still mounted: {self.log()[-2000:]}"


class PlainMount:
    """ext4 in Forebay's place."""

    def __init__(self, home, disk=None, **_):
        self.own = None if disk else LoopDisk(str(home), size="8G")
        self.folder = Path((disk or self.own).mount)

    def start(self, **_):
        return self

    def alive(self):
        return True

    def kill(self):
        return True

    def unmount_dead(self):
        pass

    def log(self):
        return ""

    def close(self):
        if self.own:
            wait_until(lambda: subprocess.run(["umount", self.folder]).returncode == 0, "no longer busy")
            os.remove(self.own.image)


Mount = PlainMount if PLAIN else ForebayMount


@contextlib.contextmanager
def mounted(**flags):
    """A mount, running; gone without a trace at the end. Its path is short, for sockets, and open to every user."""
    home = tempfile.mkdtemp(prefix="fb-")
    os.chmod(home, 0o755)
    mount = Mount(home, **flags)
    try:
        yield mount.start()
    finally:
        mount.close()
        shutil.rmtree(home)


@contextlib.contextmanager
def attached(server, folder, *options):
    """`forebay mount` of a running worker, ended by `forebay unmount`."""
    folder.mkdir(exist_ok=True)
    run = functools.partial(subprocess.run, check=True, timeout=30, env={**os.environ, "FOREBAY_ADDR": server.flight})
    run([BINARY, "mount", folder, *options])
    try:
        wait_until(lambda: answers(folder), f"mounted at {folder}")
        yield folder
        if server.alive():
            run([BINARY, "unmount", folder])
        assert file_system(folder) is None
    finally:
        take_away(folder)
