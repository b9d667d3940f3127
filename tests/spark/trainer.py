"""A training loop in PyTorch that waits for a path from before it is there: python -m tests.spark.trainer ADDR PATH WORKERS [WORD …]

It follows a dataset; with `success` it waits for `_SUCCESS` and then reads the files that are there. Prints a JSON line when it waits, one with
its first batch, and one at the end: how many rows it had, whether these are the numbers from 0 on (with `first=F` and `step=S` every S-th from
F on), each once and with its double, and the error that ended it.
"""

import json
import sys
import time

import torch
from forebay import ForebayError, connect
from forebay.torch import IterableDataset
from torch.utils.data import DataLoader


def loop(loader, ids):
    for batch in loader:
        if not torch.equal(batch["id"] * 2, batch["twice"]):
            raise SystemExit(f"a row is torn: {batch}")
        if not ids:
            print(json.dumps({"first": len(batch["id"])}), flush=True)
        ids.append(batch["id"])


def wait_for_success(addr, path):
    with connect(addr) as client:
        while not client.exists(f"{path}/_SUCCESS"):
            time.sleep(0.01)


def main(addr, path, workers, *words):
    given = dict(word.split("=") for word in words if "=" in word)
    first, step = int(given.get("first", 0)), int(given.get("step", 1))
    url, ids, error, follow = addr.replace("grpc://", "forebay://") + path, [], None, "success" not in words
    print(json.dumps({"waits": path}), flush=True)
    if not follow:
        wait_for_success(addr, path)
    dataset = IterableDataset(url, ["id", "twice"], batch_size=4096, follow=follow, wait=300)
    try:
        loop(DataLoader(dataset, batch_size=None, num_workers=int(workers)), ids)
    except ForebayError as raised:
        error = type(raised).__name__
    had = torch.cat(ids).sort().values if ids else torch.tensor([])
    once = torch.equal(had, torch.arange(first, first + step * len(had), step))
    print(json.dumps({"rows": len(had), "once": once, "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
