"""Extended attributes: what dagfs knows of a path, for people and scripts to ask."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dagfs.model import Versioning, etag_of
from dagfs.tree.listing import Place
from dagfs.tree.numbers import Recent

PREFIX = b"user.dagfs."

_FAILURES_KEPT = 1024
_FAILURE_BYTES = 1024


class Failures:
    """The last failure of each path, as text; the oldest are forgotten. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: Recent[int, bytes] = Recent(_FAILURES_KEPT)

    def put(self, node: int, text: str) -> None:
        with self._lock:
            self._texts.put(node, text.encode("utf-8", "replace")[:_FAILURE_BYTES])

    def get(self, node: int) -> bytes | None:
        with self._lock:
            return self._texts.get(node)


class Marks:
    """The values of `user.dagfs.*`. `cached`: whether the path's bytes, or its listing, are here."""

    def __init__(self, commit: str, cached: Callable[[Place], bool]) -> None:
        self._commit = commit.encode()
        self.failures = Failures()
        self._values: dict[bytes, Callable[[Place], bytes | None]] = {
            PREFIX + b"commit": lambda _: self._commit,
            PREFIX + b"hash": lambda place: _hash(place).encode("utf-8", "replace"),
            PREFIX + b"versioning": lambda place: place.entry.versioning.name.lower().encode(),
            PREFIX + b"cached": lambda place: b"1" if cached(place) else b"0",
            PREFIX + b"error": lambda place: self.failures.get(place.node),
        }

    def get(self, place: Place, name: bytes) -> bytes | None:
        """Give a value, None when the path has no such attribute."""
        value = self._values.get(name)
        return None if value is None else value(place)

    def names(self, node: int) -> list[bytes]:
        """Give the attributes of a path; `.error` is there only after a failure."""
        failed = self.failures.get(node) is not None
        return [name for name in self._values if failed or name != PREFIX + b"error"]


def _hash(place: Place) -> str:
    entry = place.entry
    return etag_of(entry) if entry.versioning is Versioning.BUCKET else entry.hash
