"""Several streams read at once by threads, given in the order of the streams, within a bound of bytes.

A permit comes before a chunk is kept: a thread that would go beyond the bound waits, unless the consumer waits for its very stream. Streams
are begun in order, so the stream that the consumer waits for always has a thread, and nothing can stand still.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


class InOrder:
    """An iterator over the chunks of all streams.

    Args:
        openers: make the streams, each an iterator of `(batch, metadata)` with `close()`.
        threads: how many are read at once.
        bytes_max: bytes of chunks kept that were not taken yet; one chunk more for the stream that is waited for.
    """

    def __init__(self, openers: Sequence[Callable[[], Any]], threads: int, bytes_max: int) -> None:
        self._openers, self._bytes_max = openers, bytes_max
        self._changed = threading.Condition()
        self._feeds: dict[int, deque[Any]] = {}
        self._streams: dict[int, Any] = {}
        self._head, self._next, self._kept, self._closed = 0, 0, 0, False
        self._threads = [threading.Thread(target=self._run, name="forebay-read", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> InOrder:
        return self

    def __next__(self) -> Any:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._head >= len(self._openers) or self._feeds.get(self._head))
                if self._closed or self._head >= len(self._openers):
                    raise StopIteration
                item = self._feeds[self._head].popleft()
                if item is None:
                    del self._feeds[self._head]
                    self._head += 1
                elif not isinstance(item, BaseException):
                    self._kept -= item[0].nbytes
                self._changed.notify_all()
            if isinstance(item, BaseException):
                self.close()
                raise item
            if item is not None:
                return item

    def close(self) -> None:
        """Ends the threads; what they have is dropped."""
        with self._changed:
            self._closed = True
            streams = list(self._streams.values())
            self._feeds.clear()
            self._changed.notify_all()
        for stream in streams:
            stream.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        while (index := self._take()) is not None:
            try:
                stream = self._openers[index]()
                with self._changed:
                    self._streams[index] = stream
                for chunk in stream:
                    if not self._keep(index, chunk):
                        break
                self._end(index, None)
            except BaseException as error:  # the consumer raises it
                self._end(index, error)
                return

    def _take(self) -> int | None:
        """The number of the next stream to read; None when there is none."""
        with self._changed:
            if self._closed or self._next >= len(self._openers):
                return None
            index, self._next = self._next, self._next + 1
            self._feeds[index] = deque()
            return index

    def _keep(self, index: int, chunk: Any) -> bool:
        """Waits for room and keeps the chunk. False: nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._kept < self._bytes_max or (index == self._head and not self._feeds[index]))
            if self._closed:
                return False
            self._kept += chunk[0].nbytes
            self._feeds[index].append(chunk)
            self._changed.notify_all()
            return True

    def _end(self, index: int, error: BaseException | None) -> None:
        with self._changed:
            stream = self._streams.pop(index, None)
            if not self._closed:
                self._feeds[index].append(error)
                self._changed.notify_all()
        if stream is not None:
            stream.close()
