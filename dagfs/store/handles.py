"""Open files: a bounded number is kept open between reads, and what is in use is pinned."""

from __future__ import annotations

import os
import threading
import time
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable

from dagfs import system
from dagfs.model import ContentId
from dagfs.store.layout import Stamp, stamp

BLOCK = 256 << 10
"""Bytes of a block of a large file: what is fetched, checked and known to be there as one."""

KNOWN_MAX = 16_384
"""Files remembered as good, and names of files: 4 MB, and no look into the index for any of them."""

ABSENT_SECONDS = 1.0
"""How long a file that was not there is taken to be absent still. A cold file is looked for six times between its guess
and its first byte, each a failing system call or two looks into the index; what another process brings within this
time is fetched once more."""

KEPT_OPEN = 128
"""Idle descriptors; opening costs three system calls and a look into the index."""

STEP = 2 << 20
"""Bytes of a file that are let go of at once: the kernel keeps the large folios that a smaller span covers in part."""

LATER = 256 << 10
"""Bytes of a file that is let go of when its descriptor is closed, at most 32 MiB later. At once, its pages would still
lie in another processor's queue, and the kernel would call all processors to empty theirs: 0.2 ms for each file."""


class Checker:
    """Compares blocks with their CRC-32 at their first use. Bytes written without fsync may be zeros after a crash."""

    def __init__(self, checksums: array[int]) -> None:
        self._checksums = checksums
        self._good = bytearray(len(checksums))  # a block's flag is set only after its check; races check twice

    def trust(self, block: int) -> None:
        self._good[block] = 1

    def damaged(self, fd: int, size: int, offset: int, length: int) -> list[int]:
        """Give the damaged blocks of a span of a file of `size` bytes."""
        found = []
        for block in range(offset // BLOCK, min(-(-(offset + length) // BLOCK), len(self._good))):
            if self._good[block]:
                continue
            if zlib.crc32(system.pread(fd, min(BLOCK, size - block * BLOCK), block * BLOCK)) == self._checksums[block]:
                self._good[block] = 1
            else:
                found.append(block)
        return found


class MemoryFile:
    """A whole file that is not on disk yet."""

    descriptor = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass


class Handle:
    """An open whole file, shared by its readers. `users` and `kept` are guarded by the lock of `Handles`.

    `settled`: its bytes have been on the disk for long, so its pages may be dropped. To drop those that are still to be
    written would start to write them, in the thread of whoever reads.
    """

    def __init__(self, fd: int, seen: Stamp, md5: str, *, settled: bool, lent: bool = False) -> None:
        self.fd = fd
        self.seen = seen
        self.size = seen.size
        self.md5 = md5
        self.settled = settled
        self.lent = lent  # of DVC's cache: not to be removed
        self.checker: Checker | None = None
        self.read = False  # some of its pages may be in memory for nothing
        self.users = 0
        self.kept = False

    def changed(self) -> bool:
        """Say whether somebody has written into the file since it was opened, or it cannot be read any more."""
        try:
            return stamp(self.fd) != self.seen
        except OSError:  # ESTALE: it was removed elsewhere, on a network's disk
            return True


class DiskFile:
    """One reader's pin on a handle."""

    def __init__(self, handle: Handle, release: Callable[[Handle], None], damaged: Callable[[str], None]) -> None:
        self._handle: Handle | None = handle
        self._release = release
        self._damaged = damaged
        self.size = handle.size

    @property
    def descriptor(self) -> int | None:
        handle = self._handle
        return handle.fd if handle is not None and handle.checker is None else None

    def read(self, offset: int, size: int) -> bytes:
        handle = self._handle
        if handle is None:
            raise OSError("the file is closed")
        size = max(0, min(size, handle.size - offset))
        try:
            data = self._checked(handle, offset, size)
        except OSError:  # a bad sector as well: who comes next would fetch it again, each time
            self._damaged(handle.md5)
            raise
        handle.read = True
        if handle.size > LATER:
            _let_go(handle, offset, offset + size)
        return data

    @staticmethod
    def _checked(handle: Handle, offset: int, size: int) -> bytes:
        if handle.checker is not None and handle.checker.damaged(handle.fd, handle.size, offset, size):
            raise OSError("a block of a stored file is damaged")
        data = system.pread(handle.fd, size, offset)
        if len(data) != size:
            raise OSError("a stored file is shorter than it was")
        return data

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._release(handle)


class Handles:
    """The open whole files by the names they were asked for, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[ContentId, Handle] = OrderedDict()  # used last comes last
        self._users: dict[str, int] = {}  # by MD5; no entry is zero
        self._good: dict[str, Stamp] = {}  # by MD5, of files seen to be good since the machine started
        self._md5s: dict[ContentId, str] = {}  # what a name means never changes
        self.arrivals = 0  # how often files came: a look that one has overtaken says nothing
        self._absent: dict[ContentId, float] = {}  # when a name was looked for in vain, on the monotonic clock

    def get(self, name: ContentId) -> Handle | None:
        """Give the handle of that name, with one more user."""
        with self._lock:
            handle = self._open.get(name)
            if handle is not None:
                self._open.move_to_end(name)
                self._pin(handle)
            return handle

    def add(self, name: ContentId, handle: Handle) -> None:
        """Keep a new handle, with its first user."""
        with self._lock:
            self._pin(handle)
            previous = self._open.pop(name, None)
            self._open[name] = handle
            handle.kept = True
            dropped = [previous] if previous is not None else []
            while len(self._open) > KEPT_OPEN:
                dropped.append(self._open.popitem(last=False)[1])
            unused = self._drop(dropped)
        _close(unused)

    def note(self, name: ContentId, md5: str, seen: Stamp) -> None:
        """Remember what a name means, and that the file is good."""
        with self._lock:
            self.arrivals += 1
            self._absent.pop(name, None)
            for known in (self._good, self._md5s):
                if len(known) >= KNOWN_MAX:
                    known.clear()
            self._good[md5] = seen
            self._md5s[name] = md5

    def note_name(self, name: ContentId, md5: str) -> None:
        """Remember what a name means; whether the file is good is for who opens it."""
        with self._lock:
            self.arrivals += 1
            self._absent.pop(name, None)
            if len(self._md5s) >= KNOWN_MAX:
                self._md5s.clear()
            self._md5s[name] = md5

    def is_good(self, md5: str, seen: Stamp) -> bool:
        with self._lock:
            return self._good.get(md5) == seen

    def size_of(self, name: ContentId) -> int | None:
        """Give the bytes of a file seen to be good; they are its content's, wherever that is now."""
        with self._lock:
            seen = self._good.get(name.digest if name.scheme == "md5" else self._md5s.get(name, ""))
            return seen.size if seen is not None else None

    def absent(self, name: ContentId) -> bool:
        """Say whether a name was looked for in vain just now."""
        with self._lock:
            looked = self._absent.get(name)
        return looked is not None and time.monotonic() - looked < ABSENT_SECONDS

    def note_absent(self, name: ContentId, arrivals: int) -> None:
        """Remember that a look was in vain, unless files have come since `arrivals` was read, before the look."""
        with self._lock:
            if arrivals != self.arrivals:
                return
            if len(self._absent) >= KNOWN_MAX:
                self._absent.clear()
            self._absent[name] = time.monotonic()

    def note_coming(self, names: Iterable[ContentId]) -> None:
        """A file of these names is there from now on."""
        with self._lock:
            self.arrivals += 1
            for name in names:
                self._absent.pop(name, None)

    def md5_of(self, name: ContentId) -> str | None:
        with self._lock:
            return self._md5s.get(name)

    def release(self, handle: Handle) -> None:
        with self._lock:
            handle.users -= 1
            self._users[handle.md5] -= 1
            if not self._users[handle.md5]:
                del self._users[handle.md5]
            unused = [] if handle.kept or handle.users else [handle]
        _close(unused)

    def forget(self, md5: str | None = None) -> None:
        """Drop the handles of a file, or all; its users keep theirs."""
        with self._lock:
            if md5 is None:
                self._good.clear()
            else:
                self._good.pop(md5, None)
            names = [name for name, handle in self._open.items() if md5 is None or handle.md5 == md5]
            unused = self._drop([self._open.pop(name) for name in names])
        _close(unused)

    def in_use(self) -> set[str]:
        with self._lock:
            return set(self._users)

    def _pin(self, handle: Handle) -> None:
        handle.users += 1
        self._users[handle.md5] = self._users.get(handle.md5, 0) + 1

    def _drop(self, handles: list[Handle]) -> list[Handle]:
        """Stop to keep handles, with the lock held; give those to be closed."""
        for handle in handles:
            handle.kept = False
        return [handle for handle in handles if not handle.users]


def _let_go(handle: Handle, start: int, end: int) -> None:
    """Drop the pages behind a read from the page cache: the mount's own pages hold the same bytes from now on."""
    whole_step = end == handle.size or end // STEP > start // STEP
    if handle.settled and whole_step and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle.fd, start // STEP * STEP, 0 if end == handle.size else STEP, os.POSIX_FADV_DONTNEED)


def _close(handles: list[Handle]) -> None:
    for handle in handles:
        if handle.read and handle.size <= LATER:
            _let_go(handle, 0, handle.size)
        os.close(handle.fd)
