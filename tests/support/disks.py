"""Small disks of their own, for tests that fill or break them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """Mount an empty disk of `size` bytes in memory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path], check=True, timeout=10)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)


def fill(disk: Path) -> None:
    """Leave not a byte of room on a disk, by a file `fill`."""
    with open(disk / "fill", "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


def remount(path: Path, how: str) -> None:
    """Make a disk read-only ("ro") or writable ("rw") under whoever uses it."""
    subprocess.run(["mount", "-o", f"remount,{how}", path], check=True, timeout=10)
