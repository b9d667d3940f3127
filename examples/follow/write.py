"""The pipeline: writes features batch by batch with nothing but pyarrow, as any Flight client would.

Each batch is durable and can be followed as soon as it is answered; the version is there when the call ends.
"""

import json
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from options import options

PATH = "/features/clicks"
WEIGHTS = np.array([0.5, -1.0, 2.0, 0.25])  # what there is to learn


def features(rows: int, seed: int) -> pa.RecordBatch:
    """Four numbers a row, and a label that depends on them."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(rows, len(WEIGHTS))).astype(np.float32)
    label = (x @ WEIGHTS + chance.normal(scale=0.1, size=rows)).astype(np.float32)
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), len(WEIGHTS)), pa.array(label)]
    return pa.record_batch(columns, names=["x", "label"])


def main() -> None:
    told = options(__doc__)
    client = fl.connect(os.environ["FOREBAY_ADDR"])
    command = json.dumps({"path": PATH, "mode": "overwrite"})
    writer, answers = client.do_put(fl.FlightDescriptor.for_command(command), features(1, 0).schema)
    first = None
    for seed, start in enumerate(range(0, told.rows, told.batch)):
        writer.write_batch(features(min(told.batch, told.rows - start), seed))
        answer = json.loads(answers.read().to_pybytes())  # stable: on the disk, and with every follower
        first = first or time.time()
        assert answer["level"] == "local"
        time.sleep(told.pause)
    writer.close()
    print(json.dumps({"written": told.rows, "first_acknowledged": first, "committed": time.time()}))


if __name__ == "__main__":
    main()
