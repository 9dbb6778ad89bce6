"""Extended attributes: what dagfs knows of a path, for people and scripts to ask."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dagfs.errors import NotADirectory, NotFound
from dagfs.model import Versioning, etag_of
from dagfs.tree.listing import Place
from dagfs.tree.numbers import Recent

PREFIX = b"user.dagfs."

_ERROR = PREFIX + b"error"
_OF_NAME = _ERROR + b"."
"""With a name behind it, an attribute of a directory: why that name could not be looked up."""

_NAME_BYTES = 255 - len(_OF_NAME)  # what the kernel takes of an attribute's name

_FAILURES_KEPT = 1024
_NAMES_LISTED = 100
_FAILURE_BYTES = 1024


class Failures:
    """The last failure of each path, as text, and of names that led to none; the oldest are forgotten. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: Recent[int, bytes] = Recent(_FAILURES_KEPT)
        self._names: Recent[tuple[int, bytes], bytes] = Recent(_FAILURES_KEPT)  # of directory and name

    def put(self, node: int, text: str) -> None:
        with self._lock:
            self._texts.put(node, _cut(text))

    def put_name(self, directory: int, name: bytes, text: str) -> None:
        with self._lock:
            self._names.put((directory, name), _cut(text))

    def of_name(self, directory: int, name: bytes) -> bytes | None:
        with self._lock:
            return self._names.get((directory, name))

    def names(self, directory: int) -> list[bytes]:
        """Give the names in a directory that could not be looked up, the last ones."""
        with self._lock:
            found = [name for node, name in self._names if node == directory]
        return [name for name in found if len(name) <= _NAME_BYTES][-_NAMES_LISTED:]

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
            _ERROR: lambda place: self.failures.get(place.node),
        }

    def get(self, place: Place, name: bytes) -> bytes | None:
        """Give a value, None when the path has no such attribute."""
        if name.startswith(_OF_NAME):
            return self.failures.of_name(place.node, name[len(_OF_NAME) :])
        value = self._values.get(name)
        return None if value is None else value(place)

    def not_found(self, directory: int, name: bytes, error: BaseException | None) -> None:
        """Note why a look-up failed, if it did, and not because there is no such name."""
        if error is not None and not isinstance(error, (NotFound, NotADirectory)):
            self.failures.put_name(directory, name, f"lookup: {error}")

    def names(self, node: int) -> list[bytes]:
        """Give the attributes of a path; `.error`, and `.error.NAME` of a directory, are there only after a failure."""
        failed = self.failures.get(node) is not None
        own = [name for name in self._values if failed or name != _ERROR]
        return own + [_OF_NAME + name for name in self.failures.names(node)]


def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_FAILURE_BYTES]


def _hash(place: Place) -> str:
    entry = place.entry
    return etag_of(entry) if entry.versioning is Versioning.BUCKET else entry.hash
