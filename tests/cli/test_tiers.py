"""A tier on a tmpfs: what is read again lies in memory, what is not does not, and losing it costs nothing but speed."""

import random
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.harness import Server, StartFailed

SIZE = 10_000_000


@pytest.fixture
def tmpfs():
    folder = Path(tempfile.mkdtemp(prefix="forebay-tier-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(tmp_path, tmpfs):
    path = tmp_path / "forebay.toml"
    path.write_text(f'[[tier]]\nname = "memory"\ndir = "{tmpfs}"\nsize = "64MiB"\n')
    return path


@pytest.fixture
def lake(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    for name in "ab":
        (lake / name).write_bytes(random.Random(name).randbytes(SIZE))
    return lake


@pytest.fixture
def server(tmp_path, lake, config):
    with Server(tmp_path / "d", under={"/lake": f"file://{lake}"}, config=config) as server:
        yield server


def tier(cli):
    [tier] = cli.json("status")["tiers"]
    return tier


def blocks(tmpfs):
    return [path for path in (tmpfs / "clean").rglob("*") if path.is_file()]


def wait_for(cli, used):
    end = time.monotonic() + 20
    while tier(cli)["used_bytes"] != used:
        assert time.monotonic() < end, tier(cli)
        time.sleep(0.05)


def test_what_is_read_again_lies_in_memory(server, lake, tmpfs):
    cli = Cli(server)
    content = (lake / "a").read_bytes()
    assert cli.run("cat", "/lake/a") == content
    assert tier(cli) == {"name": "memory", "folder": str(tmpfs), "size_bytes": 64 << 20, "used_bytes": 0, "hits": 0}
    assert cli.run("cat", "/lake/a") == content
    wait_for(cli, SIZE)
    assert sum(path.stat().st_size for path in blocks(tmpfs)) == SIZE
    assert cli.run("cat", "/lake/a") == content
    assert tier(cli)["hits"] == 5
    assert "tier       memory" in cli.text("status")
    metrics = urllib.request.urlopen(f"{server.http}/metrics").read().decode()
    assert 'forebay_tier_bytes_max{tier="memory"} 67108864' in metrics
    # Someone empties it.
    for path in blocks(tmpfs):
        path.unlink()
    assert cli.run("cat", "/lake/a") == content
    cli.run("free", "/lake")
    assert tier(cli)["used_bytes"] == 0


def test_a_policy_brings_up_at_once_and_keeps_down(server, lake, tmpfs):
    cli = Cli(server)
    assert "auto, disk, memory" in cli.refused(2, "policy", "set", "/lake/a", "tier=nvme")
    cli.run("policy", "set", "/lake/a", "tier=memory")
    cli.run("policy", "set", "/lake/b", "tier=disk")
    cli.run("load", "/lake", "--wait")
    wait_for(cli, SIZE)
    for _ in range(3):
        assert cli.run("cat", "/lake/b") == (lake / "b").read_bytes()
    assert tier(cli)["used_bytes"] == SIZE
    server.restart()
    assert tier(cli := Cli(server))["used_bytes"] == 0 and not blocks(tmpfs)
    assert cli.run("cat", "/lake/a") == (lake / "a").read_bytes()
    wait_for(cli, SIZE)


def test_a_tier_belongs_to_one_server(server, tmp_path, config, tmpfs):
    with pytest.raises(StartFailed, match=f"tier memory: another process uses {tmpfs}"):
        Server(tmp_path / "other", config=config).start(timeout=20)


def test_a_tier_that_can_not_be_made_is_told_at_the_start(tmp_path):
    config = tmp_path / "forebay.toml"
    (tmp_path / "file").touch()
    config.write_text(f'[[tier]]\nname = "memory"\ndir = "{tmp_path}/file/x"\nsize = "64MiB"\n')
    with pytest.raises(StartFailed, match="tier memory: can not use .*name a folder that can be written"):
        Server(tmp_path / "d", config=config).start(timeout=20)
