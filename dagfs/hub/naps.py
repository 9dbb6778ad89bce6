"""Notice that the machine was suspended: connections of before are dead, and nobody has told their owners."""

from __future__ import annotations

import time
from collections.abc import Callable

NAP_SECONDS = 5.0
"""Shorter ones are not worth new connections; two clocks read one after the other never differ by as much."""


def suspended_seconds() -> float:
    """Give how long the machine has slept since it was started: one clock of Linux counts that, the other does not."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Naps:
    """Who asks first is told; two threads that ask at once may both be."""

    def __init__(self, suspended: Callable[[], float] = suspended_seconds) -> None:
        self._suspended = suspended
        self._seen = suspended()

    def ended(self) -> bool:
        """Tell, once for each, whether the machine has slept since the last call."""
        now = self._suspended()
        slept, self._seen = now - self._seen, now
        return slept > NAP_SECONDS
