"""A commit's files as keys of an object store, in its order, and pages of them.

A directory is a common prefix even where all that is below it is a submodule, which has no keys.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dagfs.devhub.snapshot import Node, Snapshot
from dagfs.errors import NotADirectory, NotFound

_TABLES_KEPT = 4
"""Sorted tables in memory, about 100 bytes a key: a client asks for page after page of the same."""


class Row(NamedTuple):
    """A key and its node; a key that ends with "/" is the common prefix of others, and its node the directory."""

    key: bytes
    node: Node


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys: those that begin with `prefix` and come after `after`; `folded` at the next "/" or all below."""

    prefix: bytes
    after: bytes
    folded: bool
    limit: int


class KeyTables:
    """Sorted keys of the directories that are asked for; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, bytes, bool], list[Row]] = OrderedDict()  # under the lock

    def page(self, commit: str, snapshot: Snapshot, wanted: Wanted) -> tuple[list[Row], bool]:
        """Give a page's rows, and whether more follow."""
        parent = wanted.prefix.rpartition(b"/")[0]
        table = self._table(commit, snapshot, parent, wanted.folded)
        at = max(_place(table, wanted.after), _place(table, wanted.prefix, before=True))
        rows = []
        for row in table[at : at + wanted.limit + 1]:
            if not row.key.startswith(wanted.prefix):
                break
            rows.append(row)
        return rows[: wanted.limit], len(rows) > wanted.limit

    def _table(self, commit: str, snapshot: Snapshot, parent: bytes, folded: bool) -> list[Row]:
        place = (commit, parent, folded)
        with self._lock:
            found = self._tables.get(place)
            if found is not None:
                self._tables.move_to_end(place)
                return found
        table = list(_rows(snapshot, parent) if folded else _rows_below(snapshot, parent))
        with self._lock:
            self._tables[place] = table
            while len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table


def _place(table: list[Row], key: bytes, *, before: bool = False) -> int:
    """Give where the rows behind `key` begin, or from it on."""
    at = bisect_right(table, key, key=_key)
    return at - 1 if before and at and table[at - 1].key == key else at


def _key(row: Row) -> bytes:
    return row.key


def _rows(snapshot: Snapshot, parent: bytes) -> list[Row]:
    """Give a directory's rows in the order of their keys; nothing where no file is, as in a submodule."""
    try:
        children = snapshot.children(parent)
    except (NotFound, NotADirectory):
        return []
    base = parent + b"/" if parent else b""
    rows = [Row(base + name + b"/" if node.is_dir else base + name, node) for name, node in children]
    return sorted((row for row in rows if not row.node.submodule), key=_key)


def _rows_below(snapshot: Snapshot, parent: bytes) -> Iterator[Row]:
    """Give the files of a directory and of all below it, in the order of their keys."""
    for row in _rows(snapshot, parent):
        if row.node.is_dir:
            yield from _rows_below(snapshot, row.key[:-1])
        else:
            yield row
