"""Guesses that who opens files of a directory at random goes on until all are read: a shuffled epoch.

The first openings of an epoch and of a small subset look alike, so the first guesses only get the link's idle time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dagfs.model import Content, Urgency
from dagfs.prefetch.ledger import SCATTERED
from dagfs.prefetch.runs import Runs
from dagfs.prefetch.seam import Catalogue, FileRef

OPENINGS_LEAST = 4
"""Openings of a directory before there is a pattern to speak of; in a small one the second is enough."""

SMALL = 32 << 20
"""Bytes of a directory that it costs less to fetch than to find out whether all will be read: half of what may be
wasted."""

PROVEN = 0.2
PROVEN_HITS = 8
"""Of the rows guessed, and openings that were foreseen, after which guesses have the whole link. The share alone says
nothing where the first bet covers as much."""

_SKIPS = 256  # rows looked at for one missed file: those that are here already cost a look into the store each
_DIRECTORIES_KEPT = 1024


@dataclass(eq=False)
class _Directory:
    """`at`: the next row to guess. `openings` since that was the first, and `hits` on rows guessed among them."""

    runs: Runs = field(default_factory=Runs)
    at: int = 0
    openings: int = 0
    hits: int = 0
    ended: bool = False

    def proven(self, rows: int) -> bool:
        return self.at >= PROVEN * rows and self.hits >= PROVEN_HITS


class ScatterSource:
    name = "scatter"
    stakes = SCATTERED

    def __init__(self, catalogue: Catalogue, cached: Callable[[Content], bool]) -> None:
        self._catalogue = catalogue
        self._cached = cached
        self._directories: OrderedDict[str, _Directory] = OrderedDict()  # used last comes last
        self._current: tuple[str, _Directory] | None = None
        self._skips = 0
        self.urgency = Urgency.BET

    def opened(self, file: FileRef) -> None:
        self._current = None
        if file.position < 0:
            return
        directory = self._directories.setdefault(file.directory, _Directory())
        self._directories.move_to_end(file.directory)
        if len(self._directories) > _DIRECTORIES_KEPT:
            self._directories.popitem(last=False)
        directory.runs.moved(file.position)
        directory.openings += 1
        if directory.runs.in_order and not directory.at:
            return  # nothing was guessed here, and nothing will be
        here = self._cached(file.content)
        directory.hits += here and file.position < directory.at
        if directory.ended and directory.openings > directory.at:
            directory = self._directories[file.directory] = _Directory(directory.runs, openings=1)  # some may be gone
        rows = self._catalogue.rows(file.directory)
        small = (file.content.size or 0) * rows <= SMALL
        if directory.openings < (2 if small else OPENINGS_LEAST) or directory.runs.in_order:
            return
        if here:
            return  # it needs no help; and a warm epoch must not pay for looking at the rest
        self._current, self._skips = (file.directory, directory), _SKIPS
        self.urgency = Urgency.PREFETCH if small or directory.proven(rows) else Urgency.BET

    def guesses(self, count: int) -> Sequence[FileRef]:
        found: list[FileRef] = []
        while self._current is not None and len(found) < count and self._skips:
            path, directory = self._current
            rows = self._catalogue.rows(path)
            if directory.at >= rows:
                directory.ended, self._current = True, None
                break
            file = self._catalogue.at(path, directory.at)
            directory.at += 1
            self._skips -= 1
            if file is not None:
                found.append(file)
        return found

    def patience(self) -> int:
        """Openings after which a guess was wrong: each file comes once in an epoch, and two may overlap."""
        return 2 * sum(self._catalogue.rows(path) for path in self._directories)
