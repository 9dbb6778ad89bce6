"""Makes room: how much the store may use now, and what leaves for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dagfs import system
from dagfs.config import MIN_FREE_FRACTION
from dagfs.metrics import Metrics
from dagfs.store.dvc_cache import DvcCache
from dagfs.store.evict import Residents
from dagfs.store.handles import Handles
from dagfs.store.index import Index
from dagfs.store.layout import Layout, unlink_quietly
from dagfs.store.partials import Partials

Free = Callable[[], tuple[int, int]]
"""Gives the free bytes of the cache's disk, and all of its bytes."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the parts of a store share."""

    layout: Layout
    index: Index
    handles: Handles
    metrics: Metrics
    dvc_cache: DvcCache | None = None


class Room:
    """Holds the limit over whole files and blocks. Lock order: `_lock` is a leaf but for reads of the index."""

    def __init__(self, limit: int, shelf: Shelf, partials: Partials) -> None:
        self.limit = limit
        self.free: Free = lambda: _free(shelf.layout)
        self._layout = shelf.layout
        self._index = shelf.index
        self._handles = shelf.handles
        self._metrics = shelf.metrics
        self._partials = partials
        self._lock = threading.Lock()  # guards _residents
        self._residents = Residents(limit, shelf.index.walk)

    def touch(self, md5: str, size: int) -> None:
        with self._lock:
            self._residents.touch(md5, size)

    def insert(self, md5: str, size: int) -> None:
        with self._lock:
            self._residents.insert(md5, size)
            self._residents.settle()

    def make(self, coming: int, kept: set[str]) -> bool:
        """Remove files, none of `kept` or in use, until `coming` bytes fit; False when they cannot.

        In the writer's thread, since the policy walks the index there. Raises INDEX_ERRORS.
        """
        free, disk = self.free()
        partial = self._partials.usage()
        used = self._index.total().bytes + partial
        limit = min(self.limit, used + free - int(disk * MIN_FREE_FRACTION))
        while partial and used + coming > limit and self._partials.remove_unused():
            used -= partial
            partial = self._partials.usage()
            used += partial
        kept = kept | self._handles.in_use()
        while used + coming > limit:
            freed = self._evict(coming, kept)
            if freed is None:
                return False
            used -= freed
        return True

    def remove(self, md5: str) -> int:
        """Remove a file, its checksums and its row; give the bytes that this frees. Raises INDEX_ERRORS."""
        path = self._layout.file(md5)
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            size = 0
        with self._index.transaction():
            unlink_quietly(path)
            unlink_quietly(self._layout.checksum(md5))
            self._index.remove(md5)
        self._handles.forget(md5)  # an open descriptor would keep the bytes on the disk
        with self._lock:
            self._residents.forget(md5)
        return size

    def _evict(self, coming: int, kept: set[str]) -> int | None:
        with self._lock:
            victim = self._residents.victim(kept, coming)
        if victim is None:
            return None
        md5, size = victim
        self.remove(md5)
        self._metrics.add("store.evicted")
        self._metrics.add("store.evicted_bytes", size)
        return size


def _free(layout: Layout) -> tuple[int, int]:
    return system.disk(layout.root)
