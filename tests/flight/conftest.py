import pytest

from tests.harness import Server


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def server(tmp_path_factory, lake):
    with Server(tmp_path_factory.mktemp("data") / "d", under={"/kept": f"file://{lake}"}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def other(server):
    with server.client() as client:
        yield client
