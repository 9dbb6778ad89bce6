"""Which version of an unversioned object is being read: whatever comes later must be of the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from dagfs.errors import ContentChanged
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.hub.reply import plain_tag
from dagfs.model import Content, ContentId, Versioning, etag_of

KEPT = 65_536
"""Objects whose version is in memory; others are looked up."""


class Notes(Protocol):
    """What outlives the worker: its successor may find a part of an object in the cache, or in the kernel."""

    def get_value(self, name: str) -> bytes | None: ...
    def set_value(self, name: str, value: bytes) -> None: ...


class Versions:
    """The ETag of each object at its first answer, unless its listing told one. Thread-safe; `_lock` is a leaf."""

    def __init__(self, notes: Notes, later: Callable[[Callable[[], None]], object]) -> None:
        """`later` runs what may wait a moment, in another thread."""
        self._notes = notes
        self._later = later
        self._lock = threading.Lock()  # guards _first
        self._first: OrderedDict[ContentId, str] = OrderedDict()  # used last comes last

    def hold(self, content: Content, validator: str | None) -> None:
        """Compare an answer's ETag with that of the version that is read. Raises ContentChanged.

        A hub that tells none is believed: sizes are all that can be compared then.
        """
        tag = plain_tag(validator)
        if content.entry.versioning is not Versioning.BUCKET or not tag:
            return
        if tag != (etag_of(content.entry) or self._known(content.key) or self._begin(content, tag)):
            raise ContentChanged(f"{content.entry.path} has changed since it was listed, or first read")

    def _known(self, key: ContentId) -> str | None:
        with self._lock:
            known = self._first.get(key)
        if known is None:
            stored = self._notes.get_value(_name(key))
            known = None if stored is None else self._remember(key, stored.decode("utf-8", "replace"))
        return known

    def _begin(self, content: Content, tag: str) -> str:
        first = self._remember(content.key, tag)

        def note() -> None:
            self._notes.set_value(_name(content.key), tag.encode())

        if content.size is None or content.size > WHOLE_MAX:
            note()  # before a block of it can lie on the disk
        else:
            self._later(note)
        return first

    def _remember(self, key: ContentId, tag: str) -> str:
        """Give the tag that was there first."""
        with self._lock:
            first = self._first.setdefault(key, tag)
            self._first.move_to_end(key)
            if len(self._first) > KEPT:
                self._first.popitem(last=False)
        return first


def _name(key: ContentId) -> str:
    return f"version/{key.digest}"
