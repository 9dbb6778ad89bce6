"""Values kept beside the files: listings, commits, sizes. diskcache bounds them; a CRC-32 finds what a crash tore."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from dagfs.store.index import INDEX_ERRORS, PlainCache, PlainDisk

_SHARE = 8
_AT_A_TIME = 100  # keys
_AFTER_ALL = "~"  # keys are what `ascii` gives, and begin with a quotation mark
_BYTES_MAX = 1 << 30
"""Bytes: listings of ten million files at 52 bytes each, twice."""


class Values:
    """Named bytes, thread-safe and safe across processes. Errors are misses and dropped writes."""

    def __init__(self, directory: Path, limit: int) -> None:
        # Oldest stored goes first: it needs no write at a read.
        self._cache = PlainCache(
            str(directory),
            eviction_policy="least-recently-stored",
            size_limit=min(_BYTES_MAX, limit // _SHARE),
        )

    def get(self, name: str) -> bytes | None:
        try:
            found = self._cache.get(ascii(name))
        except INDEX_ERRORS:
            return None
        return _checked(found)

    def set(self, name: str, value: bytes) -> None:
        """Keep a value. Raises INDEX_ERRORS."""
        self._cache.set(ascii(name), zlib.crc32(value).to_bytes(4, "big") + value)

    def set_all(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Keep all of some values or none, for the price of little more than one. Raises INDEX_ERRORS."""
        with self._cache.transact():
            for name, value in values:
                self.set(name, value)

    def drop_damaged(self) -> Iterator[str]:
        """Remove the values that are not as they were written, and give their names. Raises INDEX_ERRORS."""
        below = _AFTER_ALL
        while keys := self._cache.keys_down(below, "", _AT_A_TIME):
            for key in keys:
                found = self._cache.get(key)
                if found is not None and _checked(found) is None:  # None: it went meanwhile
                    self._cache.delete(key)
                    yield key[1:-1]
            below = keys[-1]

    def clear(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        self._cache.close()


class FrozenValues:
    """Values on a disk that takes no writes: to open them in the usual way is to write. For one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises INDEX_ERRORS, also when there are none."""
        path = directory / "cache.db"
        # What was closed in good order has an empty log, for which SQLite would want room; what was not is read with
        # its log, or not at all.
        logged = path.with_name("cache.db-wal")
        whole = "" if logged.exists() and logged.stat().st_size else "&immutable=1"
        self._disk = PlainDisk(str(directory))
        self._rows = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{whole}", uri=True, check_same_thread=False)
        try:
            self._rows.execute("SELECT mode, filename, value FROM Cache WHERE key = ''").fetchone()
        except sqlite3.Error:
            self._rows.close()
            raise

    def get(self, name: str) -> bytes | None:
        query = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
        try:
            row = self._rows.execute(query, (ascii(name),)).fetchone()
            if row is None:
                return None
            mode, filename, value = row
            return _checked(self._disk.fetch(mode, filename, value, read=False))
        except INDEX_ERRORS:
            return None

    def close(self) -> None:
        self._rows.close()


def _checked(found: bytes | None) -> bytes | None:
    """Give a value without its checksum, None when it is damaged."""
    if found is None or len(found) < 4 or zlib.crc32(found[4:]) != int.from_bytes(found[:4], "big"):
        return None
    return bytes(found[4:])
