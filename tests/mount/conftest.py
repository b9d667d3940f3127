import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.mount.mounted import PLAIN, mounted


def pytest_report_header():
    return "mount: plain ext4 instead of Forebay" if PLAIN else None


@pytest.fixture(scope="session", autouse=True)
def root():
    if os.geteuid() != 0:
        pytest.skip("mounting, and becoming other users, needs root")


@pytest.fixture(scope="module")
def mount(root):
    with mounted() as mount:
        yield mount


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
        yield client
