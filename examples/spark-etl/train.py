"""The trainer: logistic regression over whatever comes, while it comes. The loop is plain PyTorch.   python train.py ADDR PATH

Prints one JSON line when it has made its first step and one when the stream has ended.
"""

import json
import sys
import time

import torch
from forebay.torch import IterableDataset
from torch.utils.data import DataLoader

FEATURES = ["hour_sin", "hour_cos", "price_log"]
BATCH = 8192


def main(addr, path):
    torch.manual_seed(1)
    model = torch.nn.Linear(len(FEATURES), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rows = IterableDataset(f"forebay://{addr.partition('//')[2]}{path}", ["id", *FEATURES, "label"], BATCH, follow=True, wait=120)
    seen, ids, losses = 0, 0, []
    for batch in DataLoader(rows, batch_size=None):
        x = torch.stack([batch[name] for name in FEATURES], dim=1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(-1), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not losses:
            print(json.dumps({"first": time.time()}), flush=True)
        losses.append(loss.item())
        seen += len(batch["id"])
        ids += int(batch["id"].sum())
    print(json.dumps({"end": time.time(), "rows": seen, "ids": ids, "batches": len(losses), "loss": [losses[0], losses[-1]]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
