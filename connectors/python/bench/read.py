"""How `Client.read` compares with pyarrow's own client on the same server: seconds, and CPU seconds for a GB.

    python connectors/python/bench/read.py --forebay target/release/forebay [--megabytes 1024] [--parts 4] [--rounds 5]

Both read the same dataset into one table, turn by turn in one process, in the order A B A B; medians are told. CPU is this process's, user and
system; the server's is beside it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

import forebay


def dataset(megabytes: int, parts: int) -> list[pa.Table]:
    """Tables of eight float64 columns in batches of 4 MiB."""
    rows = 4 * 2**20 // 64
    numbers = np.random.default_rng(7).random(rows)
    batch = pa.record_batch([pa.array(numbers)] * 8, names=[f"c{k}" for k in range(8)])
    each = max(1, megabytes // 4 // parts)
    return [pa.Table.from_batches([batch] * each)] * parts


def stock(client: fl.FlightClient, path: str) -> int:
    """As pyarrow's documentation reads: endpoint after endpoint."""
    info = client.get_flight_info(fl.FlightDescriptor.for_path(path))
    return pa.concat_tables([client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]).nbytes


def cpu_of(process: int) -> float:
    """CPU seconds of a process so far; its number is that of clock_getcpuclockid(3)."""
    return time.clock_gettime((~process << 3) | 2)


def measure(read, server: int) -> dict[str, float]:
    begin, own, theirs = time.perf_counter(), time.process_time(), cpu_of(server)
    size = read()
    seconds = time.perf_counter() - begin
    return {"gb": size / 1e9, "seconds": seconds, "cpu": time.process_time() - own, "server_cpu": cpu_of(server) - theirs}


def report(found: dict[str, list[dict[str, float]]]) -> dict:
    def median(rows: list[dict[str, float]], key: str) -> float:
        return statistics.median(row[key] for row in rows)

    rows = {}
    for name, all_of_it in found.items():
        gb = all_of_it[0]["gb"]
        rows[name] = {
            "GB/s": round(gb / median(all_of_it, "seconds"), 2),
            "client CPU s/GB": round(median(all_of_it, "cpu") / gb, 3),
            "server CPU s/GB": round(median(all_of_it, "server_cpu") / gb, 3),
        }
    base = median(found["pyarrow"], "seconds")
    ratios = {name: round(base / median(rows_of, "seconds"), 3) for name, rows_of in found.items() if name != "pyarrow"}
    return {"gb": round(found["pyarrow"][0]["gb"], 2), "cpus": os.cpu_count(), "rows": rows, "speed / pyarrow": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forebay", default=os.environ.get("FOREBAY_BIN", "target/release/forebay"))
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [told.forebay, "serve", "--data", f"{folder}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = re.search(r"flight=(\S+)", server.stdout.readline())[1]
            print(json.dumps(compare(address, server.pid, told), indent=2))
        finally:
            server.terminate()
            server.wait()


def compare(address: str, server: int, told: argparse.Namespace) -> dict:
    client, plain = forebay.connect(address), fl.connect(address)
    with client.session("/bench") as session:
        for part in dataset(told.megabytes, told.parts):
            session.put(part)
    ways = {
        "pyarrow": lambda: stock(plain, "/bench"),
        "forebay read": lambda: client.read("/bench").nbytes,
        "forebay read, one part at a time": lambda: client.read("/bench", parallel=1).nbytes,
        "forebay scan": lambda: sum(batch.nbytes for batch in client.scan("/bench")),
    }
    for read in ways.values():
        read()  # pages and connections are warm
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(told.rounds):
        for name, read in ways.items():
            found[name].append(measure(read, server))
    return report(found)


if __name__ == "__main__":
    main()
