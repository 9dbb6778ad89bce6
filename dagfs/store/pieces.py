"""Pieces of a large file, cut at block limits and joined to blocks; what of a span is missing."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator

from dagfs.model import Span
from dagfs.store.handles import BLOCK


class Edges:
    """Joins the pieces of a block that come in order; what leaves a gap is not used."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._edges: dict[int, tuple[int, int]] = {}  # block -> end of what has come, its CRC-32

    def join(self, block: int, offset: int, piece: bytes) -> tuple[int, bytes, int | None]:
        """Give where to write which part of a piece, and the block's CRC-32 when it is complete with it."""
        end, crc = self._edges.get(block, (block * BLOCK, 0))
        fresh = piece[end - offset :] if offset <= end else b""
        crc = zlib.crc32(fresh, crc)
        complete = end + len(fresh) == min((block + 1) * BLOCK, self._size)
        if complete:
            self._edges.pop(block, None)
        elif fresh:
            self._edges[block] = (end + len(fresh), crc)
        return end, fresh, crc if complete else None

    def forget(self, block: int) -> None:
        """What has come of a block is lost: it must come from its beginning."""
        self._edges.pop(block, None)

    def clear(self) -> None:
        self._edges.clear()


def split(offset: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut bytes at block limits: block, offset in the file, bytes."""
    end = offset + len(data)
    at = offset
    while at < end:
        block = at // BLOCK
        upto = min(end, (block + 1) * BLOCK)
        yield block, at, data if upto - at == len(data) else data[at - offset : upto - offset]
        at = upto


def missing(there: bytearray | OrderedDict[int, bytes], span: Span, size: int) -> list[Span]:
    found: list[Span] = []
    if isinstance(there, bytearray) and 0 not in there:
        return found
    for block in range(span.start // BLOCK, -(-min(span.end, size) // BLOCK)):
        if there[block] if isinstance(there, bytearray) else block in there:
            continue
        start, end = block * BLOCK, min((block + 1) * BLOCK, size)
        if found and found[-1].end == start:
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return found
