"""Compare what lies on the disk with its hashes: whole files, the checksums of large ones, the blocks of incomplete."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import zlib
from array import array
from collections.abc import Iterator

from dagfs import system
from dagfs.store.handles import BLOCK
from dagfs.store.layout import Layout, unlink_quietly
from dagfs.store.partial import RECORD
from dagfs.store.partials import unused


def hashes(path: str) -> tuple[str, array[int]]:
    """Give the MD5 of a file in hex, and the CRC-32 of each of its blocks. Raises OSError."""
    found, checksums = hashlib.md5(usedforsecurity=False), array("I")
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
            checksums.append(zlib.crc32(block))
    return found.hexdigest(), checksums


def drop_checksums(layout: Layout, md5: str, right: array[int]) -> str | None:
    """Remove the stored checksums of a file when they are not `right`; give their path then. Raises OSError."""
    path = layout.checksum(md5)
    try:
        with open(path, "rb") as file:
            same = file.read() == right.tobytes()
    except FileNotFoundError:
        return None
    if same:
        return None
    unlink_quietly(path)
    return path


def drop_damaged_partials(layout: Layout) -> Iterator[str]:
    """Remove the incomplete files with a damaged block or log, and give their paths. Those in use are left alone: their
    blocks are checked at their first use."""
    for name in sorted(os.listdir(layout.partial)):
        path = f"{layout.partial}/{name}"
        if not name.endswith(".log") and _is_damaged(path):
            yield path


def _is_damaged(path: str) -> bool:
    try:
        with unused(path) as fd:
            if _agrees(fd, path + ".log"):
                return False
            _remove(path)
            return True
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):  # gone, in use, or on a disk that cannot be written
            return False
    _remove(path)  # a link or a directory, which is in use by nobody
    return True


def _remove(path: str) -> None:
    for part in (path, path + ".log"):
        try:
            unlink_quietly(part)
        except IsADirectoryError:
            shutil.rmtree(part, ignore_errors=True)


def _agrees(fd: int, log: str) -> bool:
    """Tell whether each block that the log names is there as it was written; a record that was cut off is none."""
    try:
        with open(log, "rb") as file:
            records = file.read()
    except FileNotFoundError:
        return True
    size = os.fstat(fd).st_size
    blocks = RECORD.iter_unpack(records[: len(records) // RECORD.size * RECORD.size])
    return all(
        block * BLOCK < size and zlib.crc32(system.pread(fd, min(BLOCK, size - block * BLOCK), block * BLOCK)) == crc
        for block, crc in blocks
    )
