"""The blocks of a large file: a sparse file, and a log that says which blocks are there and what their CRC-32 is."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from dagfs import system
from dagfs.model import Content, Proof, Span
from dagfs.proofs import CHUNK, Prover
from dagfs.store.handles import BLOCK, Checker
from dagfs.store.layout import unlink_quietly

RECORD = struct.Struct("<II")
"""Of the log: number of the block, CRC-32 of its bytes. A torn or wrong record costs its block, nothing else."""

_COPIES = 8
"""Processes that may fetch one large file at a time, each in a file of its own: no blocks are shared while they come,
so that no process has to trust what another is writing."""

_REPORTED = 16
"""Blocks after which the store looks whether it is full: 4 MiB, by which it may overshoot its limit."""

STEP = 8 << 20
"""Bytes hashed at a time, in 15 ms: then it is another file's turn."""

VOLATILE_MAX = 32 << 20
"""Bytes kept of a large file that the disk cannot take."""


class Blocks(Protocol):
    """What `PartialFile` needs besides its users' count."""

    size: int
    finished: bool
    """True once the file is published: nobody comes back for its blocks."""

    @property
    def completing(self) -> Span | None: ...
    def missing(self, span: Span) -> Sequence[Span]: ...
    def read(self, offset: int, size: int) -> bytes | None: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def advance(self) -> bool: ...
    def publish(self) -> bool: ...
    def shut(self) -> None: ...


class _Edges:
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


