"""Memory: how much this process may still take, on its machine or in its container, and what processes share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
GROUPS = (
    (_GROUP / "memory.max", _GROUP / "memory.current"),
    (_GROUP / "memory/memory.limit_in_bytes", _GROUP / "memory/memory.usage_in_bytes"),
)
"""Limit and use of the container's control group, version 2 and version 1."""

RECLAIMABLE = 0.5
"""Of a control group's use, what is page cache as a rule and makes room when it must."""


def available_bytes() -> int | None:
    """Give the bytes that can be had without others having to leave memory; None where nobody tells."""
    return min((*_machine(), *_groups()), default=None)


def _machine() -> Iterator[int]:
    try:
        text = MEMINFO.read_text()
        yield int(text.partition("MemAvailable:")[2].split()[0]) << 10
    except (OSError, ValueError, IndexError):
        return


def _groups() -> Iterator[int]:
    for limit, use in GROUPS:
        try:
            yield max(0, int(limit.read_text()) - int(int(use.read_text()) * (1 - RECLAIMABLE)))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue


def shared_memory(name: str, size: int, fd: int | None = None) -> tuple[int, mmap.mmap]:
    """Give a descriptor and its memory of `size` bytes, which whoever gets the descriptor shares; pages that are never
    touched take none. Without `fd` it is made, zero, and shows up as `name` in /proc. -1: only forks share it here."""
    if not hasattr(os, "memfd_create"):
        return -1, mmap.mmap(-1, size)
    if fd is None:
        fd = os.memfd_create(name)
        os.ftruncate(fd, size)
    return fd, mmap.mmap(fd, size)
