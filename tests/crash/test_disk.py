"""The disk under the data folder: flushes counted, flushes that fail, a full disk, flipped bits, folders that cannot be trusted."""

import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.harness import BINARY, LoopDisk, Server, StartFailed
from tests.crash.rounds import can_cut

needs_loop = pytest.mark.skipif(not can_cut(), reason="mounting a loop file needs root and loop devices")


@pytest.fixture(scope="module")
def flushes(tmp_path_factory):
    """Of segments and of the metastore, while eight writers put 125 files each, 64 on their way at once. Every flush is counted by
    strace; the segments' go by fdatasync, SQLite's by fsync. That each writer's directory is made first counts too."""
    tmp_path = tmp_path_factory.mktemp("flushes")
    sources = [tmp_path / f"w{k}" for k in range(8)]
    for source in sources:
        source.mkdir()
        for n in range(125):
            (source / str(n)).write_bytes(random.Random(n).randbytes(4096))
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync,syncfs,sync,msync", "-o", str(trace)]
    with Server(tmp_path / "data", wrap=strace) as server:
        before = len(trace.read_text().splitlines())
        put = [BINARY, "put", "-r", "--jobs", "64", "--addr", server.flight]
        writers = [subprocess.Popen([*put, source, f"/{source.name}"], stderr=subprocess.DEVNULL) for source in sources]
        assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
        calls = re.findall(r"^\d+ +(fsync|fdatasync|syncfs|sync|msync)\(", "\n".join(trace.read_text().splitlines()[before:]), re.M)
        with server.client() as client:
            assert len(client.names("/", recursive=True)) == 1008
    segments = calls.count("fdatasync")
    print(f"flushes for 1,000 files by 8 writers: {segments} of segments, {len(calls) - segments} of the metastore")
    return segments, len(calls) - segments


def test_a_thousand_small_files_share_their_flushes(flushes):
    segments, metastore = flushes
    assert segments > 0 and metastore > 0
    assert segments + metastore <= 60


def test_a_failed_flush_is_never_acknowledged(tmp_path):
    """The first flushes of segment files fail with EIO, counted by strace; what is acknowledged afterwards survives a kill."""
    trace = tmp_path / "trace"
    server = Server(tmp_path / "data")
    with server:
        with server.client() as client:
            client.put_file("/before", b"1" * 5000)
        only = [f"--trace-path={segment}" for segment in (tmp_path / "data").glob("*.shared")]
        assert only
        strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-p", str(server.process.pid), "-o", str(trace), *only, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1..2"],
            stderr=subprocess.PIPE)
        time.sleep(1)
        acknowledged = {"/before": b"1" * 5000}
        failures = 0
        with server.client() as client:
            for k in range(12):
                content = bytes([k]) * 5000
                try:
                    client.put_file(f"/f{k}", content, timeout=30)
                    acknowledged[f"/f{k}"] = content
                except Exception:
                    failures += 1
        strace.terminate()
        strace.wait()
        injected = trace.read_text().count("INJECTED")
        assert injected >= 1, "the fault never hit"
        assert failures >= 1 and len(acknowledged) > 5, (failures, len(acknowledged))
        server.restart()
        with server.client() as client:
            assert {p: client.file(p) for p in acknowledged} == acknowledged


@needs_loop
def test_a_full_disk_refuses_and_recovers(tmp_path):
    disk = LoopDisk(str(tmp_path), "ext4", "256M")
    server = Server(f"{disk.mount}/data", dirty_max="1GiB")
    try:
        server.start()
        acknowledged, refused = {}, None
        with server.client() as client:
            for k in range(400):
                content = random.Random(k).randbytes(2 << 20)
                try:
                    client.put_file(f"/f{k}", content, timeout=90)
                except Exception as e:
                    refused = str(e)
                    break
                acknowledged[f"/f{k}"] = content
            assert refused and len(acknowledged) > 20, (refused, len(acknowledged))
            assert re.search("(?i)full|space|exhausted", refused), refused
        server.restart()
        with server.client() as client:
            assert {p: client.file(p) for p in acknowledged} == acknowledged
            for p in list(acknowledged)[:20]:
                client.act("delete", path=p)
                del acknowledged[p]
            end = time.monotonic() + 30
            while True:
                try:
                    client.put_file("/after", b"room again" * 1000, timeout=30)
                    break
                except Exception:
                    assert time.monotonic() < end, "no room although files were deleted"
                    time.sleep(0.5)
            assert client.file("/after") == b"room again" * 1000
    finally:
        server.kill()
        disk.close()


