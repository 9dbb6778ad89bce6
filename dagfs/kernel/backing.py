"""Files that the kernel reads from the disk by itself (passthrough): large ones that are whole in the cache."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
from collections import Counter
from dataclasses import dataclass

from dagfs.kernel.protocol import FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH, OPEN_OUT
from dagfs.memory import shared_memory
from dagfs.store.seam import StoredFile

log = logging.getLogger(__name__)

OPENED = OPEN_OUT.pack(0, FOPEN_KEEP_CACHE, 0)

_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, uint32_t)
_MAP = struct.Struct("=iIQ")  # descriptor, flags, padding
_ROW = struct.Struct("=QQ")  # node, backing id; node 0 is a free row

ROWS = 4096
"""Files that can be open past the daemon at a time; others are read through it."""


class Table:
    """Which node is backed by which id, in memory that a worker's successors share. One worker at a time uses it.

    `fd`: that memory, as another program of the same mount has made it; without, it is made.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd, self._memory = shared_memory("dagfs-backings", ROWS * _ROW.size, fd)

    def rows(self) -> list[tuple[int, int]]:
        """Give (node, backing id) of each row; node 0 is a free one."""
        return list(_ROW.iter_unpack(self._memory[:]))

    def put(self, row: int, node: int, backing: int) -> None:
        _ROW.pack_into(self._memory, row * _ROW.size, node, backing)


@dataclass(slots=True)
class _Backing:
    """`file` keeps the bytes from being evicted; None for what an earlier worker has opened."""

    number: int
    row: int
    file: StoredFile | None
    users: int = 0


class Backings:
    """Answers OPEN and hears of RELEASE. Thread-safe; `_lock` is a leaf but for the kernel's own calls.

    The kernel answers EIO to who opens a file past the daemon while others have it open through the daemon, or the
    other way round. So the first opening decides for all until the last is closed. A worker that took over does not
    know what is open, so it opens no more files past the daemon; those that are stay so until the mount ends.
    """

    def __init__(self, fd: int, table: Table, *, takes_over: bool) -> None:
        self._fd = fd
        self._table = table
        self._lock = threading.Lock()  # guards everything below
        rows = table.rows()
        self._backed = {node: _Backing(number, row, None) for row, (node, number) in enumerate(rows) if node}
        self._cached: Counter[int] = Counter()  # node -> openings through the daemon
        self._free = [row for row, (node, _) in enumerate(rows) if not node]
        self._only_these = takes_over  # no more files are opened past the daemon

    def open(self, node: int, file: StoredFile | None) -> bytes:
        """Answer an opening of a node; `file`: its bytes on disk if they may be used, which this call takes over."""
        with self._lock:
            backing = self._backed.get(node)
            if backing is None and file is not None and not self._cached[node] and not self._only_these:
                backing = self._back(node, file)
                file = None if backing is not None else file
            if backing is None:
                self._cached[node] += 1
            else:
                backing.users += 1
        if file is not None:
            file.close()
        if backing is None:
            return OPENED
        return OPEN_OUT.pack(0, FOPEN_PASSTHROUGH | FOPEN_NOFLUSH, backing.number)

    def release(self, node: int) -> None:
        """A file was closed."""
        with self._lock:
            backing = self._backed.get(node)
            if backing is None:
                self._cached[node] -= 1
                if self._cached[node] <= 0:
                    del self._cached[node]
                return
            backing.users -= 1
            if backing.users or backing.file is None:
                return
            del self._backed[node]
            self._table.put(backing.row, 0, 0)
            self._free.append(backing.row)
            fcntl.ioctl(self._fd, _BACKING_CLOSE, struct.pack("=I", backing.number))
        backing.file.close()

    def _back(self, node: int, file: StoredFile) -> _Backing | None:
        """With the lock held."""
        if file.descriptor is None or not self._free:
            return None
        try:
            number = fcntl.ioctl(self._fd, _BACKING_OPEN, bytearray(_MAP.pack(file.descriptor, 0, 0)))
        except OSError as error:
            log.warning("the kernel does not read from the cache's disk by itself: %s", os.strerror(error.errno or 0))
            self._only_these = True
            return None
        backing = self._backed[node] = _Backing(number, self._free.pop(), file)
        self._table.put(backing.row, node, backing.number)
        return backing
