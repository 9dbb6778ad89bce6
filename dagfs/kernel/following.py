"""What a mount whose commit may change needs of the kernel: names that expire, listings that do not mix, and, where
an open file holds the commit, word of each opening."""

from __future__ import annotations

import errno
import logging
import mmap
import struct
import threading
import time
from collections.abc import Callable
from typing import Protocol

from dagfs.kernel.notify import EPOCH_MINOR, expire_names, forget_attributes
from dagfs.kernel.protocol import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, IN_HEADER, OPEN_OUT, RefusedError
from dagfs.tree.numbers import Recent
from dagfs.vfs.seam import ROOT

log = logging.getLogger(__name__)

ROWS = 1 << 18
"""Files that may be open at a time where openings are counted; more get ENFILE."""

_ROW = struct.Struct("=Q")  # a handle; 0 is a free row
_RESENT = 1 << 63  # set in the number of a request that is sent again
_SENT_BACK = 1024  # openings remembered that were sent back to look their name up


class OpenTable:
    """The handles of open files, in memory that a worker's successors share. One worker at a time uses it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (ROWS + 1) * _ROW.size)  # pages that are never touched take no memory

    def handles(self) -> list[int]:
        """Give the handle of each row that was ever used, 0 for a free one."""
        (end,) = _ROW.unpack_from(self._memory)
        return [handle for (handle,) in _ROW.iter_unpack(self._memory[_ROW.size : (end + 1) * _ROW.size])]

    def put(self, row: int, handle: int) -> None:
        _ROW.pack_into(self._memory, (row + 1) * _ROW.size, handle)

    def use(self, rows: int) -> None:
        """Note how many rows were ever used."""
        _ROW.pack_into(self._memory, 0, rows)


class Openings:
    """Counts open files. A handle is the number of the request that opened it, so what the kernel sends again after a
    worker's death is counted once. Thread-safe; `_lock` is a leaf."""

    def __init__(self, table: OpenTable) -> None:
        self._table = table
        self._lock = threading.Lock()  # guards everything below
        handles = table.handles()
        self._rows = {handle: row for row, handle in enumerate(handles) if handle}
        self._free = [row for row, handle in enumerate(handles) if not handle]
        self._end = len(handles)  # the first row that was never used
        self._changed = time.monotonic()

    def opened(self, unique: int) -> int | None:
        """Note an opening by its request; give its handle, None when there are too many."""
        handle = unique & ~_RESENT
        with self._lock:
            if handle in self._rows:
                return handle
            if not self._free:
                if self._end == ROWS:
                    return None
                self._free.append(self._end)
                self._end += 1
                self._table.use(self._end)
            row = self._rows[handle] = self._free.pop()
            self._table.put(row, handle)
        return handle

    def closed(self, handle: int) -> None:
        with self._lock:
            row = self._rows.pop(handle, None)
            if row is not None:
                self._table.put(row, 0)
                self._free.append(row)
            self._changed = time.monotonic()

    def __len__(self) -> int:
        return len(self._rows)

    def quiet_for(self) -> float:
        """Give for how many seconds no file has been open; below 0 while one is."""
        with self._lock:
            return -1.0 if self._rows else time.monotonic() - self._changed


class Room(Protocol):
    """What is asked of `vfs.generations.Generations`."""

    def admit(self, node: int, note: Callable[[], None]) -> bool: ...
    def root_of(self, node: int) -> int: ...


class Following:
    """The kernel's side of `Generations`. Thread-safe; `_lock` is a leaf."""

    def __init__(self, fd: int, generations: Room, minor: int, openings: Openings | None = None) -> None:
        """`minor`: of the protocol agreed on; `openings`: only where open files hold the commit."""
        self._fd = fd
        self._generations = generations
        self._openings = openings
        self._lock = threading.Lock()
        self._sent_back: Recent[tuple[int, int], bool] = Recent(_SENT_BACK)  # thread, node
        self.brief = minor < EPOCH_MINOR
        """Names in the root are asked for each time: this kernel cannot be told that they have changed, or only by a
        message that waits for who is looking a name up, and that misses a reply on its way."""

    @property
    def counts(self) -> bool:
        """Whether each opening of a file must be seen."""
        return self._openings is not None

    def changed(self) -> None:
        """Make the kernel forget what it knows of the root. Does not wait; never fails."""
        try:
            if not self.brief:
                expire_names(self._fd)
            forget_attributes(self._fd, ROOT)
        except OSError as error:  # the mount has ended
            log.info("the kernel was not told of the new commit: %s", error)

    def open_directory(self, node: int) -> bytes:
        """Answer OPENDIR. The root's handle names its commit, and the kernel keeps no listing of the root: one that it
        is putting together could have two commits in it."""
        root = self._generations.root_of(node)
        return OPEN_OUT.pack(root, 0 if root else FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR, 0)

    def open(self, node: int, message: bytes) -> int:
        """Count an opening if openings count, and give its handle.

        Raises RefusedError: ENFILE when there are too many; ESTALE, once for a thread and node, when the mount shows
        another commit by now. The kernel then looks the path up again. Who comes a second time has not come from the
        root, and gets the old commit's file.
        """
        openings = self._openings
        if openings is None:
            return 0
        _, _, unique, _, _, _, thread, _, _ = IN_HEADER.unpack_from(message)
        handles: list[int | None] = []
        if not self._generations.admit(node, lambda: handles.append(openings.opened(unique))):
            if not self._came_back(thread, node):
                raise RefusedError(errno.ESTALE)
            handles.append(openings.opened(unique))
        if handles[0] is None:
            raise RefusedError(errno.ENFILE)
        return handles[0]

    def release(self, handle: int) -> None:
        """A file was closed."""
        if self._openings is not None:
            self._openings.closed(handle)

    def _came_back(self, thread: int, node: int) -> bool:
        with self._lock:
            if self._sent_back.pop((thread, node)):
                return True
            self._sent_back.put((thread, node), True)
            return False
