"""Which file leaves the store: scan-resistant, without a write per hit, and without knowing any disk."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

Candidate = tuple[str, int]
"""A stored file: MD5 in hex, size in bytes."""

_TICKS_PER_LIMIT = 64
"""Traffic is counted in 64ths of the limit: fine enough for the thresholds below, and 16 bits last 1024 limits."""

_GUEST_SHARE = 1 / 16
"""Share of the limit that newcomers to a full store pass through. Uses of one file closer together than this are one
use: a program reads a header, then the rest."""

_IDLE_TICKS = 4 * _TICKS_PER_LIMIT
"""A file unused for 4 limits of traffic may go, or for twice the distance at which missed files come back: in a
shuffled epoch two uses of a file are at most two epochs apart."""

_IDLE_TICKS_MAX = 64 * _TICKS_PER_LIMIT
"""So that an old working set is gone after a bounded traffic, however far the new one's uses are apart."""

_DEAD_TICKS = 5 * _TICKS_PER_LIMIT // 4
"""The residents are dead when for 1.25 limits of traffic they were hardly used, and what was missed instead is new or
would fit. In a cyclic epoch of twice the limit, one limit of misses comes in a row."""

_DEAD_SHARE = 0.05
_FAR_SHARE = 0.5
_WINDOWS = 5
_SLOTS = 1 << 21
"""Last uses, also of files that left, are kept in 4 MiB whatever their number; two files in one slot make each other
look younger."""

_AVERAGED = 256
"""Misses over which the distance of uses is averaged."""

_STEPS = 8
"""Residents looked at for each file that has to leave; bounds the work while none is idle."""


class _Window(NamedTuple):
    """A quarter of the limit of traffic, in bytes: all, hits on residents, misses of what would not have fitted."""

    traffic: int
    hits: int
    far: int


class Residents:
    """Keeps a fixed part of a data set that is larger than the store, where LRU would keep nothing of use.

    New files of a full store are guests: first in, first out. The others, the residents, leave only when they are
    idle, or when the working set has changed. Not thread-safe: the store calls it under its lock.
    """

    def __init__(self, limit: int, walk: Callable[[], Iterator[Candidate]]) -> None:
        """`walk` goes over the stored files, in any fixed order."""
        self._unit = max(1, limit // _TICKS_PER_LIMIT)
        self._share = int(limit * _GUEST_SHARE)
        self._walk = walk
        self._hand: Iterator[Candidate] = iter(())
        self._used = array("H", bytes(2 * _SLOTS))
        self._guests: OrderedDict[str, int] = OrderedDict()
        self._guest_bytes = 0
        # Starts at one limit: files of an earlier run are neither just used nor idle.
        self._traffic = self._unit * _TICKS_PER_LIMIT
        self._reuse = 0.0
        self._full = False
        self._window = _Window(0, 0, 0)
        self._windows: deque[_Window] = deque(maxlen=_WINDOWS)

    def touch(self, digest: str, size: int) -> None:
        """A stored file is used."""
        idle = self._use(digest)
        if idle is not None and idle <= _TICKS_PER_LIMIT * _GUEST_SHARE:
            return
        self._advance(size, hit=size if digest not in self._guests else 0)

    def insert(self, digest: str, size: int) -> None:
        """A file is stored; it was not there before."""
        distance = self._use(digest)
        if distance is not None:
            self._reuse += (distance - self._reuse) / _AVERAGED
        self._guest_bytes += size - self._guests.pop(digest, 0)
        self._guests[digest] = size
        self._advance(size, far=size if distance is not None and distance > _DEAD_TICKS else 0)

    def forget(self, digest: str) -> None:
        """A file is gone."""
        self._guest_bytes -= self._guests.pop(digest, 0)

    def settle(self) -> None:
        """The store is within its limit: the guests beyond their share become residents."""
        while self._guest_bytes > self._share and len(self._guests) > 1:
            self._guest_bytes -= self._guests.popitem(last=False)[1]

    def victim(self, kept: Set[str], coming: int) -> Candidate | None:
        """Choose the file to leave for `coming` bytes, none of `kept`; None when there is no other."""
        self._full = True
        found = self._resident(kept, self._threshold(), _STEPS)
        if found is None and self._guest_bytes + coming > self._share:
            found = self._guest(kept)
        if found is None:
            found = self._resident(kept, 0, None)
        return found or self._guest(kept)

    @property
    def _tick(self) -> int:
        return self._traffic // self._unit

    def _use(self, digest: str) -> int | None:
        """Note a use, and give the ticks since the one before."""
        slot = int(digest[:8], 16) % _SLOTS
        before, self._used[slot] = self._used[slot], self._tick & 0xFFFF
        return (self._tick - before) & 0xFFFF if before else None

    def _idle(self, digest: str) -> int:
        return (self._tick - self._used[int(digest[:8], 16) % _SLOTS]) & 0xFFFF

    def _advance(self, size: int, hit: int = 0, far: int = 0) -> None:
        self._traffic += size
        if not self._full:
            return
        window = self._window
        self._window = window = _Window(window.traffic + size, window.hits + hit, window.far + far)
        if window.traffic >= self._unit * _TICKS_PER_LIMIT // 4:
            self._windows.append(window)
            self._window = _Window(0, 0, 0)

    def _threshold(self) -> float:
        """Give the ticks without use after which a resident may leave."""
        if len(self._windows) == _WINDOWS:
            traffic, hits, far = map(sum, zip(*self._windows, strict=True))
            if hits < _DEAD_SHARE * traffic and far < _FAR_SHARE * traffic:
                return _DEAD_TICKS
        return min(max(_IDLE_TICKS, 2 * self._reuse), _IDLE_TICKS_MAX)

    def _resident(self, kept: Set[str], idle_ticks: float, steps: int | None) -> Candidate | None:
        rounds = 0
        while rounds < 2 and (steps is None or steps > 0):
            candidate = next(self._hand, None)
            if candidate is None:
                self._hand = self._walk()
                rounds += 1
                continue
            if steps is not None:
                steps -= 1
            digest = candidate[0]
            if digest in self._guests or digest in kept:
                continue
            if self._idle(digest) >= idle_ticks:
                return candidate
        return None

    def _guest(self, kept: Set[str]) -> Candidate | None:
        """Oldest first. The newest stays: somebody is about to read it."""
        newest = next(reversed(self._guests), None)
        for digest, size in self._guests.items():
            if digest not in kept and digest != newest:
                return digest, size
        return None
