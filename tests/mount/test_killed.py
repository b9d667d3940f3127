"""Random operations on files, in memory and on the mount, while the server is killed: up to the last fsync every byte is there."""

import contextlib
import os
import pickle
import random
import subprocess
import sys
import threading
import time

import pytest

from tests.mount.mounted import LONG, mounted, only_forebay
from tests.mount.workload import shows

SEED = os.environ.get("FOREBAY_SEED", str(random.SystemRandom().randrange(1 << 32)))
ROUNDS, PAUSE = (12, 5) if LONG else (5, 1.5)
SMALL, LARGE = 64 << 10, 3 << 20


class Life:
    """One exerciser, from its start to the server's death. `images`: what the file may be like since the last promise."""

    def __init__(self, path, seed, size_max):
        command = [sys.executable, "-m", "tests.mount.exerciser", path, seed, str(size_max)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.images, self.synced = [], 0
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while True:
            try:
                what, image = pickle.load(self.process.stdout)
            except (EOFError, pickle.UnpicklingError):
                return
            if what == "image":
                self.images.append(image)
            else:
                self.synced += 1
                self.images = self.images[-1:]

    def end(self):
        said = self.process.stderr.read().decode()
        self.process.wait(60)
        self.thread.join()
        assert "WRONG BYTES" not in said and "AssertionError" not in said, said
        return said


def evict(mount, path):
    """Bytes of a path that left the cache, if they could: it is busy, or not there yet."""
    with mount.client() as client, contextlib.suppress(Exception):
        client.act("persist", path=path, wait=True, deadline=2)
        return client.act("free", path=path)[0]["freed_bytes"]
    return 0


@only_forebay
@pytest.mark.parametrize("evicting", [False, True], ids=["plain", "evicted"])
def test_up_to_the_last_fsync_every_byte_is_there_after_a_kill(evicting):
    print(f"\nFOREBAY_SEED={SEED}")
    flags = {"cache_max": "1MiB", "dirty_max": "64MiB"} if evicting else {}
    chance = random.Random(SEED)
    with mounted(**flags) as mount:
        paths = {mount.folder / "small": SMALL, mount.folder / "large": LARGE}
        synced = evicted = 0
        for turn in range(ROUNDS):
            lives = {path: Life(path, f"{SEED}/{turn}/{path.name}", size_max) for path, size_max in paths.items()}
            end = time.monotonic() + PAUSE * chance.uniform(0.5, 1)
            while time.monotonic() < end:
                evicted += evict(mount, "/small") if evicting else 0
                time.sleep(0.02)
            assert mount.kill(), "the server was not alive"
            ends = {path: life.end() for path, life in lives.items()}
            mount.start()
            for path, life in lives.items():
                assert life.images, ends[path]
                content = path.read_bytes() if path.exists() else None
                never = [None] if not life.synced and turn == 0 else []
                assert shows(content, life.images + never), f"{path.name}, round {turn}: {len(life.images)} images since the last promise"
                synced += life.synced
        assert synced > ROUNDS, "hardly anything was promised"
        assert not evicting or evicted > 0, "nothing was evicted"
        print(f"{synced} promises kept over {ROUNDS} kills")
