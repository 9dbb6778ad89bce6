"""What the store knows of its files: size, whether they were verified since the machine started, and their other names.

Kept by diskcache. Whoever can write a pickle into a cache runs code in its reader, so nothing here reads one.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diskcache

from dagfs.model import ContentId
from dagfs.store.layout import Stamp

INDEX_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)
"""What a failing disk or a damaged data base raises; for the store each of them is a miss or a dropped write."""

_ALIASES_MAX = 64
"""Other names kept for one file: one more for each commit that has the same bytes at an unproved git path."""

_VALUE_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
_FILES, _AFTER_FILES = "md5:", "md5;"  # the keys of files lie between
_WALKED = 100  # keys read at a time
_TOTAL = "total"
_COUNTING = "counting"  # this row exists iff files that the index did not know are being counted
_TEXTS = "texts"  # this row exists iff a file has a text MD5 of DVC 2 among its names
_TEXTS_SECONDS = 1.0
"""How long to believe that there is none: who looks for any DVC file that is not there would ask each time."""

TEXT_SCHEME = "md5-dos2unix"
DVC_SCHEMES = frozenset({"md5", TEXT_SCHEME})
"""Of the names that DVC gives."""

_TIMEOUT = 10.0
"""Seconds to wait for another process's transaction."""


class PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Stores text keys and bytes only; a pickled row, or one that names a file elsewhere, reads as missing."""

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"index keys are text, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: bool) -> str:
        return key if raw and isinstance(key, str) else ""

    def store(self, value: object, read: bool, key: object = diskcache.UNKNOWN) -> tuple[int, int, str | None, object]:
        if not isinstance(value, bytes):
            raise TypeError(f"index values are bytes, not {type(value).__name__}")
        row: tuple[int, int, str | None, object] = super().store(value, read, key)
        return row

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY) or read:
            raise OSError("not a row of bytes")
        if filename is not None and not _VALUE_NAME.fullmatch(filename):
            raise OSError("a row names a file elsewhere")
        found = super().fetch(mode, filename, value, read)
        if not isinstance(found, bytes):
            raise OSError("not a row of bytes")
        return found

    def remove(self, file_path: str) -> None:
        if _VALUE_NAME.fullmatch(file_path):
            super().remove(file_path)


_NOT_SETTINGS = (AttributeError, TypeError, ValueError, LookupError)


class PlainCache(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """A cache of bytes whose damaged settings are what they are: a damaged data base, and no fault of a program."""

    def __init__(self, directory: str, **settings: object) -> None:
        try:
            super().__init__(directory, disk=PlainDisk, **settings)
        except _NOT_SETTINGS as error:
            raise sqlite3.DatabaseError("the settings of a data base are damaged") from error

    @property
    def _con(self) -> Any:
        try:
            return super()._con  # the first use in each thread reads the settings
        except _NOT_SETTINGS as error:
            raise sqlite3.DatabaseError("the settings of a data base are damaged") from error

    def keys_down(self, below: str, least: str, count: int) -> list[str]:
        """Give the `count` largest keys from `least` on that come before `below`, the largest first. diskcache's own
        iteration reads the keys from their end anew for each hundred: 19 ms in a store of 300,000 files."""
        rows = self._sql(
            "SELECT key FROM Cache WHERE key < ? AND key >= ? AND raw = 1 ORDER BY key DESC LIMIT ?",
            (below, least, count),
        )
        return [str(key) for (key,) in rows.fetchall()]


@dataclass(frozen=True, slots=True)
class FileRow:
    """A whole file: `size` in bytes; `good` is the mark of when its bytes were last known good, "" if never."""

    size: int
    good: str
    aliases: tuple[str, ...] = ()


def good_mark(stamp: Stamp, boot: str) -> str:
    """Name the run of the machine and the file's mtime: its bytes are as they were while both are."""
    return f"{boot} {stamp.modified}"


@dataclass(frozen=True, slots=True)
class Total:
    """All whole files together."""

    bytes: int = 0
    files: int = 0