def segment_files(data):
    return sorted(p for p in Path(data).rglob("*") if p.is_file() and p.stat().st_size > 100_000 and "sqlite" not in p.name and "reserve" not in p.name)


def test_a_flipped_bit_is_never_served(tmp_path):
    contents = {f"/f{k}": random.Random(k).randbytes([3000, 50_000, 3_000_000][k % 3]) for k in range(30)}
    with Server(tmp_path / "data") as server:
        with server.client() as client:
            for path, content in contents.items():
                client.put_file(path, content)
        server.term()
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance, flipped = random.Random(seed), set()
    for path in chance.sample(sorted(contents), 6):
        needle = contents[path][1000:1032]
        for file in segment_files(tmp_path / "data"):  # Every copy of it: the one that is served, and one left behind in a shared segment.
            content = bytearray(file.read_bytes())
            while (at := content.find(needle)) >= 0:
                content[at + chance.randrange(32)] ^= 1 << chance.randrange(8)
                file.write_bytes(content)
                flipped.add(path)
    assert flipped, "no bit was flipped"
    try:
        server.start()
    except StartFailed as refused:
        assert re.search("(?i)corrupt|damaged", str(refused)) and re.search("segment", str(refused)), refused
        return
    try:
        with server.client() as client:
            damaged = {path for path, content in contents.items() if reads_damaged(client, path, content)}
        assert damaged == flipped
    finally:
        server.kill()


def reads_damaged(client, path, content):
    """Whether the read says that the bytes are damaged. Wrong bytes are never served."""
    try:
        found = client.file(path)
    except Exception as e:
        assert re.search("(?i)corrupt|damaged|checksum|loss", str(e)), e
        return True
    assert found == content, f"{path}: wrong bytes were served"
    return False


class TestRefusedFolders:
    def start(self, data, **flags):
        with pytest.raises(StartFailed) as refused:
            Server(data, **flags).start(timeout=20)
        return str(refused.value)


def test_a_folder_that_cannot_be_trusted_is_refused(tmp_path):
    refused = TestRefusedFolders()
    data = tmp_path / "data"
    with Server(data) as server:
        with server.client() as client:
            for k in range(40):
                client.put_file(f"/f{k}", bytes([k]) * 100_000)
            client.put_file("/large", bytes(5 << 20))
        assert re.search("(?i)lock|in use|another", refused.start(data)), "two processes on one folder"
        server.term()
    foreign = tmp_path / "foreign"
    with Server(foreign) as server:
        server.term()
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for part in foreign.iterdir():
        if "sqlite" in part.name:
            shutil.copy(part, copy / part.name)
    assert re.search("(?i)cluster|foreign|belongs|identity", refused.start(copy)), "the metastore of another cluster"
    copy = tmp_path / "missing"
    shutil.copytree(data, copy)
    largest = max(segment_files(copy), key=lambda p: p.stat().st_size)
    largest.unlink()
    assert re.search("(?i)segment", refused.start(copy)), "a missing segment"
    tmpfs = Path("/dev/shm") / f"forebay-test-{os.getpid()}"
    try:
        assert re.search("(?i)tmpfs|memory|durable", refused.start(tmpfs)), "a tmpfs at level local"
    finally:
        shutil.rmtree(tmpfs, ignore_errors=True)
