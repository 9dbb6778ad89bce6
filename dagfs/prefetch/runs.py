"""Runs of growing positions: several readers of one list, each going through it in steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GAP_MAX = 16
"""Positions that a reader may step over and still be in its run: every n-th file for one of n workers."""

CERTAIN_AT = 3
"""Openings in order that make a run: two are in order by chance every second time."""

AHEAD_MAX = 1024
"""Positions ahead of the reader at most; the budget in bytes ends most runs earlier."""

_RUNS_KEPT = 16


@dataclass(slots=True)
class Run:
    """`last`: position opened last. `step`: between the last two. `guessed`: the furthest position given out."""

    last: int
    guessed: int
    step: int = 1
    length: int = 1

    def ahead(self) -> Iterator[int]:
        """Give the next positions, each once, while the run is certain and the caller wants more."""
        self.guessed = max(self.guessed, self.last)
        while self.length >= CERTAIN_AT and self.guessed + self.step <= self.last + AHEAD_MAX:
            self.guessed += self.step
            yield self.guessed


class Runs:
    """The runs in one list, the one that moved last at the end."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def moved(self, position: int) -> Run:
        """Note an opening at a position and give the run that it belongs to."""
        near = [run for run in self._runs if 0 < position - run.last <= GAP_MAX]
        if not near:
            run = Run(position, position)
            self._runs = [*self._runs[1 - _RUNS_KEPT :], run]
            return run
        run = min(near, key=lambda run: position - run.last)
        step = position - run.last
        run.step = step if step == run.step or run.length == 1 else 1
        run.last = position
        run.length += 1
        self._runs.remove(run)
        self._runs.append(run)
        return run
