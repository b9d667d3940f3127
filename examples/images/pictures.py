"""The pictures: JPEGs of 5 to 30 KB, laid out as ImageFolder wants them, the same for one seed wherever the same Pillow is installed."""

import io
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from sources import Gateway
from workers import in_order, progress

Result = TypeVar("Result")

SIDE = 128
CLASSES = 100
TASK = 100  # pictures of one task of a worker


class Picture(NamedTuple):
    """One of those that were generated, and what its file holds."""

    index: int
    length: int
    crc32: int

    @property
    def name(self) -> str:
        return name(self.index)

    @property
    def label(self) -> int:
        return self.index % CLASSES

    def check(self, content: bytes) -> None:
        """Raises ValueError unless the content is this picture's."""
        if (len(content), zlib.crc32(content)) != (self.length, self.crc32):
            found = f"{len(content)} bytes with CRC-32 {zlib.crc32(content):08x}"
            raise ValueError(f"{self.name}: read {found}, generated {self.length} bytes with {self.crc32:08x}")


def name(index: int) -> str:
    return f"class_{index % CLASSES:03}/{index:07}.jpg"


def generate(folder: Path, images: int, seed: int, workers: int) -> list[Picture]:
    """Writes the pictures, unless the folder has them from an earlier run. Their list is written last: where it is, they all are."""
    kept = folder.with_name(f"{folder.name}-{images}-{seed}.npy")
    if not kept.exists():
        for number in range(CLASSES):
            (folder / f"class_{number:03}").mkdir(parents=True, exist_ok=True)
        pictures = list(_each(partial(_write, folder, seed), images, workers, "generate"))
        os.sync()
        np.save(kept, np.array(pictures, np.uint32))
    return [Picture(*row) for row in np.load(kept).tolist()]


def upload(folder: Path, gateway: Gateway, images: int, workers: int) -> None:
    for _ in _each(partial(_put, folder, gateway), images, workers, "upload"):
        pass


def _each(work: Callable[[int], Result], images: int, workers: int, what: str) -> Iterator[Result]:
    """`work` of every index, in order."""
    tasks = (range(start, min(start + TASK, images)) for start in range(0, images, TASK))
    done = in_order(partial(_all, work), tasks, workers)
    return progress((result for results in done for result in results), images, what)


def _all(work: Callable[[int], Result], indices: range) -> list[Result]:
    return [work(index) for index in indices]


def _write(folder: Path, seed: int, index: int) -> Picture:
    content = _drawn(seed, index)
    (folder / name(index)).write_bytes(content)
    return Picture(index, len(content), zlib.crc32(content))


def _put(folder: Path, gateway: Gateway, index: int) -> None:
    gateway.write(name(index), (folder / name(index)).read_bytes())


def _drawn(seed: int, index: int) -> bytes:
    """Six shapes under noise. The noise makes the size."""
    rng = np.random.default_rng([seed, index])
    canvas = Image.new("RGB", (SIDE, SIDE), _colour(rng))
    draw = ImageDraw.Draw(canvas)
    for left, top, width, height in rng.integers(8, 64, (6, 4)).tolist():
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((left, top, left + width, top + height), fill=_colour(rng))
    noise = rng.integers(0, rng.integers(36, 128), (SIDE, SIDE, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.asarray(canvas) + noise).save(out, "JPEG", quality=int(rng.integers(87, 100)))
    return out.getvalue()


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(0, 128, 3).tolist())
