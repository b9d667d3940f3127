"""examples/images: what it reports, that a wrong byte ends it, and that it leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import BINARY
from tests.mount.mounted import only_forebay, wait_until

pytestmark = only_forebay
EXAMPLE = Path(__file__).parents[2] / "examples/images"
IMAGES = 300


def start(tmp_path, *options):
    """run.sh against a folder as the store, with everything it makes under `tmp_path`."""
    command = [EXAMPLE / "run.sh", "--no-gateway", *options]
    return subprocess.Popen(command, env={**os.environ, "FOREBAY_BIN": BINARY, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True)


def nothing_is_left_of(tmp_path):
    """No mount, no process and no file."""
    mounts, ours = Path("/proc/self/mountinfo").read_text(), str(tmp_path)
    return ours not in mounts and not any(ours in command for command in commands()) and not list(tmp_path.glob("forebay-images-*"))


def commands():
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            yield (process / "cmdline").read_text(errors="replace")


def test_every_source_is_read_twice_and_measured(tmp_path):
    report = tmp_path / "report.json"
    run = start(tmp_path, "--images", str(IMAGES), "--workers", "2", "--json", report)
    _, log = run.communicate(timeout=100)
    assert run.returncode == 0, log
    found = json.loads(report.read_text())
    assert (found["images"], found["under_store"], found["workers"]) == (IMAGES, "local folder", 2)
    native, *mounts = dict.fromkeys(row["source"] for row in found["rows"])
    assert mounts == ["Forebay, pipeline mount", "Forebay, dataset mount"] and "Forebay" not in native
    assert [(row["source"], row["epoch"]) for row in found["rows"]] == [(source, epoch) for source in (native, *mounts) for epoch in (1, 2)]
    for row in found["rows"]:
        assert row["images"] == IMAGES and row["images_per_s"] > 0 and row["mb_per_s"] > 0 and row["batch_p99_ms"] > 0
        assert row["cpu_s_per_1000"]["loader"] > 0 and (row["cpu_s_per_1000"]["Forebay"] > 0 or row["source"] == native)
    assert nothing_is_left_of(tmp_path)


def test_a_wrong_byte_ends_the_run(tmp_path):
    folder = tmp_path / "images"
    command = [sys.executable, EXAMPLE / "images.py", "--no-gateway", "--images", "100", "--workers", "2", "--folder", folder]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    victim = folder / "class_042/0000042.jpg"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    again = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert again.returncode == 1 and "class_042/0000042.jpg: read" in again.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, ending):
    run = start(tmp_path, "--images", "100000")
    wait_until(lambda: list(tmp_path.glob("forebay-images-*/images/class_099/*.jpg")), "images are generated", 60)
    run.send_signal(ending)
    run.communicate(timeout=60)
    assert run.returncode == 128 + ending
    wait_until(lambda: nothing_is_left_of(tmp_path), "everything has ended")
