"""When bets may use the link: only in what waiting readers leave idle. A policy without threads or clock."""

from __future__ import annotations

import math

SHARE = 0.7
"""Of the time that a reader waits for its first byte, how much is filled with bets; the rest allows for jitter."""

THINKING = 0.25
"""Of a round trip without any reader, after which nobody is taken to be about to ask again."""

BODY_LEAST = 0.0005
"""Seconds that a body takes at least: on a fast link not the link is what bets would take from readers."""

_EASE = 1 / 16  # of the way to a slower sample: most samples are slowed by what else was under way


class Pace:
    """Measures readers' own transfers. While one waits for its first byte the link carries nothing for it: bets that
    start `body` seconds after it arrive when its successor waits. Not thread-safe: the fetcher's lock guards it."""

    def __init__(self) -> None:
        self._waiting: dict[object, float] = {}  # readers' transfers -> start, on the caller's clock
        self._left = -math.inf  # when the last of them ended
        self._round_trip: float | None = None  # seconds from a start to the first byte
        self._body = BODY_LEAST  # seconds from the first byte to the last

    def started(self, load: object, now: float) -> None:
        self._waiting[load] = now

    def ended(self, load: object, now: float) -> None:
        if self._waiting.pop(load, None) is not None:
            self._left = now

    def measured(self, round_trip: float, body: float) -> None:
        """A reader's transfer of a small file came in one piece."""
        known = self._round_trip
        self._round_trip = round_trip if known is None else _eased(known, round_trip)
        self._body = max(BODY_LEAST, body if known is None else _eased(self._body, body))

    def room(self, now: float) -> int:
        """How many bets may be under way; 0 outside of the time for them."""
        if self._round_trip is None or now < self.opens(now):
            return 0
        carried = self._round_trip / self._body
        return max(1, int(SHARE * carried)) if self._waiting else math.ceil(carried) + 1

    def opens(self, now: float) -> float:
        """The next time for bets: `now` or earlier when that is now, infinity when some reader must start first."""
        if self._round_trip is None:
            return math.inf
        if not self._waiting:
            return self._left + THINKING * self._round_trip
        start = max(self._waiting.values())
        return start + self._body if now <= start + self._round_trip else math.inf


def _eased(known: float, sample: float) -> float:
    return sample if sample < known else known + (sample - known) * _EASE
