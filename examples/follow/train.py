"""The trainer: a first epoch over what comes while it is written, a second over the published version. The loop is plain PyTorch."""

import json
import time

import torch
from torch.utils.data import DataLoader

from forebay.torch import IterableDataset
from options import options

PATH = "/features/clicks"


def epoch(model: torch.nn.Module, loader: DataLoader) -> dict:
    """One pass; how much was read, when the first batch came, and the loss of the last batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rows, first, losses = 0, None, []
    for batch in loader:
        first = first or time.time()
        loss = torch.nn.functional.mse_loss(model(batch["x"]).squeeze(-1), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows += len(batch["label"])
        losses.append(loss.item())
    return {"rows": rows, "first_batch": first, "ended": time.time(), "loss": sum(losses[-5:]) / len(losses[-5:])}


def main() -> None:
    told = options(__doc__)
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 1)
    print("waiting for the first batch", flush=True)
    live = IterableDataset(PATH, batch_size=told.batch, follow=True, wait=60)
    report = {"while it is written": epoch(model, DataLoader(live, batch_size=None, num_workers=told.workers))}
    published = IterableDataset(PATH, batch_size=told.batch, wait=60)
    report["published"] = epoch(model, DataLoader(published, batch_size=None, num_workers=told.workers))
    report["version"] = published.version
    print(json.dumps(report))
    assert report["while it is written"]["rows"] == report["published"]["rows"] == told.rows, "every row once, in both epochs"
    if told.json:
        with open(told.json, "w") as file:
            json.dump(report, file)


if __name__ == "__main__":
    main()
