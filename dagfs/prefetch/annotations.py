"""Guesses that who has read a table of names opens the files in the order of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from dagfs.errors import DagfsError
from dagfs.model import Span, Urgency
from dagfs.prefetch.ledger import IN_ORDER, PATIENCE
from dagfs.prefetch.runs import Run, Runs
from dagfs.prefetch.seam import Bytes, Catalogue, FileRef
from dagfs.prefetch.table import PARSERS, Column, basename, parse

ANNOTATION_MAX = 64 << 20
"""Bytes of an annotation file that is looked into; the table of half a million captions has about as many."""

_TABLES_KEPT = 2
_PENDING_KEPT = 8
_ROWS_TRIED = 8  # rows with the same file name in different directories


@dataclass(frozen=True, slots=True)
class _Template:
    """How a row's text becomes a path; `whole` is False when only the last part of the text is a name."""

    prefix: str
    suffix: str
    whole: bool

    def path(self, cell: str) -> str:
        return self.prefix + (cell if self.whole else basename(cell)) + self.suffix


@dataclass(eq=False)
class _Table:
    columns: list[Column]
    runs: dict[tuple[int, _Template], Runs] = field(default_factory=dict)  # (column, template) -> readers


class AnnotationSource:
    name = "annotations"
    stakes = IN_ORDER
    urgency = Urgency.PREFETCH

    def __init__(self, catalogue: Catalogue, cache: Bytes) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._pending: list[FileRef] = []  # annotation files that were opened and are not parsed yet
        self._tables: list[_Table] = []
        self._current: tuple[Column, _Template, Run] | None = None

    def opened(self, file: FileRef) -> None:
        self._current = None
        extension = file.path.rpartition(".")[2].lower()
        if extension in PARSERS and 0 < (file.content.size or 0) <= ANNOTATION_MAX:
            self._pending = [*self._pending[1 - _PENDING_KEPT :], file]
            return
        self._parse_arrived()
        for table in self._tables:
            self._current = self._current or _located(table, file.path)

    def patience(self) -> int:
        return PATIENCE

    def guesses(self, count: int) -> Sequence[FileRef]:
        if self._current is None:
            return []
        column, template, run = self._current
        found: list[FileRef] = []
        for row in run.ahead() if count else ():
            if row >= len(column):
                break
            file = self._catalogue.find(template.path(column.cell(row)))
            if file is not None:
                found.append(file)
            if len(found) >= count:
                break
        return found

    def _parse_arrived(self) -> None:
        arrived = [file for file in self._pending if self._cache.cached(file.content)]
        for file in arrived:
            self._pending.remove(file)
            columns = parse(file.path, self._bytes(file))
            if columns:
                self._tables = [*self._tables[1 - _TABLES_KEPT :], _Table(columns)]

    def _bytes(self, file: FileRef) -> bytes:
        try:
            data = self._cache.read(file.content, Span(0, file.content.size or 0), Urgency.PREFETCH)
        except DagfsError:
            return b""
        return b"" if isinstance(data, Future) else data  # a cached file is read at once; else it was evicted just now


def _located(table: _Table, path: str) -> tuple[Column, _Template, Run] | None:
    """Find the row that names a path, and the reader that it belongs to."""
    for index, column in enumerate(table.columns):
        for row, template in _matches(column, path):
            runs = table.runs.setdefault((index, template), Runs())
            return column, template, runs.moved(row)
    return None


def _matches(column: Column, path: str) -> Iterable[tuple[int, _Template]]:
    """Give rows that name a path by its whole end, its last part, or its last part without extension."""
    name = basename(path)
    stem, dot, extension = name.rpartition(".")
    for text, suffix in ((name, ""), (stem, dot + extension)):
        target = path[: len(path) - len(suffix)]
        rows = [row for row, _ in zip(column.rows_of(text), range(_ROWS_TRIED), strict=False)] if text else []
        whole = [row for row in rows if _ends_with(target, column.cell(row))]
        for row in whole:
            yield row, _Template(target[: len(target) - len(column.cell(row))], suffix, True)
        if rows and not whole:
            yield rows[0], _Template(target[: len(target) - len(text)], suffix, False)


def _ends_with(path: str, cell: str) -> bool:
    return path == cell or path.endswith("/" + cell)
