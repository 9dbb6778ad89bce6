"""The blocks of a large file: a sparse file, and a log that says which blocks are there and what their CRC-32 is."""

from __future__ import annotations

import os
import struct
import threading
from array import array
from collections.abc import Callable, Iterator

from dagfs import system
from dagfs.model import Content, Proof, Span
from dagfs.proofs import CHUNK, Prover
from dagfs.store.handles import BLOCK, Checker
from dagfs.store.layout import unlink_quietly
from dagfs.store.pieces import Edges, missing, split

RECORD = struct.Struct("<II")
"""Of the log: number of the block, CRC-32 of its bytes. A torn or wrong record costs its block, nothing else."""

_COPIES = 8
"""Processes that may fetch one large file at a time, each in a file of its own: no blocks are shared while they come,
so that no process has to trust what another is writing."""

_REPORTED = 16
"""Blocks after which the store looks whether it is full: 4 MiB, by which it may overshoot its limit."""

STEP = 8 << 20
"""Bytes hashed at a time, in 15 ms: then it is another file's turn."""


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
        self._edges = Edges(size)
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
            return missing(self._there, span, self.size)

    def read(self, offset: int, size: int) -> bytes | None:
        size = max(0, min(size, self.size - offset))
        with self._lock:
            if missing(self._there, Span(offset, offset + size), self.size):
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
            for block, start, piece in split(offset, data):
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
            self.forget()
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

    def forget(self) -> None:
        with self._lock:
            if self.finished:
                return
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
