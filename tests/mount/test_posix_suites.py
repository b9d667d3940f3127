"""Suites that others wrote for file systems: pjdfstest, fsx, fio --verify, stress-ng --verify."""

import contextlib
import os
import random
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.mount.mounted import LONG, PLAIN, mounted

TOOLS = Path(__file__).parents[2] / ".venv/tools/bin"


def run(*command, timeout=300, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, **options)
    return done.returncode, done.stdout + done.stderr


# ---- pjdfstest

HARD_LINKS = "hard links are refused with EPERM"
EXCEPTIONS = {  # cases of pjdfstest that do not pass: pattern → reason. docs/posix.md quotes this table.
    "link::changed_ctime_success::*": HARD_LINKS,
    "link::remove_link::*": HARD_LINKS,
    "link::share_metadata::*": HARD_LINKS,
    "rename::preserve_metadata::[!ds]*": HARD_LINKS,
    "rename::preserve_metadata::socket": HARD_LINKS,
    "rename::to_multiply_linked::*": HARD_LINKS,
    "unlink::unchanged_ctime_failed::*": HARD_LINKS,
    "unlink::update_ctime_success::*": HARD_LINKS,
    "rename::updates_link_parent": "a directory says that it has one link: nobody counts its subdirectories",
    "link::link_count_max": "Linux tells no limit of links for a FUSE mount",
}
PJDFSTEST = """
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}
[settings]
naptime = 0.02
allow_remount = {remount}
[dummy_auth]
entries = [["nobody", "{group}"], ["tests", "tests"]]
"""


def pjdfstest(folder, tmp_path, *patterns, remount=False):
    """{case: "ok", "FAILED" or "skipped"}, and what was said."""
    group = run("id", "-gn", "nobody")[1].strip()
    config = tmp_path / "pjdfstest.toml"
    config.write_text(PJDFSTEST.format(remount=str(remount).lower(), group=group))
    environment = {**os.environ, "NO_COLOR": "1", "RUST_BACKTRACE": "0"}
    _, said = run(TOOLS / "pjdfstest", "-c", config, "-p", folder, "--secondary-fs", "/dev/shm", *patterns, env=environment)
    return dict(re.findall(r"^(\w+(?:::\w+)+) +(ok|FAILED|skipped)$", said, re.M)), said


def excepted(case):
    return not PLAIN and any(fnmatch(case, pattern) for pattern in EXCEPTIONS)


def test_pjdfstest_has_no_failure_but_the_named_ones(folder, tmp_path):
    cases, said = pjdfstest(folder, tmp_path)
    print({outcome: list(cases.values()).count(outcome) for outcome in ("ok", "FAILED", "skipped")})
    assert len(cases) == 398, said[-2000:]
    unexpected = [case for case, outcome in cases.items() if (outcome != "ok") != excepted(case) and "erofs" not in case]
    assert not unexpected, "\n".join(f"{c}: {cases[c]} {failure(said, c)}" for c in unexpected)


def failure(said, case):
    found = re.search(rf"^{case} +FAILED\n(.*)", said, re.M)
    return found[1].strip() if found else ""


def test_pjdfstest_finds_a_read_only_mount_read_only(folder, tmp_path):
    """Apart from the others, since the kernel remounts nothing read-only while a case before left a file open."""
    cases, said = pjdfstest(folder, tmp_path, "erofs", remount=True)
    assert len(cases) == 13 and set(cases.values()) == {"ok"}, said


# ---- fsx

FSX = """
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 3
invalidate = 1
truncate = 5
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 1
punch_hole = 1
sendfile = 1
posix_fadvise = 1
copy_file_range = 1
"""


def seeds(fixed, fresh):
    """The same ones every time, and some that were never tried."""
    return [*range(1, fixed + 1), *(random.SystemRandom().randrange(1 << 32) for _ in range(fresh))]


def fsx(folder, tmp_path, seed, operations=20_000):
    config = tmp_path / f"fsx-{seed}.toml"
    config.write_text(FSX)
    code, said = run(TOOLS / "fsx", "-f", config, "-N", operations, "-S", seed, "-P", tmp_path, folder / f"fsx-{seed}")
    assert code == 0 and "A-OK" in said, f"seed {seed}: {said[-3000:]}"


def at_once(work, items, workers):
    """Does it for each of the items, several at a time. Fails with all that failed."""
    def attempt(item):
        try:
            work(item)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            return f"{item}: {e}"

    with ThreadPoolExecutor(workers) as pool:
        failures = list(filter(None, pool.map(attempt, items)))
    assert not failures, "\n\n".join(failures)


