"""Work by other processes, given back in order, and a bar that shows how far it is."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 2  # tasks of each worker that are done or under way before they are asked for
FORK = multiprocessing.get_context("fork")


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """`work` of every task, by so many processes, which are gone when the last result was given. The first error ends it."""
    tasks = iter(tasks)
    with ProcessPoolExecutor(workers, FORK, _end_with, (os.getpid(),)) as pool:
        try:
            waiting = deque(pool.submit(work, task) for task in islice(tasks, workers * AHEAD))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, task) for task in islice(tasks, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it: it would keep the mount busy."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def progress(items: Iterable[Result], total: int, what: str, weight: Callable[[Result], int] = lambda _: 1) -> Iterator[Result]:
    """Hands the items on, with a bar on stderr where that is a terminal, and one line there at the end."""
    begin = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += weight(item)
        if sys.stderr.isatty() and time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            bar = "#" * (30 * done // total)
            print(f"\r{what:<24} [{bar:<30}] {done:,} of {total:,}", end="", file=sys.stderr, flush=True)
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{what}: {done:,} images in {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
