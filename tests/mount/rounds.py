"""Rounds of load through the mount and fault, as in tests/crash."""

import functools

from tests.crash import rounds
from tests.mount.mounted import PLAIN, Mount
from tests.mount.workload import Crew


class MountBench(rounds.Bench):
    """One data folder, one under-store and one mount, through many faults. After a kill the next start takes the dead mount over; a
    power cut takes it away. `patient`: see `Worker`."""

    def put_up(self, root, workers, seed, patient=not PLAIN, **flags):
        return Mount(self.home, self.disk, **flags), Crew(workers, seed, patient)

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
