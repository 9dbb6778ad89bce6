"""What not every operating system has: for reading without a mount, which Windows and macOS do, too."""

from __future__ import annotations

import os
import select
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # asked by `HAS_LOCKS`

OURS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags of os.open for a file of ours: no link in its place, not for children, no translation of line ends."""

OTHERS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Flags for what others have put there: it may be a link, and a pipe is not waited for."""

POLLIN = getattr(select, "POLLIN", 1)
POLLPRI = getattr(select, "POLLPRI", 2)
POLLOUT = getattr(select, "POLLOUT", 4)
POLLERR = getattr(select, "POLLERR", 8)
POLLHUP = getattr(select, "POLLHUP", 16)
POLLNVAL = getattr(select, "POLLNVAL", 32)

HAS_LOCKS = fcntl is not None
_HAS_PREAD = hasattr(os, "pread")
_seeking = threading.Lock()  # where a descriptor has one position for all


def user() -> int | None:
    """Give the number of this process's user; None where files have no numbers of users, nor bits for others."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def lock(fd: int) -> None:
    """Lock a file, until its last descriptor is closed. Raises BlockingIOError when another process has it."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def pread(fd: int, size: int, offset: int) -> bytes:
    """Read at a place. Raises OSError."""
    if _HAS_PREAD:
        return os.pread(fd, size, offset)
    with _seeking:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)


def disk(path: Path) -> tuple[int, int]:
    """Give the free bytes of the disk that a path lies on, as far as its user may have them, and all its bytes."""
    if hasattr(os, "statvfs"):
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def used_bytes(status: os.stat_result) -> int:
    """Give the bytes of disk that a file takes; those of its length where holes are not told."""
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def is_process(pid: int) -> bool | None:
    """Tell whether a process lives; None where that cannot be asked: os.kill would end it."""
    if sys.platform == "win32":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def new_poll() -> Any:
    """Give what watches descriptors: poll(2), or the same with select(2), which Windows has for sockets."""
    return select.poll() if hasattr(select, "poll") else SelectPoll()


class SelectPoll:
    """The part of select.poll that is used here."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fd: int, events: int) -> None:
        self._wanted[fd] = events

    def unregister(self, fd: int) -> None:
        del self._wanted[fd]

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        reading = [fd for fd, events in self._wanted.items() if events & POLLIN]
        writing = [fd for fd, events in self._wanted.items() if events & POLLOUT]
        readable, writable, broken = select.select(reading, writing, list(self._wanted), milliseconds / 1000)
        found: dict[int, int] = {}
        for fds, event in ((readable, POLLIN), (writable, POLLOUT), (broken, POLLERR)):
            for fd in fds:
                found[fd] = found.get(fd, 0) | event
        return list(found.items())


class Waker:
    """Ends the wait of a poll that watches `fd`. A pair of sockets: Windows can watch nothing else."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.fd = self._ours.fileno()

    def wake(self) -> None:
        self._theirs.send(b"\0")

    def drain(self) -> None:
        self._ours.recv(64)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
