"""Annotation files as columns of names: which text of a row may be the name of a file, in little memory."""

from __future__ import annotations

import csv
import io
import json
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping

COLUMNS_MAX = 3
"""Columns of one file that are kept: those whose texts look most like names."""

_SAMPLE = 64  # rows that are looked at to choose the columns
_NAME_MAX = 1024  # characters


class Column:
    """One text of each row: a blob and offsets, and an index by the hash of the last part of the path."""

    def __init__(self, cells: Iterable[str]) -> None:
        blob = bytearray()
        self._ends = array("I", [0])
        index: list[int] = []
        for row, cell in enumerate(cells):
            blob += cell.encode("utf-8", "surrogateescape")
            self._ends.append(len(blob))
            index.append(_hash(basename(cell)) << 32 | row)
        self._blob = bytes(blob)
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
    try:
        columns = extract(data.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError, csv.Error):
        return []
    ranked = sorted(columns, key=lambda cells: -_likeness(cells))
    return [Column(cells) for cells in ranked[:COLUMNS_MAX] if _likeness(cells) > 0]


def basename(text: str) -> str:
    return text.rpartition("/")[2]


def _separated(delimiter: str) -> Callable[[str], list[list[str]]]:
    def extract(text: str) -> list[list[str]]:
        return _transposed(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))

    return extract


def _transposed(rows: Iterable[list[str]]) -> list[list[str]]:
    columns: list[list[str]] = []
    for number, row in enumerate(rows):
        if number == 0:
            columns = [[] for _ in row]
        for index, cells in enumerate(columns):
            cells.append(_cleaned(row[index]) if index < len(row) else "")
    return columns


def _lines(text: str) -> list[list[str]]:
    return [[_cleaned(line) for line in text.splitlines() if line.strip()]]


def _json_lines(text: str) -> list[list[str]]:
    return _records([json.loads(line) for line in text.splitlines() if line.strip()])


def _json(text: str) -> list[list[str]]:
    document = json.loads(text)
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        # {"images": [...], "annotations": [...]}: every list is looked at; {"a.jpg": ...}: the keys are.
        return [[_cleaned(key) for key in document]] + [cells for rows in lists for cells in _records(rows)]
    return _records(document) if isinstance(document, list) else []


def _records(rows: list[object]) -> list[list[str]]:
    if rows and isinstance(rows[0], str):
        return [[_cleaned(row) if isinstance(row, str) else "" for row in rows]]
    if not rows or not isinstance(rows[0], Mapping):
        return []
    names = [key for key, value in rows[0].items() if isinstance(value, str)]
    return [[_cleaned(row.get(key)) if isinstance(row, Mapping) else "" for row in rows] for key in names]


def _cleaned(cell: object) -> str:
    if not isinstance(cell, str) or len(cell) > _NAME_MAX:
        return ""
    text = cell.strip().replace("\\", "/")
    return text[2:] if text.startswith("./") else text


def _likeness(cells: list[str]) -> float:
    """Tell how much texts look like names of files: distinct, short, with an extension or a directory."""
    sample = [cell for cell in cells[:_SAMPLE] if cell]
    if not sample or len(set(sample)) <= len(sample) // 2:
        return 0.0
    dotted = sum("." in basename(cell)[1:-1] and " " not in cell.rpartition(".")[2] for cell in sample)
    plain = sum(" " not in cell for cell in sample)
    return (2 * dotted + plain) / len(sample)


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


PARSERS: Mapping[str, Callable[[str], list[list[str]]]] = {
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "txt": _lines,
    "lst": _lines,
    "jsonl": _json_lines,
    "json": _json,
}
