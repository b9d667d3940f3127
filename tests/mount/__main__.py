"""python -m tests.mount --kills 200 --cuts 80: the long run of crashes under load through the mount."""

import argparse
import random
import sys
import time

from tests.crash.rounds import can_cut
from tests.mount.mounted import PLAIN
from tests.mount.rounds import bench, loss_without_fsync


def spread(total, each):
    """Rounds for each of several fresh benches, so that data folders stay small."""
    benches = -(-total // each)
    return [total // benches + (k < total % benches) for k in range(benches)] if total else []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0 if PLAIN else 50, help="kills at random moments")
    parser.add_argument("--cuts", type=int, default=20, help="power cuts, half on ext4 and half on xfs")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    if a.cuts and not can_cut():
        sys.exit("cutting power needs root, loop devices and xfs_io")
    hits, acked, losses, begun = {}, 0, [], time.monotonic()
    points = spread(0 if PLAIN else a.kills // 25, 1)
    runs = [("crash_points", None, n) for n in points] + [("kill", None, n) for n in spread(a.kills, 25)] + [("cut", ("ext4", "xfs")[k % 2], n) for k, n in enumerate(spread(a.cuts, min(15, -(-a.cuts // 2) or 1)))]
    for k, (fault, kind, rounds) in enumerate(runs):
        with bench(f"{a.seed}/{fault}-{k}", kind) as b:
            try:
                for _ in range(rounds):
                    getattr(b, fault)()
                if not PLAIN:
                    b.compare_under_store()
            except Exception as e:
                losses.append(f"{fault}-{k}: {e}")
                print(f"LOST {losses[-1]}", flush=True)
            acked += b.crew.acked
            hits |= {what: hits.get(what, 0) + count for what, count in b.hits.items()}
        print(f"{time.monotonic() - begun:6.0f} s  {fault}-{k}: {acked} acknowledged so far, {sum(hits.values())} faults hit, {len(losses)} losses", flush=True)
    loss = loss_without_fsync(f"{a.seed}/control") if a.cuts else "not run"
    print()
    for what, count in sorted(hits.items()):
        print(f"{what:32} {count:6}")
    print(f"{'acknowledged operations':32} {acked:6}\n{'losses':32} {len(losses):6}\nseen without fsync: {loss}")
    sys.exit(bool(losses) or loss is None)


if __name__ == "__main__":
    main()