def test_fsx_finds_every_byte_where_it_was_written(folder, tmp_path):
    tried = seeds(20, 5) if LONG else seeds(2, 1)
    print("fsx seeds", tried)
    at_once(lambda seed: fsx(folder, tmp_path, seed), tried, workers=5)


@contextlib.contextmanager
def freed(mount, path):
    """Persists and frees a path over and over, so that it is evicted while it is in use. Gives the bytes of each round."""
    stop, rounds = threading.Event(), []

    def turn():
        with mount.client() as client:
            while not stop.wait(0.05):
                with contextlib.suppress(Exception):  # It is busy, or not there yet.
                    client.act("persist", path=path, wait=True)
                    rounds.append(client.act("free", path=path)[0]["freed_bytes"])

    thread = threading.Thread(target=turn, daemon=True)
    if not PLAIN:
        thread.start()
    yield rounds
    stop.set()
    if not PLAIN:
        thread.join(30)
        assert sum(rounds) > 0, f"nothing was evicted in {len(rounds)} rounds"


@pytest.mark.parametrize("seed", seeds(20, 5) if LONG else seeds(1, 1))
def test_fsx_finds_every_byte_while_it_is_evicted(tight, tmp_path, seed):
    print("fsx seed", seed)
    with freed(tight, f"/fsx-{seed}") as rounds:
        for _ in range(20):
            fsx(tight.folder, tmp_path, seed, operations=20_000 if LONG else 5_000)
            if PLAIN or sum(rounds) > 0:
                break  # On a fast machine all may be over before an eviction finds the file closed.


# ---- fio

FIO = {
    "sequential": ["--rw=write", "--bs=1M", "--size=24M", "--ioengine=psync"],
    "random": ["--rw=randwrite", "--bs=5000", "--bs_unaligned=1", "--size=10000000", "--ioengine=psync"],
    "direct": ["--rw=randwrite", "--bs=64k", "--size=24M", "--direct=1", "--ioengine=psync"],
    "mapped": ["--rw=randwrite", "--bs=4k", "--size=8M", "--ioengine=mmap"],
    "asynchronous": ["--rw=randwrite", "--bs=16k", "--size=24M", "--ioengine=libaio", "--iodepth=16", "--direct=1"],
}


def fio(folder, kind, *options):
    job = ["--name=job", f"--directory={folder}", "--numjobs=2", "--randseed=7", "--end_fsync=1", "--fallocate=none"]
    # It leaves the state of its verification where it runs.
    code, said = run("fio", *job, *FIO[kind], "--verify=crc32c", "--verify_fatal=1", *options, cwd=folder)
    assert code == 0 and "verify:" not in said, said[-3000:]


@pytest.mark.parametrize("kind", FIO)
def test_fio_verifies_what_it_wrote(folder, kind):
    fio(folder, kind)


def test_fio_verifies_after_a_kill_what_it_synced_before():
    with mounted() as mount:
        for kind in FIO:
            (mount.folder / kind).mkdir()
            fio(mount.folder / kind, kind, "--do_verify=0")
        assert mount.kill()
        mount.start()
        for kind in FIO:
            fio(mount.folder / kind, kind, "--verify_only")


# ---- stress-ng

STRESSORS = """access chdir chmod chown copy-file dentry dir dirdeep dirmany fallocate filename flock fpunch fsize fstat getdent hdd
    io iomix lockf locka lockofd mknod msync open readahead rename seek sendfile symlink sync-file touch utime xattr""".split()


SIZES = {  # so that a second is enough
    "hdd": ["--hdd-bytes", "16M", "--hdd-opts", "wr-rnd,rd-rnd,fsync,utimes"], "fallocate": ["--fallocate-bytes", "16M"],
    "iomix": ["--iomix-bytes", "16M"], "copy-file": ["--copy-file-bytes", "128M"], "dirdeep": ["--dirdeep-inodes", "2000"],
    "readahead": ["--readahead-bytes", "16M"], "sync-file": ["--sync-file-bytes", "16M"], "seek": ["--seek-size", "16M"],
}


def test_stress_ng_verifies(folder):
    def stress(stressor):
        options = [f"--{stressor}", 1, *SIZES.get(stressor, []), "--verify", "-t", 10 if LONG else 1, "--temp-path", folder, "-v"]
        code, said = run("stress-ng", *options, timeout=100)
        assert code == 0 and not re.search(r"stress-ng: (fail|error):", said), said[-3000:]

    at_once(stress, STRESSORS, workers=4)
