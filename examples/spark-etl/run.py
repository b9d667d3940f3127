"""Runs the job and the trainer side by side, and looks whether the trainer and the store have each row once.

python run.py ADDR STORE JAR [--rows N] [--json FILE]   STORE is where the server keeps /features: a folder, or BUCKET/PREFIX of a gateway
that FOREBAY_S3_ENDPOINT names.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.flight as fl
import pyarrow.fs

HERE = Path(__file__).parent
DATASET = "/features/clicks"


def stored(addr, store):
    """The ids that the store has, in files of its own, once everything is there; and when that was."""
    body = json.dumps({"path": DATASET, "timeout": "120s"}).encode()
    list(fl.connect(addr).do_action(fl.Action("wait_persisted", body)))
    at, files = time.time(), pyarrow.fs.LocalFileSystem()
    if endpoint := os.environ.get("FOREBAY_S3_ENDPOINT"):
        files = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1")
    return ds.dataset(f"{store}/clicks", format="ipc", filesystem=files).to_table(columns=["id"])["id"], at


def published(addr):
    """The ids that readers get."""
    with fl.connect(addr) as client:
        info = client.get_flight_info(fl.FlightDescriptor.for_command(json.dumps({"path": DATASET, "columns": ["id"]})))
        tables = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    return pa.concat_tables(tables)["id"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("addr")
    parser.add_argument("store")
    parser.add_argument("jar")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--json", metavar="FILE", help="write what was measured there too")
    options = parser.parse_args()
    begin = time.time()
    command = [sys.executable, "-W", "ignore", HERE / "train.py", options.addr, DATASET]
    trainer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([sys.executable, HERE / "etl.py", options.addr, DATASET, str(options.rows), options.jar], check=True)
        done = time.time()
        lines = [json.loads(line) for line in trainer.communicate(timeout=120)[0].splitlines()]
    finally:
        trainer.kill()
    first, end = lines
    kept, persisted = stored(options.addr, options.store)
    print(f"first step of the trainer  {first['first'] - begin:6.1f} s")
    print(f"job done                   {done - begin:6.1f} s")
    print(f"trainer done               {end['end'] - begin:6.1f} s   {end['rows']:,} rows in {end['batches']} batches, loss {end['loss'][0]:.3f} to {end['loss'][1]:.3f}")
    print(f"all of it in the store     {persisted - begin:6.1f} s")
    shown = published(options.addr)
    if (end["rows"], end["ids"]) != (len(shown), sum(shown.to_numpy())):
        sys.exit(f"the trainer saw {end['rows']} rows, published are {len(shown)}")
    if not kept.combine_chunks().sort().equals(shown.combine_chunks().sort()):
        sys.exit(f"the store has {len(kept)} rows, published are {len(shown)}")
    if options.json:
        report = {"rows": end["rows"], "first": first["first"] - begin, "job": done - begin, "trained": end["end"] - begin, "stored": persisted - begin}
        Path(options.json).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
