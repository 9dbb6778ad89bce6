"""What a source of guesses may spend: a small bet that grows with hits, and ends with waste."""

from __future__ import annotations

from collections import OrderedDict

from dagfs.model import ContentId

FIRST_BET = 1 << 20
"""Bytes outstanding that a source may bet before anything was hit: ten images of 100 KB."""

BET_MAX = 64 << 20
"""Bytes outstanding at most; more than this is read ahead by nobody at the speeds of a hub."""

WASTE_MAX = 64 << 20
"""Bytes guessed wrong, for all sources of a mount, after which guessing ends."""

PATIENCE = 64
"""Openings of other files, beside four for each guess that is open, after which a guess counts as wasted."""


class Waste:
    """Bytes fetched for nothing, over all sources of a mount."""

    def __init__(self) -> None:
        self.total = 0

    @property
    def spent(self) -> bool:
        return self.total >= WASTE_MAX


class Ledger:
    """The account of one source; its owner calls it from one thread at a time."""

    def __init__(self, waste: Waste) -> None:
        self._waste = waste
        self._bet = FIRST_BET
        self._clock = 0  # openings so far
        self._open: OrderedDict[ContentId, tuple[int, int]] = OrderedDict()  # guess -> (bytes, opening it was made at)
        self.outstanding = 0  # bytes of what is in _open

    @property
    def allowance(self) -> int:
        """Bytes that may be bet now."""
        return 0 if self._waste.spent else max(0, self._bet - self.outstanding)

    def holds(self, key: ContentId) -> bool:
        return key in self._open

    def charge(self, key: ContentId, size: int) -> None:
        self._open[key] = (size, self._clock)
        self.outstanding += size

    def opened(self, key: ContentId) -> bool:
        """Note an opening; True when it was guessed. Each hit doubles the bet, each guess that grew old halves it."""
        self._clock += 1
        guess = self._open.pop(key, None)
        if guess is not None:
            self.outstanding -= guess[0]
            self._bet = min(BET_MAX, 2 * self._bet)
        self._expire()
        return guess is not None

    def _expire(self) -> None:
        while self._open:
            key, (size, made_at) = next(iter(self._open.items()))
            if self._clock - made_at <= PATIENCE + 4 * len(self._open):
                return
            del self._open[key]
            self.outstanding -= size
            self._waste.total += size
            self._bet = max(FIRST_BET, self._bet // 2)
