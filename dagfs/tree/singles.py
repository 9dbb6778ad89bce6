"""Paths that are known by themselves: looked up before their directory was listed."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from dagfs.answers import settle, then
from dagfs.errors import NotFound
from dagfs.model import Answer, Entry, Versioning
from dagfs.tree.builder import name_bytes
from dagfs.tree.listing import SLOT_BITS, Place, Single, child, inode_of
from dagfs.tree.listings import Listings, ended
from dagfs.tree.numbers import NumberBook, Recent
from dagfs.tree.remote import Remote, hold_to_path_max
from dagfs.tree.shelf import Shelf
from dagfs.tree.workers import Workers

LIST_AT_LOOKUP = 2
"""The lookup in an unlisted directory that starts its listing: one lookup says nothing, two make a third likely.
When the listing fails, it is tried again at each doubling."""

_KEPT = 65_536  # absent paths, early places and lookup counts held in memory


class Singles:
    """Thread-safe. Lock order: `_lock` is a leaf, for dictionary work only. Workers never wait for promises."""

    def __init__(self, remote: Remote, listings: Listings, shelf: Shelf, book: NumberBook, workers: Workers) -> None:
        self._remote = remote
        self._listings = listings
        self._shelf = shelf
        self._book = book
        self._workers = workers
        self._lock = threading.Lock()
        self._asking: dict[str, Future[Place]] = {}  # path -> exists iff the hub is being asked for it
        self._absent: Recent[str, bool] = Recent(_KEPT)  # the hub said so; the commit never changes
        self._singles: Recent[str, Place] = Recent(_KEPT)
        self._lookups: Recent[str, int] = Recent(_KEPT)  # directory without a listing -> lookups in it

    def place(self, entry: Entry, number: int) -> Place:
        """Give the place of a path that `number` was given for."""
        with self._lock:
            place = self._singles.get(entry.path)
            if place is None:
                place = Place(Single(entry, number << SLOT_BITS, inode_of(entry.path)), 0)
                self._singles.put(entry.path, place)
        return place

    def ask(self, directory: Entry, name: bytes) -> Answer[Place]:
        """Ask the hub for one path; its directory's listing comes behind, when it seems worth it. Raises NotFound."""
        text = name.decode("utf-8", "surrogateescape")
        if name_bytes(text) is None:
            raise NotFound(f"no name of a file: {text[:80]!r}")
        path = f"{directory.path}/{text}" if directory.path else text
        hold_to_path_max(path)
        with self._lock:
            if self._absent.get(path):
                raise NotFound(path)
            known = self._singles.get(path)
            flight = self._asking.get(path)
            if known is None and flight is None:
                future = self._asking[path] = Future()
            lookups = (self._lookups.get(directory.path) or 0) + 1
            self._lookups.put(directory.path, lookups)
        if lookups >= LIST_AT_LOOKUP and lookups & (lookups - 1) == 0:
            self._listings.get(directory, background=True)
        if known is not None:
            return known
        if flight is not None:
            return flight
        self._workers.submit(lambda: self._settle_describe(directory, name, path, future), dropped=ended(future))
        return future

    def _settle_describe(self, directory: Entry, name: bytes, path: str, future: Future[Place]) -> None:
        outcome: Future[Place] = Future()
        settle(outcome, lambda: self._describe(path))
        absent = isinstance(outcome.exception(), NotFound)
        # Only the listing names a submodule; where it is at hand, it was asked before the hub.
        listed = self._listings.of_path(directory.path) is not None
        confirm = absent and directory.versioning is Versioning.GIT and not listed
        with self._lock:
            del self._asking[path]
            if absent and not confirm:
                self._absent.put(path, True)
        if confirm:
            settle(future, lambda: then(self._listings.get(directory), lambda listing: child(listing, name)))
        else:
            settle(future, outcome.result)

    def _describe(self, path: str) -> Place:
        entry = self._shelf.load_entry(path) or self._described(path)
        place = self._listings.known(path)  # the listing may have come meanwhile
        if place is None:
            number = self._book.give(entry, early=True)
            # A listing that came just now has told its own id for this path, or has taken over the early one.
            place = self._listings.known(path) or self.place(entry, number)
        if entry.size is not None and place.entry.size is None:
            self._listings.learn(place, entry.size)  # the listing that came had none
        return place

    def _described(self, path: str) -> Entry:
        entry = self._remote.describe(path)
        self._shelf.save_entry(entry)
        return entry
