"""Random operations on one file, every image of it told before it is made: `python -m tests.mount.exerciser FILE SEED SIZE`.

It goes on until a call fails, which it does when the server is killed. On stdout, pickled: `("image", bytes)` before an operation that
changes the file, `("synced", None)` after a promise was given.
"""

import ctypes
import mmap
import os
import pickle
import random
import sys

PUNCH_HOLE, KEEP_SIZE = 2, 1
libc = ctypes.CDLL(None, use_errno=True)


class Exerciser:
    def __init__(self, path, seed, size_max, out):
        self.path, self.random, self.size_max, self.out = path, random.Random(seed), size_max, out
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)
        self.image = bytearray(os.pread(self.file, 1 << 30, 0))
        self.tell("image", bytes(self.image))

    def tell(self, what, image=None):
        pickle.dump((what, image), self.out)
        self.out.flush()

    def change(self, image):
        self.image = image
        self.tell("image", bytes(image))

    def part(self, inside=False):
        """(offset, length) of a place to work at; `inside` the file, or also behind its end."""
        end = len(self.image) if inside else self.size_max
        offset = self.random.randrange(end)
        return offset, self.random.randint(1, min(end - offset, self.size_max // 8))

    def run(self):
        usual = [self.write, self.write, self.write, self.append, self.cut, self.punch, self.map_write, self.check, self.check]
        rare = [self.sync, self.sync, self.reopen]
        while True:
            self.random.choice(rare if self.random.random() < 0.1 else usual)()

    # ---- operations

    def written(self, offset, data):
        image = self.image + bytes(max(0, offset - len(self.image)))
        image[offset : offset + len(data)] = data
        self.change(image)

    def write(self):
        offset, length = self.part()
        data = self.random.randbytes(length)
        self.written(offset, data)
        assert os.pwrite(self.file, data, offset) == length

    def append(self):
        if len(self.image) < self.size_max:
            data = self.random.randbytes(self.random.randint(1, 5000))
            self.written(len(self.image), data)
            assert os.pwrite(self.file, data, len(self.image) - len(data)) == len(data)

    def cut(self):
        size = self.random.randrange(self.size_max)
        self.change(self.image[:size] + bytes(max(0, size - len(self.image))))
        os.ftruncate(self.file, size)

    def punch(self):
        if self.image:
            offset, length = self.part(inside=True)
            self.written(offset, bytes(length))
            done = libc.fallocate(self.file, PUNCH_HOLE | KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(length))
            if done:
                raise OSError(ctypes.get_errno(), "fallocate")

    def map_write(self):
        if self.image:
            offset, length = self.part(inside=True)
            data = self.random.randbytes(length)
            self.written(offset, data)
            with mmap.mmap(self.file, len(self.image)) as mapped:
                mapped[offset : offset + length] = data
                mapped.flush()

    def check(self):
        content = b""
        while part := os.pread(self.file, self.size_max * 2, len(content)):  # One whose server dies ends early.
            content += part
        if content != self.image:
            at = next((i for i, (a, b) in enumerate(zip(content, self.image)) if a != b), min(len(content), len(self.image)))
            sys.exit(f"WRONG BYTES: {len(content)} bytes, {len(self.image)} expected, the first difference at {at}")

    def sync(self):
        self.random.choice([os.fsync, os.fdatasync])(self.file)
        self.tell("synced")

    def reopen(self):
        """A close is a commit."""
        os.close(self.file)
        self.tell("synced")
        self.file = os.open(self.path, os.O_RDWR)


if __name__ == "__main__":
    path, seed, size_max = sys.argv[1:]
    Exerciser(path, seed, int(size_max), sys.stdout.buffer).run()
