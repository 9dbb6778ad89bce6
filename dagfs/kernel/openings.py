"""Which files of a mount are open, and where an epoch begins: for mounts that openings cost a message anyway."""

from __future__ import annotations

import struct
import threading
import time

from dagfs.memory import shared_memory
from dagfs.tree.listing import SLOT_BITS
from dagfs.tree.numbers import Recent

ROWS = 1 << 18
"""Files that may be open at a time where openings are counted; more get ENFILE."""

LOOKS_TWICE = 32
"""Openings between two of one file that are still taken for one use of it: some workers, one or two files each."""

_ROW = struct.Struct("=Q")  # a handle; 0 is a free row
_RESENT = 1 << 63  # set in the number of a request that is sent again


class OpenTable:
    """The handles of open files, in memory that a worker's successors share. One worker at a time uses it.

    `fd`: that memory, as another program of the same mount has made it; without, it is made.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd, self._memory = shared_memory("dagfs-openings", (ROWS + 1) * _ROW.size, fd)

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


class Epoch:
    """The files opened since one was opened again: there a new epoch is taken to begin. One bit a file.

    A second opening within LOOKS_TWICE others is none: readers look at a file's first bytes to choose a decoder, and
    then open it once more (OpenCV). Used by one thread.
    """

    def __init__(self) -> None:
        self._seen: dict[int, bytearray] = {}  # number of the directory -> a bit for each row
        self._recent: Recent[int, bool] = Recent(LOOKS_TWICE)

    def begins_with(self, node: int) -> bool:
        """Note an opening; tell whether a new epoch begins with it."""
        again = self._note(node)
        if again and self._recent.pop(node):
            return False
        if again:
            self._seen.clear()
            self._note(node)
        self._recent.put(node, True)
        return again

    def _note(self, node: int) -> bool:
        row = node & ((1 << SLOT_BITS) - 1)
        bits = self._seen.setdefault(node >> SLOT_BITS, bytearray())
        if len(bits) <= row >> 3:
            bits.extend(bytes((row >> 3) + 1 - len(bits)))
        mask = 1 << (row & 7)
        again = bool(bits[row >> 3] & mask)
        bits[row >> 3] |= mask
        return again