class DiskBlocks:
    """Blocks on disk. Thread-safe; `_lock` is held over writes into the page cache, never over a read of the disk."""

    def __init__(
        self,
        content: Content,
        size: int,
        base: str,
        adopt: Callable[[str, Proof, bytes], None],
        grown: Callable[[], None],
    ) -> None:
        """`base`: path without number; `adopt(path, proof, checksums)` moves a whole file away; `grown` is called for
        every 4 MiB written. Raises OSError."""
        self.size = size
        self._content = content if content.size is not None else content._replace(size=size)
        self._adopt = adopt
        self._grown = grown
        self._lock = threading.Lock()  # guards everything below
        self._count = -(-size // BLOCK)
        self._there = bytearray(self._count)
        self._checksums = array("I", bytes(4 * self._count))
        self._edges = _Edges(size)
        self._fresh = 0  # blocks written and not reported as growth
        self._prover = Prover(self._content)  # used by one thread at a time, outside of the lock
        self._hashed = 0  # bytes of the beginning that it has seen, or is seeing
        self._last: Span | None = Span(0, size)  # None once a block was lost: what comes last may have been given
        self.finished = False
        self._fd, self._log, self._path = self._claim(base)
        try:
            self._recover()
        except OSError:
            self.shut()
            raise
        self._checker = Checker(self._checksums)
        self._left = self._count - sum(self._there)

    @property
    def completing(self) -> Span | None:
        return None if self._left else self._last or Span(0, self.size)

    def missing(self, span: Span) -> list[Span]:
        with self._lock:
            return _missing(self._there, span, self.size)

    def read(self, offset: int, size: int) -> bytes | None:
        size = max(0, min(size, self.size - offset))
        with self._lock:
            if _missing(self._there, Span(offset, offset + size), self.size):
                return None
        damaged = self._checker.damaged(self._fd, self.size, offset, size)
        if damaged:
            self._drop(damaged)
            return None
        return system.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        with self._lock:
            if self.finished:
                return
            for block, start, piece in _split(offset, data):
                if not self._there[block]:
                    self._write(block, start, piece)
            grown, self._fresh = self._fresh >= _REPORTED, self._fresh % _REPORTED
        if grown:
            self._grown()

    def advance(self) -> bool:
        with self._lock:
            prover, start = self._prover, self._hashed
            gap = self._there.find(0, -(-start // BLOCK))
            end = min(start + STEP, self.size if gap < 0 else gap * BLOCK)
            if self.finished or end <= start:
                return False
            self._hashed = end
        try:
            damaged = self._checker.damaged(self._fd, self.size, start, end - start)
            if not damaged:
                for chunk in self._chunks(start, end):
                    prover.update(chunk)
        except BaseException:
            with self._lock:
                self._hash_anew()
            raise
        if damaged:  # on this disk, which says nothing about the other blocks
            with self._lock:
                if self._prover is prover:
                    self._hashed = start
            self._drop(damaged)
        return True

    def publish(self) -> bool:
        while self.advance():
            pass
        with self._lock:
            if self.finished:
                return True
            if self._left or self._hashed < self.size:
                return False
            prover = self._prover
        try:
            proof = prover.proof(self._chunks)
        except Exception:
            self._forget()
            raise
        self._adopt(self._path, proof, self._checksums.tobytes())
        with self._lock:
            self.finished = True
        os.fchmod(self._fd, 0o444)  # not before: what a killed process leaves must open for writing again
        unlink_quietly(self._path + ".log")
        return True

    def shut(self) -> None:
        """Close; a piece that comes too late then fails, and does not go into whatever file has the number next."""
        with self._lock:
            fds, self._fd, self._log = (self._fd, self._log), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _claim(self, base: str) -> tuple[int, int, str]:
        """Open the first copy that no other process holds."""
        flags = os.O_RDWR | os.O_CREAT | system.OURS
        for number in range(_COPIES):
            path = f"{base}.{number}"
            fd = os.open(path, flags, 0o600)
            try:
                system.lock(fd)
                # Between the two calls another process may have published or evicted it.
                if os.fstat(fd).st_ino == os.stat(path).st_ino:
                    return fd, os.open(path + ".log", flags | os.O_APPEND, 0o600), path
            except OSError:
                pass
            os.close(fd)
        raise BlockingIOError(f"{base}: too many processes fetch one file")

    def _recover(self) -> None:
        """Believe the log of an earlier run; each block is checked at its first use."""
        if os.fstat(self._fd).st_size != self.size:
            self._reset()
        log = system.pread(self._log, RECORD.size * (self._count + 1) * 2, 0)
        for block, crc in RECORD.iter_unpack(log[: len(log) - len(log) % RECORD.size]):
            if block < self._count:
                self._there[block] = 1
                self._checksums[block] = crc

    def _reset(self) -> None:
        os.ftruncate(self._log, 0)
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self.size)

    def _write(self, block: int, start: int, piece: bytes) -> None:
        at, fresh, crc = self._edges.join(block, start, piece)
        try:
            taken = os.pwrite(self._fd, fresh, at) if fresh else 0
        except OSError:
            self._edges.forget(block)  # else who brings the rest would make a block with a hole
            raise
        if taken != len(fresh):
            self._edges.forget(block)
            raise OSError("the disk took a part of a block only")
        if crc is not None:
            self._checksums[block] = crc
            os.write(self._log, RECORD.pack(block, crc))
            self._there[block] = 1
            self._checker.trust(block)
            if self._left == 1 and self._last:
                self._last = Span(block * BLOCK, at + len(fresh))
            self._left -= 1
            self._fresh += 1

    def _drop(self, damaged: list[int]) -> None:
        with self._lock:
            for block in damaged:
                self._left += self._there[block]
                self._there[block] = 0
            self._last = None
            if min(damaged) * BLOCK < self._hashed:  # other bytes may come in place of those
                self._hash_anew()

    def _forget(self) -> None:
        with self._lock:
            self._there = bytearray(self._count)
            self._left = self._count
            self._edges.clear()
            self._checker = Checker(self._checksums)
            self._hash_anew()
            self._reset()

    def _hash_anew(self) -> None:
        """With the lock held."""
        self._prover = Prover(self._content)
        self._hashed = 0

    def _chunks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        end = self.size if end is None else end
        for offset in range(start, end, CHUNK):
            chunk = system.pread(self._fd, min(CHUNK, end - offset), offset)
            if len(chunk) != min(CHUNK, end - offset):
                raise OSError("a file of blocks is shorter than it was")
            yield chunk


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
            return _missing(self._blocks, span, self.size)

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
            for block, start, piece in _split(offset, data):
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

    def shut(self) -> None:
        pass


class SharedPartial:
    """One user's pin on the blocks of a file. When the disk fails, the rest of its reads goes through memory."""

    def __init__(self, blocks: Blocks, release: Callable[[], None]) -> None:
        self._blocks = blocks
        self._release: Callable[[], None] | None = release
        self.size = blocks.size

    @property
    def completing(self) -> Span | None:
        return self._blocks.completing

    def missing(self, span: Span) -> Sequence[Span]:
        return self._blocks.missing(span)

    def read(self, offset: int, size: int) -> bytes | None:
        try:
            return self._blocks.read(offset, size)
        except OSError:
            self._blocks = VolatileBlocks(self.size)
            return None

    def write(self, offset: int, data: bytes) -> None:
        try:
            self._blocks.write(offset, data)
        except OSError:
            self._blocks = VolatileBlocks(self.size)
            self._blocks.write(offset, data)

    def advance(self) -> bool:
        return self._blocks.advance()

    def publish(self) -> bool:
        return self._blocks.publish()

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


def _split(offset: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut bytes at block limits: block, offset in the file, bytes."""
    end = offset + len(data)
    at = offset
    while at < end:
        block = at // BLOCK
        upto = min(end, (block + 1) * BLOCK)
        yield block, at, data if upto - at == len(data) else data[at - offset : upto - offset]
        at = upto


def _missing(there: bytearray | OrderedDict[int, bytes], span: Span, size: int) -> list[Span]:
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
