"""examples/inference: files are scored through the mount, and the store has every output. Also what it rests on: renamed files are persisted."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.harness import BINARY, Server
from tests.mount.mounted import only_forebay

pytestmark = only_forebay
EXAMPLE = Path(__file__).parents[2] / "examples/inference/run.sh"


def test_every_file_is_scored_and_in_the_store(tmp_path):
    report = tmp_path / "report.json"
    command = [EXAMPLE, "--files", "12", "--rows", "5000", "--json", report]
    run = subprocess.run(command, env={**os.environ, "FOREBAY_BIN": BINARY, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "all 12 outputs, and each is right" in run.stdout
    assert json.loads(report.read_text())["rows"] == 60_000
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text() and not list(tmp_path.glob("forebay-inference-*"))


@pytest.mark.parametrize("round", range(3))
def test_a_file_that_is_renamed_while_it_is_looked_at_is_persisted(tmp_path, round):
    """The persister holds a staging name back, and must hear of its rename though it looks just between the plan and the commit."""
    lake, mount = tmp_path / "lake", tmp_path / "mount"
    lake.mkdir()
    mount.mkdir()

    def write(worker):
        for k in range(40):
            aside = mount / f"lake/{worker}-{k}.inprogress"
            with open(aside, "wb") as file:
                file.write(b"x" * 1000)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(mount / f"lake/{worker}-{k}")

    with Server(tmp_path / "d", under={"/lake": f"file://{lake}"}, fuse=mount) as server, server.client() as client:
        writers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        [writer.start() for writer in writers]
        [writer.join() for writer in writers]
        client.act("wait_persisted", path="/lake", timeout="20s")
        assert sorted(p.name for p in lake.iterdir() if not p.name.startswith(".")) == sorted(f"{worker}-{k}" for worker in range(4) for k in range(40))
        assert server.term() == 0
