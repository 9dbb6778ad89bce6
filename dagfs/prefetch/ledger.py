"""What a source of guesses may spend: a small bet that grows with hits, and ends with waste."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dagfs.model import ContentId

WASTE_MAX = 64 << 20
"""Bytes guessed wrong, for all sources of a mount, after which guessing ends."""

PATIENCE = 64
"""Openings of other files, beside four for each guess that is open, after which a guess counts as wasted."""


@dataclass(frozen=True, slots=True)
class Stakes:
    """Bytes outstanding that a source may bet: `first` before anything was hit, never more than `most`.

    A hit raises them by `reward` times its bytes; with 0 it doubles them, and a guess that was wrong halves them.
    """

    first: int
    most: int
    reward: int = 0

    def raised(self, bet: int, size: int) -> int:
        return min(self.most, bet + self.reward * size if self.reward else 2 * bet)

    def lowered(self, bet: int, size: int) -> int:
        return max(self.first, bet - self.reward * size if self.reward else bet // 2)


IN_ORDER = Stakes(first=1 << 20, most=64 << 20)
"""Ten images of 100 KB; no more than 64 MB is read ahead by anybody at the speeds of a hub."""

SCATTERED = Stakes(first=48 << 20, most=4 << 30, reward=32)
"""A shuffled epoch hits in proportion to what lies ready, so much must lie ready, and it lies in the cache on disk.

The reward sets both how soon an epoch fills the link, and what a subset that ends may leave unread."""


class Waste:
    """Bytes fetched for nothing, over all sources of a mount."""

    def __init__(self) -> None:
        self.total = 0

    @property
    def spent(self) -> bool:
        return self.total >= WASTE_MAX


class Ledger:
    """The account of one source; its owner calls it from one thread at a time."""

    def __init__(self, waste: Waste, stakes: Stakes) -> None:
        self._waste = waste
        self._stakes = stakes
        self._bet = stakes.first
        self._clock = 0  # openings so far
        self._open: OrderedDict[ContentId, tuple[int, int]] = OrderedDict()  # guess -> (bytes, opening it was made at)
        self.outstanding = 0  # bytes of what is in _open

    @property
    def allowance(self) -> int:
        """Bytes that may be bet now."""
        return 0 if self._waste.spent else max(0, self._bet - self.outstanding)

    @property
    def guesses(self) -> int:
        """How many are open."""
        return len(self._open)

    def holds(self, key: ContentId) -> bool:
        return key in self._open

    def charge(self, key: ContentId, size: int) -> None:
        self._open[key] = (size, self._clock)
        self.outstanding += size

    def opened(self, key: ContentId, patience: int = PATIENCE) -> bool:
        """Note an opening; True when it was guessed. Guesses that have waited `patience` openings are wrong."""
        self._clock += 1
        guess = self._open.pop(key, None)
        if guess is not None:
            self.outstanding -= guess[0]
            self._bet = self._stakes.raised(self._bet, guess[0])
        self._expire(patience)
        return guess is not None

    def _expire(self, patience: int) -> None:
        while self._open:
            key, (size, made_at) = next(iter(self._open.items()))
            if self._clock - made_at <= patience + 4 * len(self._open):
                return
            del self._open[key]
            self.outstanding -= size
            self._waste.total += size
            self._bet = self._stakes.lowered(self._bet, size)
