"""Runs of growing positions: several readers of one list, each going through it in steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CERTAIN_AT = 3
"""Openings in order that make a run: two are in order by chance every second time."""

DENSE = 3
"""Positions within which openings are in order even if their steps differ: threads overtake each other."""

GAP_MAX = 16
"""Positions that a reader may step over each time: every n-th file for one of n workers."""

AHEAD_MAX = 1024
"""Positions ahead of the reader at most; the budget in bytes ends most runs earlier."""

_RUNS_KEPT = 16
_MEMORY = 32  # openings over which foreseen ones and all are counted


@dataclass(slots=True)
class Run:
    """`last`: position opened last. `step`: between the last two. `guessed`: the furthest position given out."""

    last: int
    guessed: int
    step: int = 1
    length: int = 1
    certain: bool = False

    def ahead(self) -> Iterator[int]:
        """Give the next positions, each once, while the run is certain and the caller wants more."""
        self.guessed = max(self.guessed, self.last)
        while self.certain and self.guessed + self.step <= self.last + AHEAD_MAX:
            self.guessed += self.step
            yield self.guessed


class Runs:
    """The runs in one list, the one that moved last at the end.

    In a short list random openings make runs by chance; so a run counts only while most openings are foreseen.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._openings = 0
        self._foreseen = 0  # of the openings, those that continued a run

    @property
    def in_order(self) -> bool:
        """Most openings were foreseen."""
        return 2 * self._foreseen >= self._openings

    def moved(self, position: int) -> Run:
        """Note an opening at a position and give the run that it belongs to."""
        near = [run for run in self._runs if 0 < position - run.last <= GAP_MAX]
        run = min(near, key=lambda run: position - run.last, default=None)
        if run is None:
            self._count(False)
            run = Run(position, position)
            self._runs = [*self._runs[1 - _RUNS_KEPT :], run]
            return run
        self._count(self._continued(run, position))
        run.certain = run.length >= CERTAIN_AT and self.in_order
        self._runs.remove(run)
        self._runs.append(run)
        return run

    def _continued(self, run: Run, position: int) -> bool:
        """Move a run on; True when the step was one to expect."""
        step = position - run.last
        foreseen = step <= DENSE or step == run.step
        if run.length == 1 or not foreseen:
            run.step, run.length = step, 2
        else:
            run.step = step if step == run.step else 1
            run.length += 1
        run.last = position
        return foreseen

    def _count(self, foreseen: bool) -> None:
        if self._openings >= _MEMORY:
            self._openings //= 2
            self._foreseen //= 2
        self._openings += 1
        self._foreseen += foreseen
