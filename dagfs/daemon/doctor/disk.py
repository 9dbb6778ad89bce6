"""The cache's disk: whether it may be used, how much of it is free, what it is, how fast it keeps what it is told."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dagfs.config import MIN_FREE_FRACTION
from dagfs.daemon.doctor.finding import Finding, Level
from dagfs.kernel.mountinfo import holder

SCARCE_BYTES = 2 << 30
"""Less for the cache than that, and a data set of any size drives itself out of it."""

SLOW_SYNC_SECONDS = 0.1
SYNCS = 5
BLOCK = b"\0" * 4096

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "virtiofs"})
MEMORY = frozenset({"tmpfs", "ramfs"})

Sync = Callable[[int], None]


def cache(path: Path, sync: Sync = os.fsync) -> Iterator[Finding]:
    """Look at the directory of a hub's cache, or at where it would be made. Nothing is made that stays."""
    found = path if path.exists() else next(parent for parent in path.parents if parent.exists())
    refusal = _refusal(path) if path.exists() else None
    if refusal is not None:
        yield refusal
        return
    try:
        seconds = _sync_seconds(found, sync)
    except OSError as error:
        remedy = "`dagfs mount --cache-dir DIR`, or DAGFS_CACHE_DIR, names another place"
        yield Finding("cache", Level.PROBLEM, f"{found} cannot be written: {error.strerror}", remedy)
        return
    yield Finding("cache", Level.OK, f"{path}{'' if path.exists() else ', not made yet'}")
    yield _room(found)
    yield _kind(found)
    yield _speed(seconds)


def _refusal(path: Path) -> Finding | None:
    """Say what a mount would refuse: what others own, or could have filled."""
    status = path.stat()
    if not path.is_dir():
        return Finding("cache", Level.PROBLEM, f"{path} is no directory", f"move it away: `mv {path} {path}.old`")
    if status.st_uid != os.geteuid():
        text = f"{path} belongs to user {status.st_uid}"
        return Finding("cache", Level.PROBLEM, text, "choose another directory by --cache-dir")
    if status.st_mode & 0o022 and any(path.iterdir()):
        text = f"others can write into {path}, and may have done so"
        return Finding("cache", Level.PROBLEM, text, f"look at what it holds, then `chmod 700 {path}`")
    return None


def _sync_seconds(directory: Path, sync: Sync) -> float:
    """Give the median of some writes of 4 KiB that are on the disk when they return. Raises OSError."""
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNCS):
            started = time.perf_counter()
            file.write(BLOCK)
            file.flush()
            sync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _room(directory: Path) -> Finding:
    status = os.statvfs(directory)
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    left = free - int(total * MIN_FREE_FRACTION)
    text = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB are free, and {MIN_FREE_FRACTION:.0%} stay so"
    if left <= 0:
        return Finding("cache-space", Level.PROBLEM, f"{text}: nothing will be kept", "make room, or use --cache-dir")
    if left < SCARCE_BYTES:
        return Finding("cache-space", Level.WARNING, f"{text}: little will be kept", "make room, or use --cache-dir")
    return Finding("cache-space", Level.OK, text)


def _kind(directory: Path) -> Finding:
    held = holder(os.path.realpath(directory))
    kind = held.file_system if held else "unknown"
    if kind in REMOTE or (kind.startswith("fuse") and kind not in ("fuseblk", "fusectl")):
        text = f"the cache lies on {kind}: each cached read goes over a network"
        return Finding("cache-disk", Level.WARNING, text, "put it on a local disk by --cache-dir")
    if kind in MEMORY:
        text = f"the cache lies on {kind}: it takes memory, and ends with the machine"
        return Finding("cache-disk", Level.WARNING, text, "put it on a disk by --cache-dir")
    return Finding("cache-disk", Level.OK, kind)


def _speed(seconds: float) -> Finding:
    text = f"4 KiB are on the disk after {seconds * 1000:.1f} ms"
    if seconds > SLOW_SYNC_SECONDS:
        return Finding("cache-speed", Level.WARNING, text, "a faster disk, by --cache-dir")
    return Finding("cache-speed", Level.OK, text)
