import functools
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from tests.mount.mounted import LONG, PLAIN, RUNNING, mounted


def pytest_report_header():
    return "mount: plain ext4 instead of Forebay" if PLAIN else None


@pytest.fixture(scope="session", autouse=True)
def root():
    if os.geteuid() != 0:
        pytest.skip("mounting, and becoming other users, needs root")


@pytest.fixture(autouse=True)
def patience():
    """A call that never returns ends its test and not the suite: its server is killed, so that it returns with an error."""
    timer = threading.Timer(600 if LONG else 120, lambda: [mount.kill() for mount in list(RUNNING)])
    timer.start()
    yield
    timer.cancel()


@pytest.fixture(scope="module")
def served(root):
    with mounted() as mount:
        yield mount


@pytest.fixture
def mount(served):
    """One mount for all tests of a module; put up again when a test left it dead."""
    return served if served.alive() else served.start()


@pytest.fixture(scope="module")
def tight(root):
    """A mount with hardly any cache: what is read was mostly evicted before."""
    with mounted(cache_max="1MiB", dirty_max="16MiB") as mount:
        yield mount


@pytest.fixture
def folder(mount):
    """A directory on the mount for one test. Every user may enter it."""
    path = Path(tempfile.mkdtemp(prefix="", dir=mount.folder))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def client(mount):
    if PLAIN:
        pytest.skip("a plain file system has no Flight")
    with mount.client() as client:
        client.act = functools.partial(client.act, deadline=90)
        yield client
