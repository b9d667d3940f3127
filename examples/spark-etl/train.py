"""The trainer: logistic regression over whatever comes, batch by batch, by plain pyarrow.   python train.py ADDR PATH

Prints one JSON line when it has made its first step and one when the stream has ended.
"""

import json
import sys
import time

import numpy as np
import pyarrow.flight as fl

FEATURES = ["hour_sin", "hour_cos", "price_log"]


def follow(addr, path):
    client = fl.connect(addr)
    command = {"path": path, "follow": True, "wait": "120s", "columns": ["id", *FEATURES, "label"]}
    info = client.get_flight_info(fl.FlightDescriptor.for_command(json.dumps(command)))
    for chunk in client.do_get(info.endpoints[0].ticket):
        yield chunk.data


def step(weights, batch, rate=0.5):
    """One gradient step; the new weights and the loss before it."""
    x = np.column_stack([np.ones(batch.num_rows), *(batch.column(name).to_numpy() for name in FEATURES)])
    y = batch.column("label").to_numpy()
    p = 1 / (1 + np.exp(-(x @ weights)))
    loss = -np.mean(np.log(np.where(y > 0, p, 1 - p) + 1e-9))
    return weights - rate * x.T @ (p - y) / len(y), loss


def main(addr, path):
    weights, rows, ids, losses = np.zeros(len(FEATURES) + 1), 0, 0, []
    for batch in follow(addr, path):
        weights, loss = step(weights, batch)
        if not losses:
            print(json.dumps({"first": time.time()}), flush=True)
        losses.append(float(loss))
        rows += batch.num_rows
        ids += int(batch.column("id").to_numpy().sum())
    print(json.dumps({"end": time.time(), "rows": rows, "ids": ids, "batches": len(losses), "loss": [losses[0], losses[-1]]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
