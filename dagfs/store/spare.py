"""Named bytes in memory that one worker of a mount after another shares: for what its disk does not take."""

from __future__ import annotations

import struct
import threading

from dagfs.memory import shared_memory

HALF = 32 << 20
"""Bytes of each half: the numbers of about 80,000 paths. Memory that is not used is not taken."""

_WORD = struct.Struct("=Q")
_ROW = struct.Struct("=II")  # bytes of the name, and of the value: never both 0, which is the end


class Spare:
    """Thread-safe; one worker at a time writes. A row is written before the eight bytes that make it count, and a half
    before the word that chooses it, so a worker killed anywhere leaves a memory that makes sense."""

    def __init__(self, fd: int | None = None, half: int = HALF) -> None:
        """`fd`: the memory, as another program of the mount has made it; -1: of this process alone. `half`: bytes, in
        eights."""
        self._size = half
        self.fd, self._memory = shared_memory("dagfs-spare", _WORD.size + 2 * half, fd)
        self._lock = threading.Lock()  # guards everything below
        self._places: dict[str, tuple[int, int]] = {}  # name -> where its value begins and ends
        self._half = 0  # the one that is used
        self._end = 0  # where the next row goes, as all places from the memory's beginning
        self.reload()

    def reload(self) -> None:
        """Take over what another worker has left."""
        with self._lock:
            self._places.clear()
            (self._half,) = _WORD.unpack_from(self._memory)
            at = self._start(self._half)
            while (row := _ROW.unpack_from(self._memory, at)) != (0, 0):
                value = at + _ROW.size + row[0]
                name = self._memory[at + _ROW.size : value].decode("utf-8", "surrogateescape")
                self._places[name] = value, value + row[1]
                at += _room(*row)
            self._end = at

    def get(self, name: str) -> bytes | None:
        with self._lock:
            place = self._places.get(name)
            return None if place is None else self._memory[slice(*place)]

    def set(self, name: str, value: bytes) -> bool:
        """Keep a value; False when there is no room."""
        with self._lock:
            if self._append(name, value):
                return True
            self._compact()
            return self._append(name, value)

    def items(self) -> list[tuple[str, bytes]]:
        with self._lock:
            return [(name, self._memory[slice(*place)]) for name, place in self._places.items()]

    def clear(self) -> None:
        with self._lock:
            self._begin(self._half)

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def _append(self, name: str, value: bytes) -> bool:
        head, at = name.encode("utf-8", "surrogateescape"), self._end
        end = at + _room(len(head), len(value))
        if end + _ROW.size > self._start(self._half) + self._size:
            return False
        begin = at + _ROW.size + len(head)
        self._memory[end : end + _ROW.size] = bytes(_ROW.size)  # the end, until another row comes
        self._memory[at + _ROW.size : begin + len(value)] = head + value
        self._memory[at : at + _ROW.size] = _ROW.pack(len(head), len(value))
        self._places[name] = begin, begin + len(value)
        self._end = end
        return True

    def _compact(self) -> None:
        """Write what is of use into the other half, and choose that."""
        kept = [(name, self._memory[slice(*place)]) for name, place in self._places.items()]
        self._begin(1 - self._half)
        for name, value in kept:
            self._append(name, value)
        self._memory[: _WORD.size] = _WORD.pack(self._half)

    def _begin(self, half: int) -> None:
        self._half = half
        self._places.clear()
        self._end = self._start(half)
        self._memory[self._end : self._end + _ROW.size] = bytes(_ROW.size)

    def _start(self, half: int) -> int:
        return _WORD.size + half * self._size


def _room(name: int, value: int) -> int:
    """Give the bytes of a row; rows begin where a word does."""
    return -(-(_ROW.size + name + value) // _WORD.size) * _WORD.size
