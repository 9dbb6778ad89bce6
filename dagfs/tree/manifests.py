"""The manifests that DVC keeps of its directories, made again from their listings: without one, DVC checks out nothing.

DVC's own form, proved by the directory's hash: a JSON array of md5 and relpath, in the order of relpath.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator

from dagfs.model import Entry, Kind
from dagfs.tree.listing import Listing

log = logging.getLogger(__name__)

_PIECE_ROWS = 4096

Keep = Callable[[str, Iterable[bytes]], bool]
"""Take a manifest by its MD5 in hex; False when its bytes have another, or cannot be kept."""


class Manifests:
    """Has all of a DVC directory listed when one in it is, and makes its manifest of the last that comes. Called by
    several workers; `_lock` is a leaf."""

    def __init__(self, held: Callable[[str], Listing | None], fetch: Callable[[Entry], object], keep: Keep) -> None:
        """`fetch`: list a directory soon."""
        self._held = held
        self._fetch = fetch
        self._keep = keep
        self._lock = threading.Lock()  # guards the two below
        self._asked: set[str] = set()  # directories, by path
        self._done: set[str] = set()  # MD5s made, or tried in vain

    def listed(self, listing: Listing) -> None:
        top = self._top(listing.directory)
        if top is None:
            return
        below, missing = self._below(top)
        with self._lock:
            unasked = [entry for entry in missing if entry.path not in self._asked]
            self._asked.update(entry.path for entry in unasked)
        for entry in unasked:
            self._fetch(entry)
        if missing:
            return
        md5 = top.hash.removesuffix(".dir")
        with self._lock:
            if md5 in self._done:
                return
            self._done.add(md5)
        if not self._keep(md5, _json(_rows(top.path, below))):
            log.info("%s: its manifest could not be made from its listing", top.path)

    def _top(self, directory: Entry) -> Entry | None:
        """Give the directory that DVC tracks and this one lies in."""
        while not directory.hash.endswith(".dir"):
            parent = self._held(directory.path.rpartition("/")[0]) if directory.path else None
            if parent is None:
                return None
            directory = parent.directory
        return directory

    def _below(self, top: Entry) -> tuple[list[Listing], list[Entry]]:
        """Give the listings of a directory and of those below it, and the directories whose listing is missing."""
        found: list[Listing] = []
        missing: list[Entry] = []
        directories = [top]
        while directories:
            directory = directories.pop()
            listing = self._held(directory.path)
            if listing is None:
                missing.append(directory)
                continue
            found.append(listing)
            directories += [listing.entry(row) for row in listing.columns.directories_after(-1, len(listing))]
        return found, missing


def _rows(top: str, listings: list[Listing]) -> Iterator[tuple[str, str]]:
    """Give MD5 and relpath of each file, in DVC's order. A listing's own is the same, so half a million files of one
    directory need no sorting."""
    cut = len(top) + 1
    files = (
        (listing.path(row)[cut:], listing, row)
        for listing in listings
        for row in range(len(listing))
        if listing.kind(row) is not Kind.DIRECTORY
    )
    for path, listing, row in files if len(listings) == 1 else sorted(files, key=lambda file: file[0]):
        yield listing.columns.hash(row), path


def _json(rows: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """Write as Python's json does, in pieces."""
    pieces, before = [], "["
    for md5, path in rows:
        pieces.append(f'{before}{{"md5": {json.dumps(md5)}, "relpath": {json.dumps(path)}}}')
        before = ", "
        if len(pieces) >= _PIECE_ROWS:
            yield "".join(pieces).encode()
            pieces.clear()
    yield "".join(pieces).encode() + (b"]" if before != "[" else b"[]")
