"""Annotation files as columns of names: which text of a row may be the name of a file, in little memory."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

COLUMNS_MAX = 3
"""Columns of one file that are kept: those whose texts look most like names."""

LIKELY = 0.5
"""Of the texts in a column, the share that must look like names, for the column to be kept."""

CELLS_MAX = 8_000_000
"""Values of one file. A table of more is not made: a line of a million commas before a million lines is 10^12."""

_SAMPLE = 64  # rows that are looked at to choose the columns
_NAME_MAX = 1024  # characters
_SCORE = re.compile(r"[-+]?[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?")  # whole numbers may be names without an extension


class Column:
    """One text of each row: a blob and offsets, and an index by the hash of the last part of the path."""

    def __init__(self, cells: Iterable[str]) -> None:
        texts = [cell.encode("utf-8", "surrogateescape") for cell in cells]
        self._blob = b"".join(texts)
        self._ends = array("I", itertools.accumulate(map(len, texts), initial=0))
        index = [zlib.crc32(text[text.rfind(b"/") + 1 :]) << 32 | row for row, text in enumerate(texts)]
        self._index = array("Q", sorted(index))  # hash in the upper half, row in the lower

    def __len__(self) -> int:
        return len(self._ends) - 1

    def cell(self, row: int) -> str:
        return self._blob[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogateescape")

    def rows_of(self, name: str) -> Iterator[int]:
        """Give the rows whose text ends in this file name."""
        wanted = _hash(name)
        at = bisect_left(self._index, wanted << 32)
        while at < len(self._index) and self._index[at] >> 32 == wanted:
            row = self._index[at] & 0xFFFFFFFF
            if basename(self.cell(row)) == name:
                yield row
            at += 1


def parse(path: str, data: bytes) -> list[Column]:
    """Give the columns of a csv, tsv, json, jsonl or txt file that may name files; none when it makes no sense."""
    extract = PARSERS.get(path.rpartition(".")[2].lower())
    if extract is None:
        return []
    if sum(map(data.count, (b",", b"\t", b"\n", b"[", b"{"))) > CELLS_MAX:
        return []
    try:
        columns = extract(data.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError, csv.Error):
        return []
    ranked = sorted(((_likeness(cells), number) for number, cells in enumerate(columns)), reverse=True)
    return [Column(map(_cleaned, columns[number])) for likeness, number in ranked[:COLUMNS_MAX] if likeness >= LIKELY]


def basename(text: str) -> str:
    return text.rpartition("/")[2]


Cells = Sequence[object]  # of one column, as they came


def _separated(delimiter: str) -> Callable[[str], list[Cells]]:
    def extract(text: str) -> list[Cells]:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        width = len(rows[0]) if rows else 0
        _refuse_giants(width, len(rows))
        return [*itertools.islice(itertools.zip_longest(*rows, fillvalue=""), width)]

    return extract


def _lines(text: str) -> list[Cells]:
    return [[line for line in text.splitlines() if line.strip()]]


def _json_lines(text: str) -> list[Cells]:
    return _records([json.loads(line) for line in text.splitlines() if line.strip()])


def _json(text: str) -> list[Cells]:
    document = json.loads(text)
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        # {"images": [...], "annotations": [...]}: every list is looked at; {"a.jpg": ...}: the keys are.
        return [list(document)] + [cells for rows in lists for cells in _records(rows)]
    return _records(document) if isinstance(document, list) else []


def _records(rows: list[object]) -> list[Cells]:
    if rows and isinstance(rows[0], str):
        return [rows]
    if not rows or not isinstance(rows[0], Mapping):
        return []
    names = [key for key, value in rows[0].items() if isinstance(value, str)]
    _refuse_giants(len(names), len(rows))
    return [[row.get(key) if isinstance(row, Mapping) else "" for row in rows] for key in names]


def _refuse_giants(columns: int, rows: int) -> None:
    """Short rows are filled up to the first one's length. Raises ValueError."""
    if columns * rows > CELLS_MAX:
        raise ValueError(f"a table of {columns} columns and {rows} rows")


def _cleaned(cell: object) -> str:
    if not isinstance(cell, str) or len(cell) > _NAME_MAX:
        return ""
    text = cell.strip().replace("\\", "/")
    return text[2:] if text.startswith("./") else text


def _likeness(cells: Cells) -> float:
    """Tell how much texts look like names of files: distinct, short, with an extension or a directory."""
    sample = [cell for cell in map(_cleaned, cells[:_SAMPLE]) if cell]
    if not sample or len(set(sample)) <= len(sample) // 2:
        return 0.0
    if sum(_SCORE.fullmatch(cell) is not None for cell in sample) > len(sample) // 2:
        return 0.0
    dotted = sum("." in basename(cell)[1:-1] and " " not in cell.rpartition(".")[2] for cell in sample)
    plain = sum(" " not in cell for cell in sample)
    return (2 * dotted + plain) / len(sample)


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


PARSERS: Mapping[str, Callable[[str], list[Cells]]] = {
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "txt": _lines,
    "lst": _lines,
    "jsonl": _json_lines,
    "json": _json,
}
