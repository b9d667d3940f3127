"""Programs that write through the mount and remember what the kernel told them, and the comparison of what a restart brings back.

A worker is a process with a directory of its own and does one thing at a time. `state` is what was promised: for every path its
versions, the acknowledged one and then those that were written since and not yet acknowledged. `fsync`, `fdatasync`, `close`,
`rename`, `unlink`, `mkdir`, `rmdir` and the fsync of a directory acknowledge; a write alone does not.

A path with one version must be there with exactly those bytes. One with several may show, byte by byte, any of them.
"""

import contextlib
import ctypes
import errno
import multiprocessing
import os
import random
import time
from collections import deque
from pathlib import Path

import numpy as np

from tests.crash.workload import Mismatch, size

ABSENT = [None]
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])  # Imported once, not by every process.


def shows(content, versions):
    """Whether `content` (None: no such file) is one of the versions, or byte by byte one of several."""
    known = [v for v in versions if v is not None]
    if content in versions or content is None or len(known) < 2:
        return content in versions
    shortest, longest = min(map(len, known)), max(map(len, known))
    seen = np.frombuffer(content, np.uint8)
    explained = np.arange(len(seen)) >= shortest
    explained &= seen == 0  # Between the lengths a hole may be left.
    for version in known:
        both = min(len(seen), len(version))
        explained[:both] |= seen[:both] == np.frombuffer(version, np.uint8)[:both]
    return shortest <= len(seen) <= longest and bool(explained.all())


def agrees(seen, state):
    return all(shows(seen.get(path), state.get(path, ABSENT)) for path in seen.keys() | state.keys())


