"""Directory streams: slices of a frozen listing in the layouts that READDIR and READDIRPLUS return.

An entry's offset is its position: 0 is ".", 1 is "..", row n of the listing is n + 2. The offset that an entry
carries is the one to go on with, so a seek is exact however a program comes back.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable

from dagfs.kernel.protocol import DIRENT, NO_ENTRY, Owner, encode_entry
from dagfs.model import Kind
from dagfs.vfs.seam import Directory

CHUNK_ROWS = 1024
"""Entries encoded at once: 2 ms of work, where the whole of a directory of 540,000 would stop the daemon for 0.5 s."""

CHUNKS_KEPT = 64
"""About 50 KB each. The kernel keeps what it has read, so this only serves several readers on a first pass."""

PLUS_ROWS = 64
"""Rows fetched at once for READDIRPLUS, where an entry takes about 200 bytes of the 4 to 32 KiB that are asked for."""

PADDING = tuple(bytes(-length % 8) for length in range(8))
DOTS = 2

Row = tuple[bytes, int, Kind]
Chunk = tuple[bytes, "array[int]"]  # the encoded entries, and where each of them ends


class Streams:
    """Encodes directories, and keeps the chunks used last. Thread-safe."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, int], Chunk] = OrderedDict()  # by node and number of the chunk

    def plain(self, directory: Directory, offset: int, size: int) -> bytes:
        """Give the entries from `offset` on, in at most `size` bytes; nothing at the end."""
        if offset >= len(directory) + DOTS:
            return b""
        number, within = divmod(offset, CHUNK_ROWS)
        stream, ends = self._chunk(directory, number)
        start = ends[within - 1] if within else 0
        fitting = bisect_right(ends, start + size)
        return stream[start : ends[fitting - 1]] if fitting > within else b""

    def plus(self, directory: Directory, offset: int, size: int) -> bytes:
        """Give the entries from `offset` on with their attributes, as far as these are known."""
        pieces: list[bytes] = []
        room = size
        while rows := _rows(directory, offset, PLUS_ROWS):
            for row in rows:
                entry = _dirent(row, offset + 1)
                room -= len(NO_ENTRY) + len(entry)
                if room < 0:
                    return b"".join(pieces)
                pieces += (self._attributes(directory, offset), entry)
                offset += 1
        return b"".join(pieces)

    def _attributes(self, directory: Directory, offset: int) -> bytes:
        known = directory.attributes(offset - DOTS) if offset >= DOTS else None
        return NO_ENTRY if known is None else encode_entry(known, self._owner)

    def _chunk(self, directory: Directory, number: int) -> Chunk:
        key = (directory.node, number)
        with self._lock:
            if chunk := self._chunks.get(key):
                self._chunks.move_to_end(key)
                return chunk
        first = number * CHUNK_ROWS
        chunk = _encode(_rows(directory, first, CHUNK_ROWS), first)
        with self._lock:
            self._chunks[key] = chunk
            while len(self._chunks) > CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        return chunk


def _rows(directory: Directory, offset: int, count: int) -> list[Row]:
    dots: list[Row] = [
        (b".", directory.inode, Kind.DIRECTORY),
        (b"..", directory.parent_inode, Kind.DIRECTORY),
    ][offset : offset + count]
    return dots + list(directory.rows(max(offset - DOTS, 0), count - len(dots)))


def _encode(rows: Iterable[Row], first: int) -> Chunk:
    pieces: list[bytes] = []
    ends = array("I")
    end = 0
    for position, row in enumerate(rows, first):
        entry = _dirent(row, position + 1)
        end += len(entry)
        pieces.append(entry)
        ends.append(end)
    return b"".join(pieces), ends


def _dirent(row: Row, following: int) -> bytes:
    name, inode, kind = row
    return DIRENT.pack(inode, following, len(name), kind) + name + PADDING[len(name) % 8]
