"""Two epochs over the same generated JPEGs from each source: ext4, the S3 gateway, and Forebay's mounts. See README.md.

`run.sh` starts what this reads from; here is nothing that knows Forebay, only folders and an S3 endpoint.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from loader import Settings, measure
from pictures import Picture, generate, upload
from sources import Folder, Gateway, Source

EPOCHS = 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there too")
    parser.add_argument("--no-decode", action="store_true", help="read and compare the images, but leave them undecoded")
    parser.add_argument("--no-gateway", action="store_true", help="no S3: the folder of the images is what Forebay reads through")
    parser.add_argument("--folder", type=Path, required=True, help="where the images are generated (run.sh gives it)")
    parser.add_argument("--mount", action="append", default=[], metavar="NAME=DIR", help="reads the images there too (run.sh gives it)")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=PID", help="tells its CPU seconds (run.sh gives it)")
    return parser.parse_args()


def gateway(args: argparse.Namespace) -> Gateway | None:
    endpoint = os.environ.get("FOREBAY_S3_ENDPOINT")
    return Gateway(endpoint, os.environ["FOREBAY_S3_BUCKET"]) if endpoint and not args.no_gateway else None


def listed(source: Source, pictures: list[Picture]) -> float:
    """Lists the source, as ImageFolder begins; the seconds. Raises ValueError when the names are not those of the pictures."""
    begin = time.perf_counter()
    names = source.names()
    seconds = time.perf_counter() - begin
    if sorted(names) != sorted(picture.name for picture in pictures):
        raise ValueError(f"{len(names)} names are listed that are not those of the {len(pictures)} images")
    return seconds


def measured(args: argparse.Namespace) -> dict:
    """Everything there is to report, as JSON has it."""
    settings = Settings(args.workers, args.batch, args.seed, not args.no_decode)
    local, store = Folder(args.folder), gateway(args)
    pictures = generate(args.folder, args.images, args.seed, args.workers)
    if store:
        upload(args.folder, store, args.images, args.workers)
    sources = {local.file_system(): local} | ({"gateway, boto3": store} if store else {})
    sources |= {f"Forebay, {name} mount": Folder(Path(folder)) for name, folder in pairs(args.mount)}
    rows = []
    for name, source in sources.items():
        local.forget([picture.name for picture in pictures])
        list_s = listed(source, pictures)
        for epoch in range(1, EPOCHS + 1):
            found = measure(name, epoch, source, pictures, settings, processes(args))
            rows.append({"source": name, "epoch": epoch, "list_s": list_s if epoch == 1 else None, **asdict(found)})
    return {
        "images": args.images,
        "bytes": sum(picture.length for picture in pictures),
        **asdict(settings),
        "under_store": "S3 gateway" if store else "local folder",
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "rows": rows,
    }


def pairs(options: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (option.partition("=") for option in options)]


def processes(args: argparse.Namespace) -> dict[str, list[int]]:
    servers: dict[str, list[int]] = {}
    for name, process in pairs(args.server):
        servers.setdefault(name, []).append(int(process))
    return servers


def table(report: dict) -> str:
    """The report as a Markdown table under a line that says what was read."""
    who = list(report["rows"][0]["cpu_s_per_1000"])
    about = "{images:,} JPEGs, {bytes:,} bytes; {workers} workers, batches of {batch}, seed {seed}; under Forebay: {under_store}"
    head = ["source", "epoch", "images/s", "MB/s", "batch p99, ms", *(f"CPU s per 1,000: {name}" for name in who)]
    lines = [about.format(**report) + ("" if report["decode"] else "; not decoded"), "", row(head), row(["---"] * len(head))]
    for each in report["rows"]:
        cpu = (f"{each['cpu_s_per_1000'][name]:.2f}" for name in who)
        speed = f"{each['images_per_s']:,.0f}", f"{each['mb_per_s']:.1f}", f"{each['batch_p99_ms']:.0f}"
        lines.append(row([each["source"], each["epoch"], *speed, *cpu]))
    return "\n".join(lines)


def row(cells: list) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = arguments()
    try:
        report = measured(args)
    except (ValueError, OSError) as wrong:
        sys.exit(f"images.py: {wrong}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
