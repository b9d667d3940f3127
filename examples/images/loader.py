"""A DataLoader: workers read and decode shuffled batches, which come in order. Every byte is compared with what was generated."""

import io
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pictures import Picture
from sources import Source
from workers import in_order, progress


@dataclass(frozen=True)
class Batch:
    pixels: np.ndarray  # uint8 by image, row, column, colour; empty where images are not decoded
    labels: np.ndarray
    seconds: float  # the worker's, from the first read to the last image


@dataclass(frozen=True)
class Settings:
    workers: int
    batch: int
    seed: int
    decode: bool


@dataclass(frozen=True)
class Epoch:
    """What one epoch over one source took."""

    images: int
    seconds: float
    images_per_s: float
    mb_per_s: float
    batch_p99_ms: float
    cpu_s_per_1000: dict[str, float]  # of the loader with its workers, and of each server


def shuffled(pictures: list[Picture], settings: Settings, epoch: int) -> list[list[Picture]]:
    """The epoch's batches, the same for every source."""
    order = [pictures[index] for index in np.random.default_rng([settings.seed, epoch]).permutation(len(pictures))]
    return [order[start : start + settings.batch] for start in range(0, len(order), settings.batch)]


def batches(source: Source, pictures: list[Picture], settings: Settings, epoch: int) -> Iterator[Batch]:
    return in_order(partial(_load, source, settings.decode), shuffled(pictures, settings, epoch), settings.workers)


def _load(source: Source, decode: bool, pictures: list[Picture]) -> Batch:
    begin = time.perf_counter()
    pixels = [_image(source, picture, decode) for picture in pictures]
    return Batch(np.stack(pixels), np.array([picture.label for picture in pictures]), time.perf_counter() - begin)


def _image(source: Source, picture: Picture, decode: bool) -> np.ndarray:
    content = source.read(picture.name)
    picture.check(content)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) if decode else np.empty(0, np.uint8)


def measure(what: str, epoch: int, source: Source, pictures: list[Picture], settings: Settings, servers: dict[str, list[int]]) -> Epoch:
    """One epoch, its workers' start included. `servers` are processes whose CPU is told too. A wrong byte raises ValueError."""
    cpu, begin = _cpu(servers), time.perf_counter()
    loaded = progress(batches(source, pictures, settings, epoch), len(pictures), f"{what}, epoch {epoch}", lambda batch: len(batch.labels))
    images, times = zip(*((len(batch.labels), batch.seconds) for batch in loaded))
    seconds = time.perf_counter() - begin
    assert sum(images) == len(pictures), f"{sum(images)} images in an epoch of {len(pictures)}"
    return Epoch(
        images=len(pictures),
        seconds=seconds,
        images_per_s=len(pictures) / seconds,
        mb_per_s=sum(picture.length for picture in pictures) / 1e6 / seconds,
        batch_p99_ms=1000 * float(np.percentile(times, 99)),
        cpu_s_per_1000={who: 1000 * (now - cpu[who]) / len(pictures) for who, now in _cpu(servers).items()},
    )


def _cpu(servers: dict[str, list[int]]) -> dict[str, float]:
    """CPU seconds so far: this process's with the workers that have ended, and the servers'."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"loader": sum(used.ru_utime + used.ru_stime for used in own)} | {who: sum(map(_cpu_of, pids)) for who, pids in servers.items()}


def _cpu_of(process: int) -> float:
    """The process's own CPU clock, in nanoseconds where `/proc` counts ticks; its number is that of clock_getcpuclockid(3)."""
    return time.clock_gettime((~process << 3) | 2)
