"""What a server has to persist, over time: samples of `status()`, as lines of JSON, and as a picture.

    forebay-timeline --seconds 60 --png run.png          # samples the server of FOREBAY_ADDR for a minute
    forebay-timeline --samples run.jsonl --png run.png   # draws what was sampled before

matplotlib is needed for the picture and for nothing else (`pip install forebay[plot]`).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .client import Client, connect
from .connection import Connection
from .errors import DeadlineExceeded, InvalidArgument, Unavailable

_KEPT = ("dirty_bytes", "dirty_files", "oldest_dirty_seconds", "persisted_bytes", "cached_bytes", "queued", "uploading")
_SAMPLES_MAX = 1_000_000


class Timeline:
    """Samples a server's status in a thread, as a context manager.

    >>> with Timeline(client) as timeline:    # doctest: +SKIP
    ...     run_the_pipeline()
    >>> timeline.plot("run.png")              # doctest: +SKIP

    Args:
        client: of the server.
        interval: seconds between samples.
        samples: taken before.

    Attributes:
        samples: dicts of `time` (seconds since the epoch), `dirty_bytes`, `dirty_files`, `oldest_dirty_seconds`, `persisted_bytes`,
            `cached_bytes`, `queued`, `uploading`, `blocked` and `conflicts` (how many), and `mark` where one was set. A moment without an
            answer has no sample.
    """

    def __init__(self, client: Client | None = None, interval: float = 0.25, samples: Sequence[dict[str, Any]] = ()) -> None:
        if interval <= 0:
            raise InvalidArgument(f"interval is {interval}; it is some seconds")
        self.samples: list[dict[str, Any]] = list(samples)
        self._client, self._interval = client and _impatient(client), interval
        self._stop, self._thread = threading.Event(), None if client is None else threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Timeline:
        if self._thread is None:
            raise InvalidArgument("a timeline that samples needs a client")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def mark(self, text: str) -> None:
        """Names this moment in the picture: "published"."""
        self._sample({"mark": text})

    def save(self, file: str | Path) -> None:
        """Writes the samples, a line of JSON each."""
        Path(file).write_text("".join(json.dumps(sample) + "\n" for sample in self.samples))

    @classmethod
    def load(cls, file: str | Path) -> Timeline:
        """What `save` wrote."""
        return cls(samples=[json.loads(line) for line in Path(file).read_text().splitlines() if line])

    def plot(self, png: str | Path, title: str = "") -> None:
        """Draws dirty bytes, persist lag and the queue over time, below each other, to a PNG.

        Raises:
            InvalidArgument: there are no samples.
            ImportError: matplotlib is not there.
        """
        if not self.samples:
            raise InvalidArgument("there are no samples to draw")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        begin = self.samples[0]["time"]
        times = [sample["time"] - begin for sample in self.samples]
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        rows = figure.subplots(3, sharex=True)
        for axes, (label, lines) in zip(rows, _ROWS, strict=True):
            for key, name, scale in lines:
                axes.plot(times, [sample[key] / scale for sample in self.samples], label=name, drawstyle="steps-post")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            if len(lines) > 1:
                axes.legend(loc="upper right")
            for sample in self.samples:
                if "mark" in sample:
                    axes.axvline(sample["time"] - begin, color="black", linewidth=0.8, linestyle=":")
        for sample in self.samples:
            if "mark" in sample:
                rows[0].annotate(sample["mark"], (sample["time"] - begin, 1), xycoords=("data", "axes fraction"), rotation=30, fontsize=8)
        rows[-1].set_xlabel("seconds")
        if title:
            figure.suptitle(title)
        FigureCanvasAgg(figure).print_png(str(png))

    def _run(self) -> None:
        while len(self.samples) < _SAMPLES_MAX:
            self._sample({})
            if self._stop.wait(self._interval):
                self._sample({})
                return

    def _sample(self, more: dict[str, Any]) -> None:
        assert self._client is not None, "only a timeline with a client samples"
        try:
            status = self._client.status()
        except (Unavailable, DeadlineExceeded):
            return
        kept = {key: status[key] for key in _KEPT} | {key: len(status[key]) for key in ("blocked", "conflicts")}
        self.samples.append({"time": time.time(), **kept, **more})


def _impatient(client: Client) -> Client:
    """A moment without an answer is left out, not waited for."""
    connection = client.connection
    return Client(Connection(connection.address, replace(connection.options, retry_for=0, timeout=connection.options.timeout or 5)))


_ROWS: list[tuple[str, list[tuple[str, str, float]]]] = [
    ("MB", [("dirty_bytes", "dirty", 1e6)]),
    ("persist lag, s", [("oldest_dirty_seconds", "oldest dirty", 1)]),
    ("items", [("queued", "queued", 1), ("uploading", "uploading", 1), ("blocked", "blocked", 1)]),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `forebay-timeline`."""
    parser = argparse.ArgumentParser(prog="forebay-timeline", description="Samples what a server has to persist, and draws it.")
    parser.add_argument("--addr", help="grpc://host:port; left out, FOREBAY_ADDR, else the loopback port")
    parser.add_argument("--seconds", type=float, default=60, help="how long to sample")
    parser.add_argument("--interval", type=float, default=0.25, help="seconds between samples")
    parser.add_argument("--samples", type=Path, help="draw these lines of JSON, or where --seconds samples go")
    parser.add_argument("--png", type=Path, help="the picture")
    parser.add_argument("--title", default="")
    told = parser.parse_args(arguments)
    if told.samples and told.samples.exists():
        timeline = Timeline.load(told.samples)
    else:
        with Timeline(connect(told.addr), told.interval) as timeline:
            time.sleep(told.seconds)
        if told.samples:
            timeline.save(told.samples)
    if told.png:
        timeline.plot(told.png, told.title)
    last = timeline.samples[-1] if timeline.samples else {}
    print(json.dumps({"samples": len(timeline.samples), **{k: last.get(k) for k in _KEPT}}), file=sys.stdout)


if __name__ == "__main__":
    main()
