"""What the suites from outside share: a server as a process, a stock Flight client, a disk that can lose power.

Nothing here knows more of Forebay than its documented outside. FOREBAY_BIN names the binary.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # else a fork for the server trips over gRPC's own threads

import grpc
import pyarrow as pa
import pyarrow.flight as fl

BINARY = os.environ.get("FOREBAY_BIN", str(Path(__file__).parent.parent / "target/release/forebay"))
FILE_SCHEMA = pa.schema([("data", pa.large_binary())])
READY = re.compile(r"^forebay ready flight=(\S+) http=(\S+)$", re.M)


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class StartFailed(Exception):
    """`forebay serve` ended, or said nothing, before it was ready. The text ends with its log."""


class Server:
    """`forebay serve` on free ports, with one data folder or a list of them. Keywords are flags: `dirty_max="64MiB"`; `under` maps paths to URLs."""

    def __init__(self, data, under=None, env=None, wrap=(), **flags):
        folders = [str(f) for f in data] if isinstance(data, (list, tuple)) else [str(data)]
        self.data = folders[0]
        named = [arg for folder in folders for arg in ("--data", folder)]
        mounts = [f"--under={path}={url}" for path, url in (under or {}).items()]
        options = [f"--{k.replace('_', '-')}={v}" for k, v in flags.items()]
        self.command = [*wrap, BINARY, "serve", *named, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *mounts, *options]
        self.env = env or {}
        self.logs = tempfile.mkdtemp(prefix="forebay-log-")
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self, timeout=60, **env):
        out, err = f"{self.logs}/stdout", f"{self.logs}/stderr"
        with open(out, "w") as o, open(err, "a") as e:
            self.process = subprocess.Popen(self.command, stdout=o, stderr=e, env={**os.environ, **self.env, **env}, preexec_fn=_end_with_parent)
        end = time.monotonic() + timeout
        while not (ready := READY.search(Path(out).read_text())):
            code = self.process.poll()
            if code is not None or time.monotonic() > end:
                self.kill()
                raise StartFailed(f"exit {code}: {self.log()[-3000:]}")
            time.sleep(0.005)
        self.flight, self.http = ready[1], ready[2]
        return self

    def log(self):
        return Path(f"{self.logs}/stderr").read_text(errors="replace")

    def kill(self):
        """SIGKILL. Returns whether the process had been alive."""
        if self.process is None or self.process.poll() is not None:
            return False
        for pid in self.traced():  # Killing the tracer alone would set its tracee free.
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        return True

    def traced(self):
        """The server itself where another program runs it (strace)."""
        if self.command[0] == BINARY:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def term(self, timeout=60):
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(timeout)

    def restart(self, **env):
        self.kill()
        return self.start(**env)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def memory(self):
        """Resident bytes."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) << 10

    def client(self):
        return Client(self.flight)


def descriptor(path, **keys):
    return fl.FlightDescriptor.for_command(json.dumps({"path": path, **keys}))


