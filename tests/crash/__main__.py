"""python -m tests.crash --kills 500 --cuts 200: the long run. Ends with a table of faults hit and losses found."""

import argparse
import random
import sys
import time

from tests.crash.rounds import bench, can_cut
from tests.crash.workload import Mismatch
from tests.harness import StartFailed


def spread(total, benches):
    """Rounds for each of several fresh benches, so that data folders stay small."""
    return [total // benches + (k < total % benches) for k in range(benches)] if total else []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills at random moments")
    parser.add_argument("--cuts", type=int, default=40, help="power cuts, half on ext4 and half on xfs")
    parser.add_argument("--points", type=int, default=1, help="times through every named crash point")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    hits, acked, persisted, losses, begun = {}, 0, 0, [], time.monotonic()

    def run(name, kind, rounds):
        nonlocal acked, persisted
        with bench(f"{a.seed}/{name}", kind) as b:
            try:
                rounds(b)
                persisted += b.compare_under_store()
            except Exception as e:
                losses.append(f"{name}: {e}")
                print(f"LOST {losses[-1]}", flush=True)
            acked += b.crew.acked
            for what, count in b.hits.items():
                hits[what] = hits.get(what, 0) + count
        print(f"{time.monotonic() - begun:6.0f} s  {name}: {acked} acknowledged so far, {sum(hits.values())} faults hit, {len(losses)} losses", flush=True)

    for k, rounds in enumerate(spread(a.kills, -(-a.kills // 50))):
        run(f"kill-{k}", None, lambda b, n=rounds: [b.kill() for _ in range(n)])
    for k in range(a.points):
        run(f"points-{k}", None, lambda b: b.crash_points())
        run(f"recovery-{k}", None, lambda b: b.crash_recovery())
    if a.cuts and not can_cut():
        sys.exit("cutting power needs root, loop devices and xfs_io")
    for k, rounds in enumerate(spread(a.cuts, max(2, -(-a.cuts // 25)))):
        run(f"cut-{k}", ("ext4", "xfs")[k % 2], lambda b, n=rounds: [b.cut() for _ in range(n)])

    control = "not run"
    if a.cuts:
        control = "FAILED: the lying disk was not noticed"
        with bench(f"{a.seed}/control", "ext4", fsync="off") as b:
            b.kill()
            try:
                for _ in range(20):
                    b.cut()
            except (Mismatch, StartFailed) as e:
                control = f"ok: with fsync off a loss is seen ({str(e)[-80:]})"

    print()
    for what, count in sorted(hits.items()):
        print(f"{what:32} {count:6}")
    print(f"{'acknowledged operations':32} {acked:6}\n{'objects compared at the end':32} {persisted:6}\n{'losses':32} {len(losses):6}\nnegative control: {control}")
    sys.exit(bool(losses) or control.startswith("FAILED"))


main()
