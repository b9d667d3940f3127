"""What the writer and the trainer are both told."""

import argparse


def options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--batch", type=int, default=2_000, help="rows in a batch, of the writer and of the trainer")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds that the pipeline takes for a batch")
    parser.add_argument("--json", metavar="FILE", help="write what was measured there too")
    return parser.parse_args()
