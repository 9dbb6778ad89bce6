"""Which requests wait for their answer, since when and for whom; and how long those that ended have waited.

What is answered at once is never seen here: only misses are, and each of them costs a round trip to the hub anyway.
"""

from __future__ import annotations

import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PID_AT = 32
"""Where the pid stands in `struct fuse_in_header`: of the thread that asks, in the mount's pid namespace."""

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds up to which a wait counts for a class of the histogram; a read gives up after about 120."""

SLOW_KEPT = 32
"""Paths whose longest wait is remembered."""

SLOW_SECONDS = 600.0
"""After which a long wait is forgotten: who looks wants to know what is slow now."""


class Waiter(NamedTuple):
    """A request without its answer; a tuple, as one is made for each miss. `started` on the monotonic clock; `name`:
    what a LOOKUP looks for, else empty."""

    pid: int
    op: int
    node: int
    started: float
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class Slow:
    """The longest wait lately for one answer about a node, or a name in it; `ended` on the monotonic clock."""

    node: int
    name: bytes
    seconds: float
    ended: float


class Waiting:
    """Thread-safe. Bounded by what the kernel has under way: each waiter stands for a request with a promise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiters: dict[int, Waiter] = {}  # by the request's unique number; each step on it is one of the dict's
        self._lock = threading.Lock()  # guards everything below; a leaf
        self._classes = [0] * (len(BOUNDS) + 1)  # waits that ended, by duration; the last: longer than all bounds
        self._seconds = 0.0  # that they took together
        self._slow: dict[tuple[int, bytes], Slow] = {}  # by node and name
        self._floor = -1.0  # no shorter wait is kept, before ...
        self._floor_until = 0.0  # ... one that is kept gets too old

    def begin(self, unique: int, op: int, node: int, message: bytes, name: bytes = b"") -> None:
        pid = int.from_bytes(message[PID_AT : PID_AT + 4], sys.byteorder)
        self._waiters[unique] = Waiter(pid, op, node, self._clock(), name)

    def end(self, unique: int) -> None:
        """The request was answered, however. Unknown numbers are let pass: a promise ends once."""
        waiter = self._waiters.pop(unique, None)
        if waiter is None:
            return
        now = self._clock()
        seconds = now - waiter.started
        with self._lock:
            self._classes[bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds
            if seconds > self._floor or now > self._floor_until:
                self._note(Slow(waiter.node, waiter.name, seconds, now))

    def find(self, unique: int) -> Waiter | None:
        return self._waiters.get(unique)

    def now(self) -> list[tuple[float, Waiter]]:
        """Give those that wait and for how many seconds, the longest first."""
        now = self._clock()
        waiters = list(self._waiters.values())  # in one step, while others come and go
        return sorted(((now - waiter.started, waiter) for waiter in waiters), key=lambda pair: -pair[0])

    def slowest(self) -> Sequence[tuple[float, Slow]]:
        """Give what was waited for longest in the last ten minutes, and how many seconds ago that ended."""
        now = self._clock()
        with self._lock:
            kept = [slow for slow in self._slow.values() if now - slow.ended <= SLOW_SECONDS]
        return [(now - slow.ended, slow) for slow in sorted(kept, key=lambda slow: -slow.seconds)]

    def histogram(self) -> tuple[list[int], float]:
        """Give how many waits ended within each of BOUNDS, and beyond, and their seconds in all."""
        with self._lock:
            return list(self._classes), self._seconds

    def _note(self, slow: Slow) -> None:
        kept = {key: one for key, one in self._slow.items() if slow.ended - one.ended <= SLOW_SECONDS}
        key = (slow.node, slow.name)
        if key not in kept or kept[key].seconds <= slow.seconds:
            kept[key] = slow
        ranked = sorted(kept.values(), key=lambda one: -one.seconds)[:SLOW_KEPT]
        self._slow = {(one.node, one.name): one for one in ranked}
        self._floor = ranked[-1].seconds if len(ranked) == SLOW_KEPT else -1.0
        self._floor_until = min(one.ended for one in ranked) + SLOW_SECONDS
