"""A training loop in PyTorch that follows a dataset from before it is there: python -m tests.spark.trainer ADDR PATH WORKERS

Prints a JSON line with its first batch and one at the end: how many rows it had, whether these are the numbers from 0 on, each once and with
its double, and the error that ended it.
"""

import json
import sys

import torch
from forebay import ForebayError
from forebay.torch import IterableDataset
from torch.utils.data import DataLoader


def loop(loader, ids):
    for batch in loader:
        if not torch.equal(batch["id"] * 2, batch["twice"]):
            raise SystemExit(f"a row is torn: {batch}")
        if not ids:
            print(json.dumps({"first": len(batch["id"])}), flush=True)
        ids.append(batch["id"])


def main(addr, path, workers):
    url, ids, error = addr.replace("grpc://", "forebay://") + path, [], None
    dataset = IterableDataset(url, batch_size=4096, follow=True, wait=300)
    try:
        loop(DataLoader(dataset, batch_size=None, num_workers=int(workers)), ids)
    except ForebayError as raised:
        error = type(raised).__name__
    had = torch.cat(ids).sort().values if ids else torch.tensor([])
    print(json.dumps({"rows": len(had), "once": torch.equal(had, torch.arange(len(had))), "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
