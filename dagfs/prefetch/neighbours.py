"""Guesses that who opens files in the order of a listing goes on in that order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dagfs.model import Urgency
from dagfs.prefetch.ledger import IN_ORDER, PATIENCE
from dagfs.prefetch.runs import Run, Runs
from dagfs.prefetch.seam import Catalogue, FileRef

_DIRECTORIES_KEPT = 64


class NeighbourSource:
    name = "neighbours"
    stakes = IN_ORDER
    urgency = Urgency.PREFETCH

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._directories: OrderedDict[str, Runs] = OrderedDict()  # used last comes last
        self._current: tuple[str, Run] | None = None

    def opened(self, file: FileRef) -> None:
        self._current = None
        if file.position < 0:
            return
        runs = self._directories.setdefault(file.directory, Runs())
        self._directories.move_to_end(file.directory)
        if len(self._directories) > _DIRECTORIES_KEPT:
            self._directories.popitem(last=False)
        self._current = file.directory, runs.moved(file.position)

    def patience(self) -> int:
        return PATIENCE

    def guesses(self, count: int) -> Sequence[FileRef]:
        if self._current is None:
            return []
        directory, run = self._current
        found: list[FileRef] = []
        for position in run.ahead() if count else ():
            file = self._catalogue.at(directory, position)
            if file is not None:
                found.append(file)
            if len(found) >= count:
                break
        return found
