"""Offline inference over folders: Parquet in, Parquet out, with a model of NumPy. Nothing here knows Forebay.

Outputs are written beside their final name and renamed, and `_SUCCESS` comes last, as such jobs do everywhere: so whoever lists the folder
never sees half an output, neither in the mount nor in the store.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WEIGHTS = np.array([0.5, -1.0, 2.0, 0.25])


def predict(table: pa.Table) -> pa.Table:
    """A score for each row."""
    x = np.stack([table[f"x{k}"].to_numpy() for k in range(len(WEIGHTS))], axis=1)
    return pa.table({"id": table["id"], "score": 1 / (1 + np.exp(-x @ WEIGHTS))})


def generate(told: argparse.Namespace) -> None:
    told.folder.mkdir(parents=True)
    for file in range(told.files):
        chance = np.random.default_rng(file)
        columns = {f"x{k}": chance.normal(size=told.rows) for k in range(len(WEIGHTS))}
        pq.write_table(pa.table({"id": np.arange(file * told.rows, (file + 1) * told.rows), **columns}), told.folder / f"{file:05}.parquet")


def infer(told: argparse.Namespace) -> None:
    begin = time.perf_counter()
    inputs = sorted(told.folder.glob("*.parquet"))
    told.output.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        rows = sum(pool.map(lambda path: infer_file(path, told.output), inputs))
    (told.output / "_SUCCESS").touch()
    seconds = time.perf_counter() - begin
    report = {"files": len(inputs), "rows": rows, "seconds": round(seconds, 3), "rows/s": round(rows / seconds)}
    print(json.dumps(report))
    if told.json:
        told.json.write_text(json.dumps(report))


def infer_file(path: Path, output: Path) -> int:
    scores = predict(pq.read_table(path))
    aside = output / f".{path.name}.inprogress"
    with open(aside, "wb") as file:
        pq.write_table(scores, file)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(output / path.name)
    return scores.num_rows


def verify(told: argparse.Namespace) -> None:
    """Computes everything again from the store's own files, and compares."""
    found = sorted(path.name for path in told.output.iterdir())
    expected = [f"{file:05}.parquet" for file in range(told.files)]
    assert found == [*expected, "_SUCCESS"], f"the store has {found}"
    for name in expected:
        assert pq.read_table(told.output / name).equals(predict(pq.read_table(told.folder / name))), name
    print(f"the store has all {len(expected)} outputs, and each is right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["generate", "infer", "verify"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rows", type=int, default=50_000, help="in a file")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    {"generate": generate, "infer": infer, "verify": verify}[told.step](told)


if __name__ == "__main__":
    main()
