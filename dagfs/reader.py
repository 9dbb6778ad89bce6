"""One file's reads, and what of it will be read next."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dagfs.fetch.seam import PART, WHOLE_MAX
from dagfs.memory import available_bytes
from dagfs.metrics import Metrics
from dagfs.model import Answer, Content, ContentId, Span, Urgency
from dagfs.store.seam import StoredFile

BLOCK = 256 << 10
"""Bytes. Read-ahead begins and ends at multiples of the store's blocks, so that no block is asked for twice."""

JITTER = 1 << 20
"""Bytes by which a sequential read may miss its stream: the kernel sends the parts of its read-ahead out of order."""

SEQUENTIAL = 512 << 10
"""Bytes read in order that make a stream. One read of a program is up to three of the kernel, whose own read-ahead is
128 KiB: a column of a Parquet file or a page fault is not the beginning of a long run."""

AHEAD_FIRST = 1 << 20
"""Bytes fetched ahead when a stream is recognised, and at a file's beginning; doubled each time the reader has used
half of them."""

AHEAD_MAX = 64 << 20
"""Bytes ahead at most: 1 Gbit/s for half a second."""

AHEAD_SHARE = 32
"""Of the memory that is available, one part in so many is read ahead for a stream: the pages of what is fetched and not
read yet must not drive out those that are in use."""

RUN = 4 << 20
"""Bytes of one ranged request of read-ahead; several of them run in parallel."""

LOOK_SECONDS = 0.5
"""How long the memory that is left is taken to be the same: at 1 Gbit/s one window at its widest."""

FILES_KEPT = 256
STREAMS_KEPT = 8  # of one file: processes that forked read one descriptor at several places


class Bytes(Protocol):
    """What the rooms above need of the cache. None of these blocks."""

    def size(self, content: Content, urgency: Urgency) -> Answer[int]: ...
    def read(self, content: Content, span: Span, urgency: Urgency) -> Answer[bytes]: ...

    def prepare(self, content: Content, span: Span | None, urgency: Urgency) -> None:
        """Start to fetch without waiting; None is a small file whole, or the beginning of a large one."""

    def cached(self, content: Content) -> bool: ...

    def file(self, content: Content) -> StoredFile | None:
        """Open the whole file on disk, if it is there."""


@dataclass(slots=True)
class _Stream:
    """One sequential reader. `end`: where it has read to. `fetched`: its read-ahead has been asked for up to here.
    `planned`: where its window ends, less than a PART further. `run`: bytes read, less those that were left out."""

    end: int
    fetched: int
    run: int
    ahead: int = 0
    planned: int = 0


class Streams:
    """The readers of one large file, told apart by where they read; a policy without threads or bytes."""

    def __init__(self, size: int, available: Callable[[], int | None]) -> None:
        """`available`: bytes of memory to be had now."""
        self._size = size
        self._available = available
        self._streams: list[_Stream] = []  # used last comes last

    def plan(self, start: int, end: int) -> Sequence[Span]:
        """Note a read of [start, end); give the spans to fetch ahead, in order, none of them given before."""
        stream = self._stream_of(start)
        if stream is None:
            self._streams = [*self._streams[1 - STREAMS_KEPT :], _Stream(end, _up(end), end - start)]
            return [] if start else self._extend(self._streams[-1])
        self._streams.remove(stream)
        self._streams.append(stream)
        left_out = max(0, start - stream.end)
        stream.run = max(0, stream.run - left_out) + end - start
        stream.end = max(stream.end, end)
        return self._extend(stream) if stream.run >= SEQUENTIAL or stream.ahead > AHEAD_FIRST else []

    def _stream_of(self, start: int) -> _Stream | None:
        near = [stream for stream in self._streams if abs(start - stream.end) <= JITTER]
        return min(near, key=lambda stream: abs(start - stream.end), default=None)

    def _extend(self, stream: _Stream) -> list[Span]:
        stream.fetched = max(stream.fetched, _up(stream.end))
        if stream.ahead and max(stream.planned, stream.fetched) - stream.end > stream.ahead // 2:
            return []
        stream.ahead = min(self._most(), 2 * stream.ahead or AHEAD_FIRST)
        start, stop = stream.fetched, _up(stream.end + stream.ahead)
        stream.planned = stop
        if stop >= self._size:
            stop = self._size
        elif stream.ahead > AHEAD_FIRST:
            stop = max(start, stop // PART * PART)
        stream.fetched = max(start, stop)
        return [Span(at, min(at + RUN, stop)) for at in range(start, stop, RUN)]

    def _most(self) -> int:
        """Give the bytes that may be read ahead now."""
        available = self._available()
        return AHEAD_MAX if available is None else max(AHEAD_FIRST, min(AHEAD_MAX, available // AHEAD_SHARE))


class Reader:
    """Reads spans through the cache. Thread-safe; lock order: `_lock` is a leaf, the cache is called outside of it."""

    def __init__(self, cache: Bytes, metrics: Metrics) -> None:
        self._cache = cache
        self._metrics = metrics
        self._available: int | None = None  # bytes of memory, as of _looked
        self._looked = -math.inf  # on the monotonic clock
        self._lock = threading.Lock()
        self._files: OrderedDict[ContentId, Streams] = OrderedDict()  # large files, used last comes last

    def read(self, content: Content, offset: int, size: int) -> Answer[bytes]:
        """Give the bytes [offset, offset + size), which lie in the file; `content.size` must be known."""
        total = content.size or 0
        span = Span(offset, min(offset + size, total))
        if span.size <= 0:
            return b""
        if total <= WHOLE_MAX:
            return self._cache.read(content, span, Urgency.READER)
        return self._read_large(content, span, total)

    def _read_large(self, content: Content, span: Span, total: int) -> Answer[bytes]:
        self._look()
        with self._lock:
            streams = self._files.get(content.key)
            if streams is None:
                streams = self._files[content.key] = Streams(total, lambda: self._available)
                if len(self._files) > FILES_KEPT:
                    self._files.popitem(last=False)
            self._files.move_to_end(content.key)
            ahead = streams.plan(span.start, span.end)
        answer = self._cache.read(content, span, Urgency.READER)
        for run in ahead:
            self._metrics.add("reader.ahead_bytes", run.size)
            self._cache.prepare(content, run, Urgency.READ_AHEAD)
        return answer

    def _look(self) -> None:
        """See how much memory is left; not under the lock, as it reads files of the system."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._available = now, available_bytes()


def _up(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK
