"""The blocks of a large file that the disk cannot take."""

from __future__ import annotations

import threading
from collections import OrderedDict

from dagfs.model import Span
from dagfs.store.handles import BLOCK
from dagfs.store.pieces import missing, split

VOLATILE_MAX = 32 << 20
"""Bytes kept of a large file that the disk cannot take."""


class VolatileBlocks:
    """The last blocks of a file that cannot be kept on disk, thread-safe. It is never whole, hence never proved."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.finished = False
        self._lock = threading.Lock()  # guards everything below
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, bytearray] = {}

    @property
    def completing(self) -> Span | None:
        return None

    def missing(self, span: Span) -> list[Span]:
        with self._lock:
            return missing(self._blocks, span, self.size)

    def read(self, offset: int, size: int) -> bytes | None:
        size = max(0, min(size, self.size - offset))
        blocks = range(offset // BLOCK, -(-(offset + size) // BLOCK))
        with self._lock:
            if any(block not in self._blocks for block in blocks):
                return None
            data = b"".join(self._blocks[block] for block in blocks)
        skip = offset % BLOCK
        return data[skip : skip + size]

    def write(self, offset: int, data: bytes) -> None:
        with self._lock:
            for block, start, piece in split(offset, data):
                coming = self._coming.setdefault(block, bytearray())
                end = block * BLOCK + len(coming)
                if start <= end:
                    coming += piece[end - start :]
                if len(coming) == min(BLOCK, self.size - block * BLOCK):
                    self._blocks[block] = bytes(self._coming.pop(block))
                    self._blocks.move_to_end(block)
            while len(self._blocks) > VOLATILE_MAX // BLOCK:
                self._blocks.popitem(last=False)
            while len(self._coming) > VOLATILE_MAX // BLOCK:
                del self._coming[next(iter(self._coming))]

    def advance(self) -> bool:
        return False

    def publish(self) -> bool:
        return False

    def forget(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._coming.clear()

    def shut(self) -> None:
        pass
