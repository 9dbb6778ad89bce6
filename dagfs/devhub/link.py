"""A link of limited bandwidth, shared by all connections that send over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_QUANTUM_SECONDS = 0.003
_QUANTUM_BYTES = (1 << 12, 1 << 18)
"""What one connection sends before the next has its turn: 3 ms of the link, within 4 KiB to 256 KiB."""

_CATCH_UP_SECONDS = 0.05
"""How much of a sleep that took too long a sender may make up for: more would be a burst that no link has."""


class Link:
    """Bytes take turns, first come first served, each for as long as the link needs to carry them. Thread-safe."""

    def __init__(
        self,
        bytes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0  # under the lock: when the link has carried all that was accepted
        least, most = _QUANTUM_BYTES
        self.quantum = int(min(max(bytes_per_second * _QUANTUM_SECONDS, least), most))

    def carry(self, size: int, since: float | None = None) -> float:
        """Wait until the link has carried `size` bytes, and give the moment when it had (the link's clock, seconds).

        `since` is what the last call for the same body gave: the link was never idle from then on, so time lost by
        sleeping too long is not charged.
        """
        now = self._clock()
        earliest = now if since is None else max(since, now - _CATCH_UP_SECONDS)
        with self._lock:
            self._free_at = done = max(self._free_at, earliest) + size / self._rate
        if done > now:
            self._sleep(done - now)
        return done
