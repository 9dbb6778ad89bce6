"""The tree that the mount tests look at."""

from __future__ import annotations

import os

from dagfs.vfs.memory import MemoryFs

BIG = 6 << 30


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which every aligned 8 differ."""
    return b"".join((seed << 32 | position).to_bytes(8, "little") for position in range(-(-size // 8)))[:size]


ODD = [" space", "#?%+&", "qu'o\"te", "new\nline", "\U0001f43f", "\u00e9", "e\u0301", "\udcff\udcfe", "n" * 255]

FILES = {
    "small.txt": b"hello\n",
    "empty": b"",
    "images/a.bin": pattern(100_000, 1),
    "images/b.bin": pattern(300_001, 2),
    "images/deep/er/c.bin": pattern(5_000_000, 3),
    **{f"odd/{name}": os.fsencode(name) for name in ODD},
}
LINKS = {"link": "small.txt", "images/up": "../small.txt", "dangling": "nowhere"}


def tree() -> MemoryFs:
    fs = MemoryFs(FILES | {"huge": b""}, LINKS, ["hollow"])
    fs.sparse["huge"] = BIG
    return fs