class Client:
    """A stock pyarrow client with the verbs in one line each, and raw calls by grpcio for exact status codes."""

    def __init__(self, address):
        self.address = address
        self.flight = fl.connect(address)
        self._channel = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.flight.close()
        if self._channel:
            self._channel.close()

    def act(self, name, deadline=None, **body):
        options = fl.FlightCallOptions(timeout=deadline)
        return [json.loads(r.body.to_pybytes()) for r in self.flight.do_action(fl.Action(name, json.dumps(body).encode()), options)]

    def put(self, path, *batches, schema=None, metadata=None, timeout=None, **keys):
        """DoPut; the PutResults. Raises what the call's status says."""
        where = descriptor(path, **keys)
        writer, reader = self.flight.do_put(where, batches[0].schema if schema is None else schema, fl.FlightCallOptions(timeout=timeout))
        answers = []

        def drain():
            with contextlib.suppress(Exception):  # close() raises the same error
                while (answer := reader.read()) is not None:
                    answers.append(answer.to_pybytes())

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        try:
            for k, batch in enumerate(batches):
                writer.write_with_metadata(batch, metadata[k]) if metadata else writer.write_batch(batch)
            writer.done_writing()
            thread.join()
        finally:
            writer.close()
        return answers

    def put_file(self, path, content, piece=1 << 20, timeout=None, **keys):
        keys.setdefault("mode", "overwrite")
        pieces = [content[i : i + piece] for i in range(0, len(content), piece)]
        batches = [pa.record_batch([pa.array([p], pa.large_binary())], schema=FILE_SCHEMA) for p in pieces]
        return self.put(path, *batches, schema=FILE_SCHEMA, timeout=timeout, kind="file", **keys)

    def info(self, path, **keys):
        return self.flight.get_flight_info(descriptor(path, **keys))

    def chunks(self, path, **keys):
        for endpoint in self.info(path, **keys).endpoints:
            yield from self.flight.do_get(endpoint.ticket)

    def batches(self, path, **keys):
        return [c.data for c in self.chunks(path, **keys)]

    def table(self, path, **keys):
        return pa.Table.from_batches(self.batches(path, **keys), self.info(path, **keys).schema)

    def file(self, path, **keys):
        return b"".join(v.as_py() for b in self.batches(path, kind="file", **keys) for v in b.column(0))

    def names(self, path, **keys):
        return sorted(e["path"] for e in self.act("list", path=path, **keys))

    def note(self, path, **keys):
        return json.loads(self.info(path, **keys).app_metadata)

    def exists(self, path):
        try:
            self.act("stat", path=path)
            return True
        except pa.ArrowKeyError:
            return False

    # ---- raw calls

    def call(self, method, *messages, timeout=20):
        """(status name, answers, status text) of a call with protobuf messages of our own making."""
        if self._channel is None:
            unbounded = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            self._channel = grpc.insecure_channel(self.address.split("://")[1], options=unbounded)
        call = self._channel.stream_stream("/arrow.flight.protocol.FlightService/" + method)(iter(messages), timeout=timeout)
        answers = []
        with contextlib.suppress(grpc.RpcError):
            answers.extend(call)
        return call.code().name, answers, call.details() or ""

    def action(self, name, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.call("DoAction", protobuf(_1=name.encode(), _2=body))


# ---- messages of our own making

def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def protobuf(**parts):
    """A protobuf message: protobuf(_1=b"bytes", _2=7)."""
    out = b""
    for name, value in parts.items():
        number = int(name[1:])
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return out


def ipc_messages(batches, schema=None, options=None):
    """The Arrow messages [(header, body), …] of a stream: the schema first."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema if schema is None else schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [(m.metadata.to_pybytes(), m.body.to_pybytes() if m.body else b"") for m in reader]


def flight_data(header, body=b"", where=None, metadata=None):
    """A FlightData message; the first of a stream carries the descriptor."""
    parts = {}
    if where:
        parts["_1"] = where.serialize()
    parts["_2"] = header
    if metadata is not None:
        parts["_3"] = metadata
    return protobuf(**parts, _1000=body)


# ---- a disk that can lose power

class LoopDisk:
    """A file system in a loop file. `cut()` drops everything that was not synced, as a power failure would."""

    def __init__(self, home, kind="ext4", size="2G"):
        self.kind, self.image, self.mount = kind, f"{home}/{kind}.img", f"{home}/{kind}"
        self.cuts = 0
        os.makedirs(self.mount)
        subprocess.run(["truncate", "-s", size, self.image], check=True)
        quiet = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{kind}", *quiet, self.image], check=True)
        self._attach()

    def _attach(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)

    def cut(self, then):
        """Cuts the power, calls `then` (which ends the processes that use the disk), and mounts what survived."""
        subprocess.run(["xfs_io", "-x", "-c", "shutdown", self.mount], check=True)
        then()
        for _ in range(100):
            if subprocess.run(["umount", self.mount], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{self.mount} stays busy after a cut")
        self.cuts += 1
        self._attach()

    def close(self):
        subprocess.run(["umount", "-l", self.mount], check=False)
        with contextlib.suppress(OSError):
            os.remove(self.image)


class LoopDisks:
    """Several of them, which lose power together. The first one is where everything else lies."""

    def __init__(self, *disks):
        self.disks = disks
        self.mount, self.kind = disks[0].mount, "+".join(disk.kind for disk in disks)

    def cut(self, then):
        for disk in reversed(self.disks):
            then = lambda disk=disk, then=then: disk.cut(then)
        then()

    def close(self):
        for disk in self.disks:
            disk.close()
