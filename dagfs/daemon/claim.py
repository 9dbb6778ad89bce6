"""One daemon at a time for a mount point: of two that start at once, one waits and finds the other's mount there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dagfs.errors import BadMountPoint

WAIT_SECONDS = 10.0
"""A daemon whose mount was taken away from outside ends within 5 s, on a busy machine a little later; then its place is
free."""

PAUSE_SECONDS = 0.05
DYING_SECONDS = 0.8  # from SIGKILL to the end of a daemon and its worker


@contextlib.contextmanager
def claim(lock: Path, check: Callable[[], object]) -> Iterator[None]:
    """Hold the lock file of a mount point; the lock ends with the last of the daemon's processes.

    `check` raises when waiting has no sense any more, and is called again once the lock is held. Raises BadMountPoint.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while (held := _lock(lock)) is None:
        check()
        if time.monotonic() > deadline:
            raise BadMountPoint("another dagfs is starting or ending at this mount point: wait for it")
        time.sleep(PAUSE_SECONDS)
    try:
        check()
        yield
    finally:
        with contextlib.suppress(OSError):  # its directory may have gone with the login
            lock.unlink(missing_ok=True)
        os.close(held)


def clear(lock: Path) -> None:
    """Remove the lock file that a killed daemon has left, unless another daemon holds it."""
    deadline = time.monotonic() + DYING_SECONDS
    while (held := _lock(lock)) is None and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    if held is not None:
        lock.unlink(missing_ok=True)
        os.close(held)


def _lock(path: Path) -> int | None:
    """Give a locked descriptor; None when somebody else holds the lock, or has just removed the file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    os.close(fd)
    return None
