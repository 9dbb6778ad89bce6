"""How many transfers may run: a policy without threads or clock, fed with what ended."""

from __future__ import annotations

import math

START = 32
"""Transfers. Enough to hide 80 ms behind files of 100 KB on 200 Mbit/s; what the hub's own client asks for, too."""

FLOOR = 2
CEILING = 64

GROWTH_WORTH = 1.05
"""Growth goes on while a window moves this much more than the best before."""

FADING = 0.9
"""The best rate is forgotten by this factor a window, so that a link that recovers is tried again."""

WINDOW = 0.25
"""Seconds of a measurement at least; a window also has as many ends as there are slots."""

RATED = 5.0
"""Seconds for which the rate at which the link is full is taken to hold; then all slots are tried again."""

FILE_WEIGHT = 32 << 10
"""Bytes that a transfer counts for besides its own: a run of tiny files is bound by latency and wants more slots."""

SILENCE = 3.0
"""Seconds without a byte after which a transfer lends its slot to a reader's: most answers begin within one, and a
program that waits so long for a `stat` is not yet taken for dead."""

LENT_MAX = 96
"""Slots lent at a time, so that a hub that is silent altogether does not get a connection for each reader."""

LOOK = 1.0
"""Seconds between two looks who is silent; nobody looks while there are slots left."""

CALM = 1.0
"""Seconds after a refusal during which others are answers to the same burst."""


class Slots:
    """Grows while throughput grows, halves when the hub refuses. `limit` is the number of transfers for all classes."""

    def __init__(self, limit: int = START) -> None:
        self.limit = limit
        self.paused_until = 0.0
        self._best = 0.0
        self._rate = 0.0  # transfers that ended in a second of the last window that had all slots in use and no growth
        self._rated = -math.inf  # when that window ended
        self._crowded = True  # all slots were in use since the window began
        self._since: float | None = None
        self._ends = 0
        self._bytes = 0
        self._last_refusal = float("-inf")

    @property
    def lower(self) -> int:
        """Transfers that may run when no reader waits for them: a quarter is always left to readers."""
        return max(1, self.limit - max(1, self.limit // 4))

    def rate(self, now: float) -> float:
        """Give the transfers that end in a second where more would bring no more; 0.0 when that is not known."""
        return self._rate if now - self._rated < RATED else 0.0

    def ended(self, moved: int, now: float, *, busy: bool, crowded: bool) -> None:
        """A transfer brought `moved` bytes; `busy`: others are waiting; `crowded`: because the slots are in use."""
        if not busy or self._since is None:
            self._begin(now)
            return
        self._ends += 1
        self._crowded = self._crowded and crowded
        self._bytes += moved + FILE_WEIGHT
        if self._ends < self.limit or now - self._since < WINDOW:
            return
        seconds = now - self._since
        rate = self._bytes / seconds
        if rate > self._best * GROWTH_WORTH:
            self.limit = min(CEILING, self.limit + max(1, self.limit // 4))
        elif self._crowded:
            self._rate, self._rated = self._ends / seconds, now
        self._rate = max(self._rate, self._ends / seconds)
        self._best = max(rate, self._best * FADING)
        self._begin(now)

    def refused(self, now: float, retry_after: float | None) -> None:
        """The hub does not want more now; `retry_after` in seconds stops everybody for as long."""
        if retry_after is not None:
            self.paused_until = max(self.paused_until, now + retry_after)
        if now - self._last_refusal >= CALM:
            self.limit = max(FLOOR, self.limit // 2)
            self._best, self._rated = 0.0, -math.inf
            self._begin(now)
        self._last_refusal = now

    def _begin(self, now: float) -> None:
        self._since, self._ends, self._bytes, self._crowded = now, 0, 0, True
