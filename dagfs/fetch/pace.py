"""How much of the link guesses may use beside waiting readers. A policy without threads or clock."""

from __future__ import annotations

import math

SHARE = 0.7
"""Of the time that a reader waits for its first byte, how much is filled with bets; the rest allows for jitter."""

THINKING = 0.25
"""Of a round trip without any reader, after which nobody is taken to be about to ask again."""

BODY_LEAST = 0.0005
"""Seconds that a body takes at least: on a fast link not the link is what bets would take from readers."""

FILLED = 1.25
"""Of the transfers that fill the link, how many may run beside those of readers. More bring no more, and readers wait
for their part of the link: with all slots in use a missed file of a shuffled epoch took twice as long, 95 ms."""

SPARE = 2  # transfers beside those: the rate that is reckoned with lags behind

SAMPLES = 256
"""Readers' transfers after which the quickest is forgotten: by then the way to the hub may be another."""

_EASE = 1 / 16  # of the way to a slower sample: most samples are slowed by what else was under way


class Pace:
    """Measures readers' own transfers. While one waits for its first byte the link carries nothing for it: bets that
    start `body` seconds after it arrive when its successor waits. Not thread-safe: the fetcher's lock guards it."""

    def __init__(self) -> None:
        self._waiting: dict[object, float] = {}  # readers' transfers -> start, on the caller's clock
        self._left = -math.inf  # when the last of them ended
        self._round_trip: float | None = None  # seconds from a start to the first byte
        self._body = BODY_LEAST  # seconds from the first byte to the last
        self._quickest = self._quickest_before = math.inf  # seconds of a transfer, of this lot of SAMPLES and the last
        self._samples = 0  # in this lot

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
        if self._samples == SAMPLES:
            self._quickest_before, self._quickest, self._samples = self._quickest, math.inf, 0
        self._samples += 1
        self._quickest = min(self._quickest, round_trip + body)

    def room(self, now: float) -> int:
        """How many bets may be under way; 0 outside of the time for them."""
        if self._round_trip is None or now < self.opens(now):
            return 0
        carried = self._round_trip / self._body
        return max(1, int(SHARE * carried)) if self._waiting else math.ceil(carried) + 1

    def filled(self, running: int, rate: float) -> bool:
        """Tell whether `running` transfers fill the link while readers wait for files that nobody foresaw. By Little's
        law it holds `rate` (transfers a second; 0.0: not known) times the seconds of one that waits for no other.

        One reader alone is not counted: its epoch ends when the link has brought everything, whatever it waits for.
        """
        if len(self._waiting) < 2 or not rate:
            return False
        return running >= FILLED * rate * min(self._quickest, self._quickest_before) + SPARE

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
