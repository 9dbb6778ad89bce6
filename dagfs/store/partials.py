"""The large files that are incomplete: one object for each in this process, and what they use of the disk."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from dagfs import system
from dagfs.model import Content, ContentId, Proof
from dagfs.store.complaint import Complaint
from dagfs.store.layout import Layout, unlink_quietly
from dagfs.store.partial import DiskBlocks
from dagfs.store.shared import Blocks, SharedPartial
from dagfs.store.volatile import VolatileBlocks

KEPT_OPEN = 8
"""Unused partial files that stay open: a reader comes back for each 128 KiB, and opening one reads its log."""


@dataclass(slots=True, eq=False)
class _Open:
    blocks: Blocks
    users: int = 0


class Partials:
    """Thread-safe. `_lock` is held while a partial file is opened, so that there is one object for each content."""

    def __init__(
        self,
        layout: Layout,
        limit: int,
        adopt: Callable[[Content, str, Proof, bytes], None],
        grown: Callable[[], None],
        complaint: Complaint,
    ) -> None:
        """`adopt` takes a file that became whole; `grown` hears that blocks may have filled the store."""
        self._layout = layout
        self._directory = str(layout.partial)  # a Path costs 10 us at each look
        self._limit = limit
        self._adopt = adopt
        self._grown = grown
        self._complaint = complaint
        self._lock = threading.Lock()  # guards everything below
        self._open: OrderedDict[ContentId, _Open] = OrderedDict()  # used last comes last

    def open(self, content: Content, size: int) -> SharedPartial:
        """Give the blocks of a file of `size` bytes; in memory when the disk cannot take them."""
        with self._lock:
            found = self._open.get(content.key)
            if found is None or found.blocks.size != size:
                if found is not None and not found.users:
                    found.blocks.shut()
                found = self._open[content.key] = _Open(self._blocks(content, size))
            self._open.move_to_end(content.key)
            found.users += 1
            self._close_unused(KEPT_OPEN)
        return SharedPartial(found.blocks, lambda: self._release(content.key, found), self._complaint)

    def size(self, key: ContentId) -> int | None:
        with self._lock:
            found = self._open.get(key)
        if found is not None:
            return found.blocks.size
        try:
            return os.stat(self._base(key) + ".0").st_size or None
        except OSError:
            return None

    def usage(self) -> int:
        """Give the bytes of disk that all partial files use, also those of other processes."""
        used = 0
        with contextlib.suppress(OSError), os.scandir(self._layout.partial) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    used += system.used_bytes(entry.stat(follow_symlinks=False))
        return used

    def count(self) -> int:
        with contextlib.suppress(OSError), os.scandir(self._layout.partial) as entries:
            return sum(not entry.name.endswith(".log") for entry in entries)
        return 0

    def remove_unused(self) -> bool:
        """Remove the partial file that has been idle longest; False when all are in use."""
        with self._lock:
            self._close_unused(0)
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(self._layout.partial) if not name.endswith(".log")]
            paths = [f"{self._layout.partial}/{name}" for name in names]
            return any(_remove_unlocked(path) for path in sorted(paths, key=_modified))
        return False

    def release_unused(self) -> None:
        """Close what nobody here uses, so that it can be looked at."""
        with self._lock:
            self._close_unused(0)

    def close(self) -> None:
        with self._lock:
            self._close_unused(0)

    def _base(self, key: ContentId) -> str:
        return f"{self._directory}/{key.scheme}-{key.digest}"

    def _blocks(self, content: Content, size: int) -> Blocks:
        if not system.HAS_LOCKS:
            return VolatileBlocks(size)  # two processes would write into one file
        in_use = sum(found.blocks.size for found in self._open.values() if isinstance(found.blocks, DiskBlocks))
        if size + in_use > self._limit:
            self._close_unused(0)
            in_use = sum(found.blocks.size for found in self._open.values() if isinstance(found.blocks, DiskBlocks))
        if size + in_use > self._limit:
            return VolatileBlocks(size)
        try:
            return DiskBlocks(content, size, self._base(content.key), partial(self._adopt, content), self._grown)
        except BlockingIOError:  # too many processes fetch it
            return VolatileBlocks(size)
        except OSError as error:
            self._complaint.make(error)
            return VolatileBlocks(size)

    def _release(self, key: ContentId, found: _Open) -> None:
        with self._lock:
            found.users -= 1
            if self._open.get(key) is not found:
                if not found.users:
                    found.blocks.shut()
                return
            if found.blocks.finished and not found.users:
                del self._open[key]
                found.blocks.shut()

    def _close_unused(self, kept: int) -> None:
        """Close the unused ones but the `kept` used last; with the lock held."""
        unused = [key for key, found in self._open.items() if not found.users]
        for key in unused[: max(0, len(unused) - kept)]:
            self._open.pop(key).blocks.shut()


@contextlib.contextmanager
def unused(path: str) -> Iterator[int]:
    """Hold an incomplete file, so that no process takes it up. Raises OSError, BlockingIOError when one has it."""
    fd = os.open(path, os.O_RDWR | system.OURS)
    try:
        system.lock(fd)
        yield fd
    finally:
        os.close(fd)


def _remove_unlocked(path: str) -> bool:
    try:
        with unused(path):
            os.unlink(path)
            unlink_quietly(path + ".log")
            return True
    except OSError:
        return False


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
