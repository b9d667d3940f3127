"""fsspec's own suites for file systems: copy, get, put, open, pipe."""

import uuid

import pytest

pytest.importorskip("fsspec")

import fsspec
from fsspec.tests import abstract


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, server):
        host, port = server.flight.split("://")[1].split(":")
        return fsspec.filesystem("forebay", host=host, port=int(port))

    @pytest.fixture
    def fs_path(self, fs):
        path = f"/abstract/{uuid.uuid4().hex[:8]}"
        fs.makedirs(path)
        return path


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass
