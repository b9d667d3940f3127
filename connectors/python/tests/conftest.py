"""A server for each module, a client of it, a path of its own for each test. FOREBAY_BIN names the binary, as for all suites."""

import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

import forebay  # noqa: E402

from tests.harness import Server  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_this_shell():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FOREBAY_ADDR", "FOREBAY_TOKEN", "FOREBAY_TOKEN_FILE", "FOREBAY_CA"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("data") / "d") as server:
        yield server


@pytest.fixture
def client(server):
    with forebay.connect(server.flight, retry_for=10) as client:
        yield client


@pytest.fixture
def path():
    return f"/p/{uuid.uuid4().hex[:8]}"
