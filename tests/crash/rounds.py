"""Rounds of load and fault: a random kill, a named crash point, a power cut, a crash of the recovery itself.

Each round ends with the comparison of `workload`, and proves that its fault hit: the server was alive and under load when it
was killed, the crash point wrote its name before it aborted, the disk refused writes.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.crash.workload import Crew, Mismatch
from tests.harness import LoopDisk, LoopDisks, Server, StartFailed

POINTS = {  # name → the latest hit at which to abort: the further the rarer
    "data-written-not-synced": 40,
    "data-synced-not-acked": 40,
    "dedicated-switch": 3,
    "sealed-not-committed": 30,
    "committed-not-acked": 30,
    "part-sealed-not-published": 5,
    "part-encoded-not-replaced": 5,
    "part-replaced-not-freed": 5,
    "published-not-acked": 5,
    "intent-written": 10,
    "visible-not-recorded": 10,
    "recorded-not-trimmed": 10,
    "pack-visible-not-told": 10,
    "pack-rewritten-not-deleted": 1,
}
RECOVERY_POINTS = ["recovery-replay", "recovery-scanned"]


class Bench:
    """One data folder or several, and one under-store, through many faults."""

    points = POINTS
    packed_folder = "/w0"  # What the first worker writes goes into packs.

    def __init__(self, seed, home=None, disk=None, workers=4, more_data=(), **flags):
        self.random = random.Random(f"{seed}/bench")
        self.home = home or tempfile.mkdtemp(prefix="forebay-crash-")
        self.disk = disk
        root = disk.mount if disk else self.home
        self.lake = f"{root}/lake"
        os.makedirs(self.lake, exist_ok=True)
        self.more_data = more_data
        self.server, self.crew = self.put_up(root, workers, seed, **flags)
        self.hits = {}

    def put_up(self, root, workers, seed, **flags):
        """The server, not yet started, and those who write to it."""
        return Server([f"{root}/data", *self.more_data], under={"/": f"file://{self.lake}"}, **flags), Crew(workers, seed)

    def let_go(self):
        """What keeps the disk busy although server and writers are gone."""

    def expected(self, client):
        """{path: content} of all that was acknowledged."""
        expected = {}
        for worker in self.crew.workers:
            expected |= worker.state.files
            for dataset in filter(client.exists, (worker.dataset, worker.beside)):
                expected |= {p: client.file(p) for p in client.names(dataset)}
        return expected

    def hit(self, what):
        self.hits[what] = self.hits.get(what, 0) + 1

    def begin(self, **env):
        self.server.start(**env)
        self.set_policies()
        self.crew.start(self.server)

    def set_policies(self):
        """Small files of one worker go into packs, and its dataset becomes Parquet, on their way to the under-store."""
        with self.server.client() as client:
            client.act("policy_set", path=self.packed_folder, pack=True)
            client.act("policy_set", path=self.crew.workers[0].dataset, persist_format="parquet")

    def under_load(self, seconds):
        """Runs the load for `seconds`, and on until something was acknowledged."""
        before, end = self.crew.acked, time.monotonic() + 30
        time.sleep(seconds)
        while self.crew.acked == before:
            if time.monotonic() > end or not self.server.alive():
                raise Mismatch(f"nothing acknowledged in 30 s: {[w.error for w in self.crew.workers]} {self.server.log()[-2000:]}")
            time.sleep(0.01)

    def settle(self):
        self.server.start()
        self.crew.settle(self.server)
        self.server.kill()

    # ---- faults

    def kill(self):
        """SIGKILL at a random time under load."""
        self.begin()
        self.under_load(self.random.uniform(0.05, 0.8))
        ended_at = time.monotonic()
        if not self.server.kill():
            raise Mismatch(f"the server ended by itself: {self.server.log()[-2000:]}")
        self.crew.join(ended_at)
        self.hit("kill")
        self.settle()

    def crash_point(self, name):
        """Abort at a named moment. Returns whether the load reached it."""
        log = f"{self.home}/points"
        Path(log).write_text("")
        skip, started = self.random.randrange(self.points[name]), time.monotonic()
        self.begin(FOREBAY_FAILPOINTS=f"{name}={skip}*off->return(abort)", FOREBAY_FAILPOINTS_LOG=log)
        end = time.monotonic() + 20
        while self.server.alive() and time.monotonic() < end:
            time.sleep(0.01)
        reached = not self.server.alive()
        if reached and (self.server.process.returncode != -signal.SIGABRT or name not in Path(log).read_text()):
            raise Mismatch(f"{name}: ended with {self.server.process.returncode}: {self.server.log()[-2000:]}")
        self.server.kill()
        self.crew.join(started)
        self.settle()
        if reached:
            self.hit(name)
        return reached

    def crash_points(self):
        """Abort at every named moment; answers those that the load did not reach in two tries."""
        return [name for name in self.points if not (self.crash_point(name) or self.crash_point(name))]

    def crash_recovery(self, depth=5):
        """Kills under load, then ends the recovery early again and again: at its crash points, and at random moments."""
        self.begin()
        self.under_load(0.3)
        ended_at = time.monotonic()
        self.server.kill()
        self.crew.join(ended_at)
        for _ in range(depth):
            name = self.random.choice(RECOVERY_POINTS)
            log = f"{self.home}/points"
            Path(log).write_text("")
            with contextlib.suppress(StartFailed):
                self.server.start(FOREBAY_FAILPOINTS=f"{name}=return(abort)", FOREBAY_FAILPOINTS_LOG=log)
            if self.server.alive() or name not in Path(log).read_text():
                raise Mismatch(f"{name} was not reached: {self.server.log()[-2000:]}")
            self.hit(name)
        self.settle()

    def cut(self):
        """Power cut at a random time under load: everything that was not synced is gone."""
        self.begin()
        self.under_load(self.random.uniform(0.05, 0.8))
        cut_at = time.monotonic()

        def end():
            if not self.server.kill():
                raise Mismatch(f"the server ended before the cut: {self.server.log()[-2000:]}")
            self.crew.join(cut_at)
            for worker in self.crew.workers:
                worker.doubt_after(cut_at)
            self.let_go()

        self.disk.cut(end)
        self.hit(f"cut {self.disk.kind}")
        self.settle()

    def terminate(self):
        """SIGTERM under load: drains, exits 0, and a restart loses nothing."""
        self.begin()
        self.under_load(0.2)
        ended_at = time.monotonic()
        status = self.server.term()
        self.crew.join(ended_at)
        if status != 0:
            raise Mismatch(f"SIGTERM ended with {status}")
        self.hit("terminate")
        self.settle()

    # ---- the end

    def compare_under_store(self):
        """Waits until all is persisted; then the under-store holds exactly what was acknowledged, and nothing beside it."""
        self.start_and_clear_up()
        with self.server.client() as client:
            [answer] = client.act("wait_persisted", path="/", timeout="120s")
            if answer["state"] not in ("persisted", "clean"):
                raise Mismatch(f"not persisted in 120 s: {client.act('status')}")
            expected = self.expected(client)
        self.server.term()
        found = {f"/{p.relative_to(self.lake)}": p.read_bytes() for p in Path(self.lake).rglob("*") if p.is_file()}
        found = {p: content for p, content in found.items() if not p.startswith("/.forebay-packs/")}
        if self.packed_folder:
            found |= self.packed()
        wrong = sorted(p for p in expected.keys() | found.keys() if expected.get(p) != found.get(p))
        if wrong:
            raise Mismatch(f"under-store: {len(wrong)} differ: " + "; ".join(
                f"{p}: acknowledged {'bytes ' + str(len(expected[p])) if p in expected else 'nothing'}, found {'bytes ' + str(len(found[p])) if p in found else 'nothing'}" for p in wrong[:5]))
        return len(found)

    def start_and_clear_up(self, timeout=60):
        """Starts the server and waits until it has taken away what the one before left in its under-store; nobody else waits for that."""
        before, end = self.ready(), time.monotonic() + timeout
        self.server.start()
        while self.ready() == before:
            if time.monotonic() > end:
                raise Mismatch(f"the under-store is not ready in {timeout} s: {self.server.log()[-2000:]}")
            time.sleep(0.01)

    def ready(self):
        """How often a server has said that its under-store is ready."""
        return self.server.log().count("under-store ready")

    def packed(self):
        """{path: content} of what packs hold, as a server shows it that has nothing but the under-store."""
        with tempfile.TemporaryDirectory(prefix="forebay-crash-") as empty, Server(f"{empty}/data", under={"/": f"file://{self.lake}"}) as server:
            with server.client() as client:
                paths = client.names(self.packed_folder, recursive=True) if client.exists(self.packed_folder) else []
                return {p: client.file(p) for p in paths if client.act("stat", path=p)[0]["kind"] == "file"}

    def bytes_in(self, folder):
        """Of segments."""
        return sum(p.stat().st_size for p in Path(folder).iterdir() if p.suffix in (".shared", ".data"))

    def close(self):
        self.server.kill()
        if self.disk:
            self.disk.close()
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def bench(seed, kind=None, make=Bench, second=False, **flags):
    """A bench on the machine's own disk, or on a loop file of `kind` (ext4, xfs) that can lose power; with `second`, another data folder, and another
    loop file."""
    home = tempfile.mkdtemp(prefix="forebay-crash-")
    disk = LoopDisk(home, kind) if kind else None
    if second:
        os.makedirs(f"{home}/second")
        if disk:
            other = LoopDisk(f"{home}/second", "xfs" if kind == "ext4" else "ext4")
            disk = LoopDisks(disk, other)
        flags["more_data"] = [f"{other.mount if kind else home + '/second'}/data"]
    it = make(seed, home, disk, **flags)
    try:
        yield it
    finally:
        it.close()


def can_cut():
    """Whether this machine lets us mount loop files."""
    return os.geteuid() == 0 and shutil.which("xfs_io") and subprocess.run(["losetup", "-f"], capture_output=True).returncode == 0
