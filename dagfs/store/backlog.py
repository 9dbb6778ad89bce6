"""Files that are proved and not on disk yet: readable at once, written by one thread, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from dagfs.model import ContentId

WAITING_MAX = 128 << 20
"""Bytes that wait for the disk; a file that comes when there are more is not written."""

UNWRITTEN_MAX = 32 << 20
"""Bytes of files that the disk did not take: without them a failing disk would mean one download for each read."""

BATCH = 32
"""Files in one transaction: its own cost, 150 us, is shared by them."""

LINGER = 0.05
"""Seconds that files wait for others of their batch. A writer that woke for each would take the interpreter from who
brings the next, and give it back, for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A whole file on its way to the disk, and every id it may be asked by."""

    md5: str
    data: bytes
    names: tuple[ContentId, ...]


class Backlog:
    """A queue that can be read. Thread-safe; `_changed` is a leaf lock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[Waiting] = deque()
        self._chores: OrderedDict[str, Callable[[], object]] = OrderedDict()
        self._waiting_bytes = 0  # of files in _queue, or taken and not yet written
        self._named: dict[ContentId, Waiting] = {}  # the names of all files that are readable here
        self._unwritten: OrderedDict[str, Waiting] = OrderedDict()
        self._unwritten_bytes = 0
        self._busy = False
        self._flushing = 0  # threads that wait for the queue to be empty
        self._closed = False

    def put(self, file: Waiting) -> bool:
        """Queue a file; False when there is no room, and it is only kept in memory for a while."""
        with self._changed:
            fits = not self._closed and self._waiting_bytes + len(file.data) <= WAITING_MAX
            self._name(file)
            if fits:
                self._queue.append(file)
                self._waiting_bytes += len(file.data)
                if len(self._queue) in (1, BATCH):
                    self._changed.notify_all()
            else:
                self._keep(file)
            return fits

    def get(self, name: ContentId) -> bytes | None:
        with self._changed:
            file = self._named.get(name)
            return file.data if file is not None else None

    def chore(self, name: str, work: Callable[[], object]) -> None:
        """Queue something else for the writer, once for each name; it runs when no file waits."""
        with self._changed:
            if not self._closed:
                self._chores.setdefault(name, work)
                self._changed.notify_all()

    def take(self) -> list[Waiting] | Callable[[], object] | None:
        """Wait for the next batch or chore; None is the end. What was taken before is done."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._chores or self._closed)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH or self._chores or self._hurried, LINGER)
            self._busy = True
            if self._queue:
                return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            return self._chores.popitem(last=False)[1] if self._chores and not self._closed else None

    def done(self, file: Waiting, *, written: bool) -> None:
        """A file that was taken is on disk, or will never be."""
        with self._changed:
            self._waiting_bytes -= len(file.data)
            if written:
                self._unname(file)
            else:
                self._keep(file)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is queued or being written; `timeout` in seconds."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not (self._queue or self._chores or self._busy), timeout)
            finally:
                self._flushing -= 1

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _hurried(self) -> bool:
        """With the lock held: nobody should linger."""
        return self._closed or self._flushing > 0 or self._waiting_bytes > WAITING_MAX // 8

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def _name(self, file: Waiting) -> None:
        for name in file.names:
            self._named[name] = file

    def _unname(self, file: Waiting) -> None:
        for name in file.names:
            if self._named.get(name) is file:
                del self._named[name]

    def _keep(self, file: Waiting) -> None:
        previous = self._unwritten.pop(file.md5, None)
        if previous is not None:
            self._unwritten_bytes -= len(previous.data)
            if previous is not file:
                self._unname(previous)
                self._name(file)
        self._unwritten[file.md5] = file
        self._unwritten_bytes += len(file.data)
        while self._unwritten_bytes > UNWRITTEN_MAX:
            dropped = self._unwritten.popitem(last=False)[1]
            self._unwritten_bytes -= len(dropped.data)
            self._unname(dropped)
