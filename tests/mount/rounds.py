"""Rounds of load through the mount and fault, as in tests/crash."""

import functools
import os

from tests.crash import rounds
from tests.crash.workload import Mismatch
from tests.harness import StartFailed
from tests.mount.mounted import PLAIN, Mount
from tests.mount.workload import Crew

DRAFT_POINTS = {  # As in tests/crash: of files that are changed in place, and of those that are small.
    "draft-written-not-flushed": 4,
    "draft-flushed-not-entered": 4,
    "draft-synced-not-noted": 4,
    "draft-summed-not-sealed": 4,
    "sealed-not-committed": 30,
    "committed-not-acked": 30,
}


class MountBench(rounds.Bench):
    """One data folder, one under-store and one mount, through many faults. After a kill the next start takes the dead mount over; a
    power cut takes it away. `patient`: see `Worker`."""

    points = DRAFT_POINTS
    packed_folder = None

    def put_up(self, root, workers, seed, patient=not PLAIN, **flags):
        return Mount(self.home, self.disk, **flags), Crew(workers, seed, patient)

    def set_policies(self):
        """Plain files stay as they are."""

    def let_go(self):
        self.server.unmount_dead()

    def settle(self):
        super().settle()
        if self.disk and not PLAIN:
            self.let_go()

    def expected(self, client):
        return {f"/{w.folder}/{path}": content for w in self.crew.workers for path, [content] in w.state.items() if not path.endswith("/")}

    def close(self):
        self.server.unmount_dead()
        super().close()


bench = functools.partial(rounds.bench, make=MountBench)


def loss_without_fsync(seed):
    """The negative control, None when the harness saw nothing: with fsync off, or, on a plain file system, when Forebay's promises are
    expected of it. What stood before the first cut is on the disk."""
    with bench(seed, "ext4", **({"patient": True} if PLAIN else {"fsync": "off"})) as b:
        b.settle()
        os.sync()
        try:
            for _ in range(20):
                b.cut()
        except (Mismatch, StartFailed) as loss:
            return str(loss)[-200:]
