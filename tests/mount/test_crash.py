"""What fsync, close, rename and the fsync of a directory promised on the mount is there after a kill or a power cut: the bounded run.
`python -m tests.mount` runs more."""

import os
import random

import pytest

from tests.crash.rounds import can_cut
from tests.mount.mounted import PLAIN, only_forebay
from tests.mount.rounds import bench, loss_without_fsync
from tests.mount.workload import shows

SEED = os.environ.get("FOREBAY_SEED", str(random.SystemRandom().randrange(1 << 32)))
needs_loop = pytest.mark.skipif(not can_cut(), reason="cutting power needs root and loop devices")


@pytest.fixture(autouse=True)
def seed():
    print(f"\nFOREBAY_SEED={SEED}")
    return SEED


@pytest.mark.parametrize(("content", "versions", "expected"), [
    (b"abc", [b"abc"], True), (b"abd", [b"abc"], False), (None, [b"abc"], False), (None, [None], True), (b"", [None], False),
    (None, [None, b"", b"abc"], True), (b"\0\0c", [None, b"", b"abc"], True), (b"ab", [None, b"", b"abc"], True), (b"xb", [b"", b"abc"], False),
    (b"aXc", [b"abc", b"aXX"], True), (b"aYc", [b"abc", b"aXX"], False), (b"a", [b"abc", b"aXX"], False), (b"\0bc", [b"abc", b"aXX"], False),
])
def test_a_file_shows_what_was_promised_or_what_was_written_since(content, versions, expected):
    assert shows(content, versions) == expected


@only_forebay
def test_kills_lose_nothing():
    with bench(f"{SEED}/mount-kill") as b:
        for _ in range(10):
            b.kill()
        b.compare_under_store()
        assert b.hits == {"kill": 10} and b.crew.acked > 10, b.hits


@only_forebay
def test_every_crash_point_is_reached_and_loses_nothing():
    with bench(f"{SEED}/mount-points") as b:
        missed = b.crash_points()
        b.compare_under_store()
        assert not missed, f"not reached: {missed}"


@needs_loop
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_lose_nothing(kind):
    with bench(f"{SEED}/mount-cut", kind) as b:
        for _ in range(6):
            b.cut()
        if not PLAIN:
            b.compare_under_store()
        assert b.hits == {f"cut {kind}": 6}, b.hits
        print(f"{b.crew.acked} acknowledged")


@needs_loop
def test_the_harness_sees_the_loss_when_nothing_is_synced():
    loss = loss_without_fsync(f"{SEED}/mount-control")
    assert loss
    print("seen:", loss)


@only_forebay
def test_a_sigterm_under_load_drains_and_loses_nothing():
    with bench(f"{SEED}/mount-term") as b:
        b.terminate()
        b.compare_under_store()
