"""Values kept beside the files: listings, commits, sizes. diskcache bounds them; a CRC-32 finds what a crash tore."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from dagfs.store.index import INDEX_ERRORS, PlainCache

_SHARE = 8
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
        if found is None or len(found) < 4 or zlib.crc32(found[4:]) != int.from_bytes(found[:4], "big"):
            return None
        return bytes(found[4:])

    def set(self, name: str, value: bytes) -> None:
        """Keep a value. Raises INDEX_ERRORS."""
        self._cache.set(ascii(name), zlib.crc32(value).to_bytes(4, "big") + value)

    def set_all(self, values: Mapping[str, bytes]) -> None:
        """Keep several at once, for the price of little more than one. Raises INDEX_ERRORS."""
        with self._cache.transact():
            for name, value in values.items():
                self.set(name, value)

    def clear(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        self._cache.close()