class Index:
    """Rows of files and of their aliases, thread-safe and safe across processes.

    A row may lack its file; a file lacks its row only after the index was lost. Methods raise INDEX_ERRORS.
    """

    def __init__(self, directory: Path) -> None:
        # No policy of diskcache's: culling would drop rows whose files stay, and its least-recently-used writes at
        # each hit.
        self._cache = PlainCache(
            str(directory), timeout=_TIMEOUT, eviction_policy="none", cull_limit=0, sqlite_auto_vacuum=0
        )
        self._texts = False  # never again once it is true
        self._texts_checked = float("-inf")

    def has_texts(self) -> bool:
        """Say whether any file is known by a text MD5 of DVC 2; other processes' files count a second later."""
        now = time.monotonic()
        if not self._texts and now >= self._texts_checked + _TEXTS_SECONDS:
            self._texts = self._read(_TEXTS) is not None
            self._texts_checked = now  # only now: another thread may ask meanwhile
        return self._texts

    def transaction(self) -> AbstractContextManager[None]:
        """Do several changes at once; other processes see all of them or none."""
        found: AbstractContextManager[None] = self._cache.transact()
        return found

    def row(self, md5: str) -> FileRow | None:
        try:
            size, good, *aliases = self._read(f"md5:{md5}") or []
            return FileRow(int(size), str(good), tuple(map(str, aliases)))
        except (ValueError, TypeError, OverflowError):
            return None

    def verified(self, md5: str, stamp: Stamp, boot: str) -> bool:
        """Say whether the file was found right in this run of the machine and not written since.

        A row of another stamp says nothing: DVC may have been writing the file when it was counted.
        """
        row = self.row(md5)
        return row is not None and (row.size, row.good) == (stamp.size, good_mark(stamp, boot))

    def alias(self, name: ContentId, size: int | None) -> str | None:
        """Give the MD5 of the bytes called `name`; a known `size` in bytes must be theirs."""
        found = self._read(f"alias:{name}") or []
        if len(found) != 2 or not re.fullmatch("[0-9a-f]{32}", str(found[0])):
            return None
        return str(found[0]) if size is None or size == found[1] else None

    def alias_size(self, name: ContentId) -> int | None:
        found = self._read(f"alias:{name}") or []
        return found[1] if len(found) == 2 and isinstance(found[1], int) else None

    def record(self, files: Iterable[tuple[str, FileRow]]) -> list[str]:
        """Write rows, joining their aliases with those known, within a transaction; give the MD5s that are new."""
        fresh, grown = [], 0
        for md5, row in files:
            old = self.row(md5)
            if old is None:
                fresh.append(md5)
            grown += row.size - (old.size if old else 0)
            self._record(md5, row, old)
        self._add(grown, len(fresh))
        return fresh

    def remove(self, md5: str) -> None:
        """Drop a file's row and aliases, within a transaction."""
        old = self.row(md5)
        if old is None:
            return
        for name in old.aliases:
            self._cache.delete(f"alias:{name}")
        self._cache.delete(f"md5:{md5}")
        self._add(-old.size, -1)

    def total(self) -> Total:
        found = self._read(_TOTAL) or [0, 0]
        return Total(*found) if len(found) == 2 and all(isinstance(n, int) for n in found) else Total()

    def walk(self) -> Iterator[tuple[str, int]]:
        """Go over all files in the falling order of their MD5s; changes meanwhile do no harm."""
        below = _AFTER_FILES
        while keys := self._cache.keys_down(below, _FILES, _WALKED):
            for key in keys:
                row = self.row(key.removeprefix(_FILES))
                if row is not None:
                    yield key.removeprefix(_FILES), row.size
            below = keys[-1]

    @property
    def counting(self) -> bool:
        """Whether files on the disk may still lack their rows: true until `counted`, also for who opens it next."""
        return self._read(_COUNTING) is not None or not self.total().files

    def count(self) -> None:
        """Note that the files on the disk are being counted."""
        self._write(_COUNTING, [1])

    def counted(self) -> None:
        self._cache.delete(_COUNTING)

    def close(self) -> None:
        self._cache.close()

    def _record(self, md5: str, row: FileRow, old: FileRow | None) -> None:
        known = old.aliases if old is not None else ()
        added = [name for name in row.aliases if name not in known]
        aliases = (*known, *added)
        for name in aliases[:-_ALIASES_MAX]:
            self._cache.delete(f"alias:{name}")
        for name in added:
            self._write(f"alias:{name}", [md5, row.size])
            if name.startswith(f"{TEXT_SCHEME}:") and not self._texts:
                self._write(_TEXTS, [1])
                self._texts = True
        if added or old is None or (old.size, old.good) != (row.size, row.good):
            self._write(f"md5:{md5}", [row.size, row.good, *aliases[-_ALIASES_MAX:]])

    def _add(self, size: int, files: int) -> None:
        if not size and not files:
            return
        total = self.total()
        self._write(_TOTAL, [total.bytes + size, total.files + files])

    def _read(self, key: str) -> list[Any] | None:
        text = self._cache.get(key)
        try:
            found = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, list) else None

    def _write(self, key: str, value: object) -> None:
        self._cache.set(key, json.dumps(value, separators=(",", ":")).encode())
