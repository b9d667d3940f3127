"""Writers whose every acknowledgement is remembered, and the comparison of what a restart brings back with it.

A worker owns a folder of files, a dataset and a second one beside it, and does one operation at a time. `state` is what was acknowledged. When the
server dies under an operation, the worker keeps two states: without and with it. What a restart shows must be one of the two,
whole; then that one is the state.
"""

import hashlib
import random
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

import pyarrow as pa

DATASET_SCHEMA = pa.schema([("id", pa.int64()), ("fill", pa.binary())])


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass
class State:
    """What a worker's folder and datasets hold."""

    files: dict = field(default_factory=dict)  # path → content
    ids: list = field(default_factory=list)  # ids of the dataset, in order
    beside: list = field(default_factory=list)  # and of the one beside it

    def copy(self):
        return State(dict(self.files), list(self.ids), list(self.beside))

    def described(self):
        return {p: digest(c) for p, c in sorted(self.files.items())}, self.ids, self.beside


class Mismatch(AssertionError):
    """Something acknowledged is gone, or something is there that never was."""


class Worker:
    """One writer. `run` works until `stop` is set or the server is gone."""

    def __init__(self, number, seed):
        self.folder, self.dataset, self.beside = f"/w{number}", f"/set{number}", f"/set{number}-beside"
        self.random = random.Random(seed)
        self.state, self.attempt = State(), None
        self.history = deque([(0.0, self.state)], maxlen=64)  # (acknowledged at, state), the last ones
        self.doubted = []  # states whose acknowledgement came when the power was already going
        self.retry = None  # (token, ids) of a dataset append whose answer was lost
        self.acked = 0
        self.next_id = number * 1_000_000_000
        self.error = None

    # ---- writing

    def run(self, server, stop):
        try:
            with server.client() as client:
                while not stop.is_set():
                    self.step(client)
        except Exception as e:  # The server is gone, which is the point; anything else is a defect and is raised by `Crew`.
            self.error = (time.monotonic(), e)

    def step(self, client):
        of_files = [self.put, self.append, self.delete, self.rename, self.rename_folder, self.truncate]
        of_datasets = [self.grow_dataset, self.publish_session, self.publish_both]
        kind = self.random.choices(of_files + of_datasets, [10, 4, 2, 3, 1, 2, 5, 2, 2])[0]
        after = self.state.copy()
        call = kind(after)
        if call is None:
            return
        self.attempt = after
        call(client)
        self.state, self.attempt, self.retry = after, None, None
        self.history.append((time.monotonic(), after))
        self.acked += 1

    def content(self):
        size = self.random.choice([0, 1, 100, 4096, 4096, 20_000, 70_000, 300_000, 1_500_000, 9_000_000 if self.random.random() < 0.3 else 5])
        return self.random.randbytes(size)

    def some_path(self, state):
        return self.random.choice(sorted(state.files)) if state.files else None

    def put(self, after):
        path = f"{self.folder}/{self.random.choice(['a', 'b', 'sub', 'sub2'])}/{self.random.randrange(8)}"
        content = after.files[path] = self.content()
        return lambda c: c.put_file(path, content, piece=self.random.choice([1 << 20, 65536]), timeout=60)

    def append(self, after):
        if (path := self.some_path(after)) is None:
            return None
        offset, more = len(after.files[path]), self.random.randbytes(self.random.choice([10, 5000, 200_000]))
        after.files[path] += more
        return lambda c: c.put_file(path, more, mode="append", offset=offset, timeout=60)

    def delete(self, after):
        if (path := self.some_path(after)) is None:
            return None
        del after.files[path]
        return lambda c: c.act("delete", deadline=60, path=path)

    def rename(self, after):
        if (path := self.some_path(after)) is None:
            return None
        to = f"{self.folder}/{self.random.choice('ab')}/{self.random.randrange(8)}"
        if to == path:
            return None
        after.files[to] = after.files.pop(path)
        return lambda c: c.act("rename", deadline=60, **{"from": path, "to": to, "replace": True, "parents": True})

    def rename_folder(self, after):
        source = f"{self.folder}/sub/"
        moving = [p for p in after.files if p.startswith(source)]
        if not moving:
            return None
        target = f"{self.folder}/moved{self.random.randrange(1 << 30)}"
        for path in moving:
            after.files[f"{target}/{path[len(source):]}"] = after.files.pop(path)
        return lambda c: c.act("rename", deadline=60, **{"from": source[:-1], "to": target})

    def truncate(self, after):
        if (path := self.some_path(after)) is None:
            return None
        size = self.random.choice([0, 10, 5000, len(after.files[path]) // 2])
        after.files[path] = after.files[path][:size].ljust(size, b"\0")
        return lambda c: c.act("truncate", deadline=60, path=path, size=size)

    def batches(self, count):
        out, ids = [], []
        for _ in range(count):
            mine = range(self.next_id, self.next_id + self.random.choice([1, 10, 1000]))
            self.next_id = mine.stop
            ids += mine
            out.append(pa.record_batch([pa.array(mine), pa.array([bytes(self.random.choice([0, 100])) for _ in mine])], schema=DATASET_SCHEMA))
        return out, ids

    def grow_dataset(self, after):
        batches, ids = self.batches(self.random.choice([1, 3]))
        after.ids += ids
        token = uuid.UUID(int=self.random.getrandbits(128)).hex
        self.retry = (token, batches)
        return lambda c: c.put(self.dataset, *batches, token=token, timeout=60)

    def publish_session(self, after):
        parts = [self.batches(2) for _ in range(2)]
        for _, ids in parts:
            after.ids += ids

        def call(client):
            [begun] = client.act("begin", deadline=60, path=self.dataset)
            for batches, _ in parts:
                client.put(self.dataset, *batches, session=begun["session"], timeout=60)
            client.act("publish", deadline=60, session=begun["session"])

        return call

    def publish_both(self, after):
        """A session of each dataset, the second of which is written anew, in one step."""
        (batches, ids), (others, after.beside) = self.batches(2), self.batches(1)
        after.ids += ids

        def call(client):
            sessions = []
            for path, parts, mode in ((self.dataset, batches, "append"), (self.beside, others, "overwrite")):
                [begun] = client.act("begin", deadline=60, path=path, mode=mode)
                client.put(path, *parts, session=begun["session"], timeout=60)
                sessions.append(begun["session"])
            client.act("publish", deadline=60, session=sessions[0], **{"with": sessions[1:]})

        return call

    # ---- comparing

    def observe(self, client):
        files = {}
        if client.exists(self.folder):
            for entry in client.act("list", path=self.folder, recursive=True):
                if entry["kind"] == "file":
                    files[entry["path"]] = client.file(entry["path"])
        return State(files, *(self.ids_of(client, path) for path in (self.dataset, self.beside)))

    def ids_of(self, client, path):
        if not client.exists(path):
            return []
        return [id for batch in client.batches(path) for id in batch.column("id").to_pylist()]

    def doubt_after(self, cut_at):
        """No process acknowledges anything after a power cut, but ours lives on for the moment that it takes us to end it, and an
        fsync that meets the file system's shutdown half-way may be answered with success. So an acknowledgement that came after the
        cut began proves nothing: what it acknowledged may be there or not, in its order."""
        sure = max(k for k, (at, _) in enumerate(self.history) if at < cut_at)
        states = [state for _, state in self.history][sure:]
        self.doubted = states[:-1]

    def settle(self, client):
        """Compares with what was acknowledged; repeats an append whose answer was lost, with its token: once, not twice."""
        seen = self.observe(client)
        for state in filter(None, [self.state, self.attempt, *self.doubted]):
            if seen == state:
                break
        else:
            raise Mismatch(self.difference(seen))
        if any(seen == state for state in self.doubted) and seen != self.state:
            self.attempt = self.retry = None
        self.doubted = []
        self.history = deque([(0.0, state)], maxlen=64)
        if self.retry and self.attempt:
            token, batches = self.retry
            client.put(self.dataset, *batches, token=token, timeout=60)
            if (again := self.observe(client)) != self.attempt:
                raise Mismatch(f"{self.dataset}: an append repeated with its token: {len(again.ids)} ids, not {len(self.attempt.ids)}")
            state = self.attempt
            self.history = deque([(0.0, state)], maxlen=64)
        self.state, self.attempt, self.retry = state, None, None

    def difference(self, seen):
        out = []
        for path in sorted(self.state.files.keys() | seen.files.keys()):
            expected, got = self.state.files.get(path), seen.files.get(path)
            if expected != got and not (self.attempt and self.attempt.files.get(path) == got):
                out.append(f"{path}: acknowledged {size(expected)}, found {size(got)}")
        if seen.ids != self.state.ids:
            out.append(f"{self.dataset}: acknowledged {len(self.state.ids)} ids, found {len(seen.ids)}")
        if seen.beside != self.state.beside:
            out.append(f"{self.beside}: acknowledged {self.state.beside[:3]}…, found {seen.beside[:3]}…")
        out.append(f"(under way: {self.attempt is not None})")
        return "; ".join(out[:8])


def size(content):
    return "nothing" if content is None else f"{len(content)} bytes {digest(content)}"


class Crew:
    """Several workers on one server."""

    def __init__(self, count, seed):
        self.workers = [Worker(k, f"{seed}/{k}") for k in range(count)]
        self.stop, self.threads = threading.Event(), []

    def start(self, server):
        self.stop.clear()
        for worker in self.workers:
            worker.error = None
        self.threads = [threading.Thread(target=w.run, args=(server, self.stop), daemon=True) for w in self.workers]
        for thread in self.threads:
            thread.start()

    def join(self, ended_at):
        """Waits for the workers. `ended_at`: when the server was ended; an error before that is a defect, not the fault."""
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                raise Mismatch("a writer hangs although the server is gone")
        for worker in self.workers:
            if worker.error and (ended_at is None or worker.error[0] < ended_at):
                raise Mismatch(f"an operation failed while the server was well: {worker.error[1]!r}")

    def settle(self, server):
        with server.client() as client:
            for worker in self.workers:
                worker.settle(client)

    @property
    def acked(self):
        return sum(w.acked for w in self.workers)