class Worker:
    """One writer. `patient`: it waits for nothing but the calls themselves. Otherwise it makes every promise true by syncfs, so that a
    plain file system keeps it too."""

    def __init__(self, number, seed, patient):
        self.folder, self.patient = f"w{number}", patient
        self.random = random.Random(seed)
        self.state, self.during, self.after = {}, None, None
        self.history = deque([(0.0, None, self.state)], maxlen=64)  # (acknowledged at, what could be seen until then, state)
        self.window = []  # what else may be seen, since its acknowledgement came when the power was already going
        self.descriptors = {}  # path → descriptor of a file that was written and not yet synced
        self.number = 0
        self.error = None

    # ---- writing

    def run(self, base, device, acked):
        try:
            os.chdir(base)
            if os.stat(".").st_dev != device:
                raise OSError(errno.ENODEV, "the mount was gone before the writer was there")
            os.makedirs(self.folder, exist_ok=True)
            os.chdir(self.folder)
            while True:
                self.step(acked)
        except OSError as e:  # The server is gone, which is the point; anything else is a defect and is raised by `Crew`.
            self.error = (time.monotonic(), repr(e))
        self.descriptors.clear()  # They end with the process.

    def step(self, acked):
        kinds = {self.write: 10, self.append: 4, self.patch: 4, self.cut: 2, self.write_on: 8, self.sync: 5, self.create: 2,
                 self.unlink: 3, self.rename: 5, self.rename_folder: 1, self.make_folder: 2, self.remove_folder: 1}
        [kind] = self.random.choices(list(kinds), list(kinds.values()))
        during, after = dict(self.state), dict(self.state)
        call = kind(during, after)
        if call is None:
            return
        if kind == self.write_on:  # From now on either may be seen, without any promise.
            self.state = after
            self.history.append((time.monotonic(), None, after))
            call()
            return
        self.during, self.after = during, after
        call()
        self.state = after
        self.history.append((time.monotonic(), during, after))
        self.during = self.after = None
        with acked.get_lock():
            acked.value += 1

    def promised(self):
        """A plain file system promises nothing for a close, and for a name only after a sync."""
        if not self.patient:
            fd = os.open(".", os.O_RDONLY)
            ctypes.CDLL(None).syncfs(fd)
            os.close(fd)

    def content(self):
        return self.random.randbytes(self.random.choice([0, 1, 100, 4096, 4096, 20_000, 70_000, 300_000, 1_500_000, 9_000_000 if self.random.random() < 0.2 else 5]))

    def folders(self, state):
        return ["", *sorted(p for p in state if p.endswith("/"))]

    def name(self, state):
        """A path, there or not, that no descriptor is open for."""
        path = self.random.choice(self.folders(state)) + f"f{self.random.randrange(6)}"
        return None if path in self.descriptors else path

    def closed_file(self, state):
        there = sorted(p for p in state if not p.endswith("/") and p not in self.descriptors)
        return self.random.choice(there) if there else None

    def settle_by(self, fd):
        """By fsync and close, or by close alone."""
        if self.random.random() < 0.5:
            self.random.choice([os.fsync, os.fdatasync])(fd)
        os.close(fd)
        self.promised()

    def write(self, during, after):
        if (path := self.name(after)) is None:
            return None
        content = self.content()
        during[path] = during.get(path, ABSENT) + [b"", content]
        after[path] = [content]
        piece = self.random.choice([4096, 65536, 1 << 20])

        def call():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for at in range(0, len(content), piece):
                os.write(fd, content[at : at + piece])
            self.settle_by(fd)

        return call

    def changed(self, during, after, change):
        """One of the files that are there, opened, changed by `change(fd, old)` to what `change(None, old)` says, and settled."""
        if (path := self.closed_file(after)) is None:
            return None
        old = after[path][-1]
        new, apply = change(old)
        during[path] = during[path] + [new]
        after[path] = [new]

        def call():
            fd = os.open(path, os.O_RDWR)
            apply(fd)
            self.settle_by(fd)

        return call

    def append(self, during, after):
        more = self.random.randbytes(self.random.choice([10, 5000, 200_000]))

        def apply(fd):
            os.lseek(fd, 0, os.SEEK_END)
            for at in range(0, len(more), 50_000):
                os.write(fd, more[at : at + 50_000])

        return self.changed(during, after, lambda old: (old + more, apply))

    def patch(self, during, after):
        pieces = [(self.random.randrange(100_000), self.random.randbytes(self.random.choice([1, 512, 4096, 30_000]))) for _ in range(3)]

        def apply(fd):
            for at, piece in pieces:
                os.pwrite(fd, piece, at)

        return self.changed(during, after, lambda old: (patched(old, pieces), apply))

    def cut(self, during, after):
        length = self.random.choice([0, 10, 5000, 50_000])
        return self.changed(during, after, lambda old: (old[:length].ljust(length, b"\0"), lambda fd: os.ftruncate(fd, length)))

    def write_on(self, during, after):
        """Writes to a file that stays open, without a sync."""
        path = self.random.choice(sorted(self.descriptors)) if self.descriptors and self.random.random() < 0.7 else self.name(after)
        if path is None or (path not in self.descriptors and len(self.descriptors) == 4):
            return None
        pieces = [(self.random.randrange(200_000), self.random.randbytes(self.random.choice([100, 4096, 60_000])))]
        versions = after.get(path, ABSENT)
        before = [*versions, b""] if versions[-1] is None else versions
        after[path] = [*before, patched(before[-1], pieces)]

        def call():
            if path not in self.descriptors:
                self.descriptors[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            for at, piece in pieces:
                os.pwrite(self.descriptors[path], piece, at)

        return call

    def sync(self, during, after):
        """Makes what was written to an open file a promise."""
        if not self.descriptors:
            return None
        path = self.random.choice(sorted(self.descriptors))
        after[path] = after[path][-1:]
        close = self.random.random() < 0.5

        def call():
            if close:
                os.close(self.descriptors.pop(path))
                self.promised()
            else:
                self.random.choice([os.fsync, os.fdatasync])(self.descriptors[path])

        return call

    def create(self, during, after):
        """A new name, promised by the fsync of its directory while the file is open and empty."""
        folder = self.random.choice(self.folders(after))
        self.number += 1
        path = f"{folder}new{self.number}"
        during[path], after[path] = [None, b""], [b""]

        def call():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            directory = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
            os.close(fd)

        return call

    def unlink(self, during, after):
        there = sorted(p for p in after if not p.endswith("/"))
        if not there:
            return None
        path = self.random.choice(there)
        del after[path]

        def call():
            os.unlink(path)
            if (fd := self.descriptors.pop(path, None)) is not None:
                os.close(fd)
            self.promised()

        return call

    def rename(self, during, after):
        """A file to another name, over what is there. Its name is promised, what was written to it and not synced is not."""
        there = sorted(p for p in after if not p.endswith("/"))
        if not there:
            return None
        path, to = self.random.choice(there), self.name(after)
        if to is None or to == path:
            return None
        after[to] = [v for v in after.pop(path) if v is not None]

        def call():
            os.rename(path, to)
            if path in self.descriptors:
                self.descriptors[to] = self.descriptors.pop(path)
            self.promised()

        return call

    def rename_folder(self, during, after):
        if len(self.folders(after)) == 1:
            return None
        folder = self.random.choice(self.folders(after)[1:])
        self.number += 1
        to = f"moved{self.number}/"
        moved = {p: to + p[len(folder) :] for p in after if p.startswith(folder)}
        for path, target in moved.items():
            after[target] = after.pop(path)

        def call():
            os.rename(folder, to)
            self.descriptors = {moved.get(p, p): fd for p, fd in self.descriptors.items()}
            self.promised()

        return call

    def make_folder(self, during, after):
        if len(self.folders(after)) > 5:
            return None
        self.number += 1
        after[f"made{self.number}/"] = [b""]

        def call():
            os.mkdir(f"made{self.number}")
            self.promised()

        return call

    def remove_folder(self, during, after):
        empty = [f for f in self.folders(after)[1:] if sum(p.startswith(f) for p in after) == 1]
        if not empty:
            return None
        folder = self.random.choice(empty)
        del after[folder]

        def call():
            os.rmdir(folder)
            self.promised()

        return call

    # ---- comparing

    def observe(self, base):
        """{path: content}, a directory by its path with a slash."""
        top = Path(base) / self.folder
        return {str(p.relative_to(top)) + "/" * p.is_dir(): b"" if p.is_dir() else p.read_bytes() for p in top.rglob("*")}

    def doubt_after(self, cut_at):
        """As in tests/crash: an acknowledgement that came after the cut began proves nothing."""
        sure = max(k for k, (at, _, _) in enumerate(self.history) if at < cut_at)
        later = list(self.history)[sure + 1 :]
        self.window = [list(self.history)[sure][2], *(s for _, during, after in later for s in (during, after) if s is not None)]

    def candidates(self):
        """What may be seen. With doubt, a file may in each of these hold bytes of a later one, too."""
        certain = [s for s in (self.state, self.during, self.after) if s is not None]
        if not self.window:
            return certain
        chain = [*self.window, *certain]
        return [{p: [*versions, *(v for later in chain[k + 1 :] for v in later.get(p, []))] for p, versions in s.items()} for k, s in enumerate(chain)]

    def settle(self, base):
        seen = self.observe(base)
        if not any(agrees(seen, state) for state in self.candidates()):
            raise Mismatch(self.difference(seen))
        self.state, self.during, self.after, self.window = {p: [content] for p, content in seen.items()}, None, None, []
        self.history = deque([(0.0, None, self.state)], maxlen=64)

    def difference(self, seen):
        out = []
        for path in sorted(self.state.keys() | seen.keys()):
            versions = self.state.get(path, ABSENT)
            if not shows(seen.get(path), versions):
                out.append(f"{self.folder}/{path}: promised {' or '.join(size(v) for v in versions)}, found {size(seen.get(path))}")
        return "; ".join([*out[:8], f"(under way: {self.after is not None})"])


def patched(content, pieces):
    out = bytearray(content)
    for at, piece in pieces:
        out.extend(bytes(max(0, at + len(piece) - len(out))))
        out[at : at + len(piece)] = piece
    return bytes(out)


def work(worker, base, device, acked, answer):
    """The process: works until the server is gone, then hands its memory back."""
    worker.run(base, device, acked)
    answer.send(worker)


class Crew:
    """Several workers on one mount."""

    def __init__(self, count, seed, patient=True):
        self.workers = [Worker(k, f"{seed}/{k}", patient) for k in range(count)]
        self.count, self.running = processes.Value("q", 0), []

    @property
    def acked(self):
        return self.count.value

    def start(self, mount):
        self.running = []
        for worker in self.workers:
            worker.error = None
            ours, theirs = processes.Pipe(duplex=False)
            process = processes.Process(target=work, args=(worker, str(mount.folder), os.stat(mount.folder).st_dev, self.count, theirs), daemon=True)
            process.start()
            theirs.close()
            self.running.append((process, ours))

    def join(self, ended_at):
        """Waits until each worker met the fault. `ended_at`: when the server was ended; an error before that is a defect."""
        try:
            self.workers = [answered(process, pipe) for process, pipe in self.running]
        finally:
            for process, _ in self.running:
                with contextlib.suppress(ValueError):
                    process.kill()
                    process.join()
        for worker in self.workers:
            if worker.error[0] < ended_at:
                raise Mismatch(f"an operation failed while the server was well: {worker.error[1]}")

    def settle(self, mount):
        for worker in self.workers:
            worker.settle(mount.folder)


def answered(process, pipe):
    if not pipe.poll(60):
        raise Mismatch("a writer hangs, or goes on, although the server is gone")
    try:
        worker = pipe.recv()
    except EOFError:
        raise Mismatch(f"a writer ended with {process.exitcode}") from None
    process.join()
    return worker
