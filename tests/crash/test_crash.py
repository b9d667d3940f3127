"""Nothing acknowledged is ever lost: the bounded run of every push. `python -m tests.crash` runs more."""

import os
import random

import pytest

from tests.crash.rounds import bench, can_cut
from tests.crash.workload import Mismatch
from tests.harness import StartFailed

SEED = os.environ.get("FOREBAY_SEED", str(random.SystemRandom().randrange(1 << 32)))
needs_loop = pytest.mark.skipif(not can_cut(), reason="cutting power needs root and loop devices")


@pytest.fixture(autouse=True)
def seed():
    print(f"\nFOREBAY_SEED={SEED}")
    return SEED


def test_kills_lose_nothing():
    with bench(f"{SEED}/kill") as b:
        for _ in range(20):
            b.kill()
        b.compare_under_store()
        assert b.hits == {"kill": 20} and b.crew.acked > 20, b.hits


def test_every_crash_point_is_reached_and_loses_nothing():
    with bench(f"{SEED}/points") as b:
        missed = b.crash_points()
        b.compare_under_store()
        assert not missed, f"not reached in 40 s of load: {missed}"


def test_a_recovery_that_crashes_five_deep_converges():
    with bench(f"{SEED}/recovery") as b:
        b.crash_recovery(depth=5)
        b.compare_under_store()


def test_sigterm_under_load_drains_and_loses_nothing():
    with bench(f"{SEED}/term") as b:
        b.terminate()
        b.compare_under_store()


@needs_loop
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_lose_nothing(kind):
    with bench(f"{SEED}/cut", kind) as b:
        for _ in range(15):
            b.cut()
        b.compare_under_store()
        assert b.hits == {f"cut {kind}": 15}, b.hits


def test_kills_lose_nothing_in_two_data_folders():
    with bench(f"{SEED}/two", second=True) as b:
        for _ in range(8):
            b.kill()
            b.hit("both") if all(b.bytes_in(folder) > 0 for folder in (b.server.data, *b.more_data)) else None
        missed = b.crash_points()
        b.crash_recovery(depth=3)
        b.compare_under_store()
        assert b.hits["kill"] == 8 and b.hits.get("both", 0) > 0 and not missed, (b.hits, missed)


@needs_loop
def test_power_cuts_lose_nothing_on_two_disks():
    with bench(f"{SEED}/two-cut", "ext4", second=True) as b:
        for _ in range(10):
            b.cut()
            b.hit("both") if all(b.bytes_in(folder) > 0 for folder in (b.server.data, *b.more_data)) else None
        b.compare_under_store()
        assert b.hits["cut ext4+xfs"] == 10 and b.hits.get("both", 0) > 0, b.hits


@needs_loop
def test_the_harness_sees_the_loss_when_fsync_is_off():
    """The negative control: the same cuts with acknowledgements that lie must be reported."""
    with bench(f"{SEED}/control", "ext4", fsync="off") as b:
        b.kill()  # Without a cut nothing is lost: what is seen next is the cut's doing.
        with pytest.raises((Mismatch, StartFailed)) as loss:
            for _ in range(10):
                b.cut()
        print("seen:", str(loss.value)[-200:])
