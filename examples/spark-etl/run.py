"""Runs the job and the trainer side by side and looks whether each row was seen once.   python run.py ADDR JAR [--rows N]"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.flight as fl

HERE = Path(__file__).parent
DATASET = "/features/clicks"


def published(addr):
    client = fl.connect(addr)
    info = client.get_flight_info(fl.FlightDescriptor.for_command(json.dumps({"path": DATASET, "columns": ["id"]})))
    ids = [chunk.data.column(0).to_numpy() for e in info.endpoints for chunk in client.do_get(e.ticket)]
    return sum(len(i) for i in ids), int(sum(i.sum() for i in ids))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("addr")
    parser.add_argument("jar")
    parser.add_argument("--rows", type=int, default=3_000_000)
    options = parser.parse_args()
    begin = time.time()
    trainer = subprocess.Popen([sys.executable, HERE / "train.py", options.addr, DATASET], stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([sys.executable, HERE / "etl.py", options.addr, DATASET, str(options.rows), options.jar], check=True)
        done = time.time()
        lines = [json.loads(line) for line in trainer.communicate(timeout=120)[0].splitlines()]
    finally:
        trainer.kill()
    first, end = lines
    rows, ids = published(options.addr)
    print(f"first step of the trainer  {first['first'] - begin:6.1f} s")
    print(f"job done                   {done - begin:6.1f} s")
    print(f"trainer done               {end['end'] - begin:6.1f} s   {end['rows']:,} rows in {end['batches']} batches, loss {end['loss'][0]:.3f} to {end['loss'][1]:.3f}")
    if (end["rows"], end["ids"]) != (rows, ids):
        sys.exit(f"the trainer saw {end['rows']} rows, published are {rows}")


if __name__ == "__main__":
    main()
