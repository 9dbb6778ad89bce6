"""The listings of a commit: in memory within a bound, on disk for good, from the hub once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from dagfs.answers import settle
from dagfs.errors import RemoteUnavailable
from dagfs.model import Answer, Entry, in_a_bucket
from dagfs.tree.builder import name_bytes
from dagfs.tree.columns import Columns
from dagfs.tree.listing import SLOT_BITS, Listing, Place
from dagfs.tree.numbers import NumberBook, Recent
from dagfs.tree.shelf import Shelf
from dagfs.tree.workers import Job, Workers

T = TypeVar("T")

MEMORY_BYTES = 128 << 20
"""Listings held in memory: two directories of a million files. Others come back from disk in some milliseconds."""

_OBJECT_BYTES = 2048  # a Listing without its columns
_ABSENT_KEPT = 65_536  # directories known not to lie on disk

Download = Callable[[Entry, bool], Columns]
"""Fetch a directory's listing from the hub, with sizes or without; blocks, raises DagfsError."""


@dataclass(eq=False)
class _Flight:
    """A listing on its way. `job` is set right after the flight is made, by whoever made it."""

    future: Future[Listing] = field(default_factory=Future)
    job: Job | None = None


class Listings:
    """Lock order: `_lock` before the book's. It is held for dictionary work only; the workers do downloads and disk."""

    def __init__(self, download: Download, shelf: Shelf, book: NumberBook, workers: Workers) -> None:
        self._download = download
        self._shelf = shelf
        self._book = book
        self._workers = workers
        self.memory_bytes = MEMORY_BYTES
        self.adopted: Callable[[Listing], None] = lambda listing: None  # told, in a worker, of each that has come
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Listing] = OrderedDict()  # by path, oldest first
        self._numbered: dict[int, Listing] = {}  # the same listings, by number
        self._nodes: dict[int, Listing] = {}  # node id of a directory -> its listing; only of listings in _held
        self._aliases: dict[str, set[int]] = {}  # the keys that a path has in _nodes
        self._cost = 0  # bytes of what is held
        self._flights: dict[tuple[str, bool], _Flight] = {}  # (path, sized): exists iff the listing is on its way
        self._recalls: dict[str, Future[Listing | None]] = {}
        self._not_on_disk: Recent[str, bool] = Recent(_ABSENT_KEPT)

    def of_node(self, node: int) -> Listing | None:
        """Give the listing of a directory by its node id, if it is at hand. Takes no lock."""
        listing = self._nodes.get(node)
        if listing is not None:
            listing.used = True
        return listing

    def of_number(self, number: int) -> Listing | None:
        return self._numbered.get(number)

    def of_path(self, path: str) -> Listing | None:
        with self._lock:
            return self._held.get(path)

    def known(self, path: str) -> Place | None:
        """Find a path in the listings at hand, without disk or network."""
        directory, _, name = path.rpartition("/")
        listing = self.of_path(directory)
        raw = name_bytes(name)
        position = -1 if listing is None or raw is None else listing.find(raw)
        return None if listing is None or position < 0 else Place(listing, position)

    def learn(self, place: Place, size: int) -> None:
        """Keep a file's size, in bytes, that was found out elsewhere."""
        place.rows.learn(place.position, size)
        if isinstance(place.rows, Listing):
            self.save(place.rows)

    def call_by(self, node: int, listing: Listing) -> None:
        """Let `of_node` find the listing by this id of its directory."""
        path = listing.directory.path
        with self._lock:
            if self._held.get(path) is listing:
                self._nodes[node] = listing
                self._aliases.setdefault(path, set()).add(node)

    def get(self, directory: Entry, *, sized: bool = False, background: bool = False) -> Answer[Listing]:
        """Give a directory's listing, with all sizes that the hub knows if `sized`. One request, however many ask."""
        path = directory.path
        sized = sized or in_a_bucket(path)  # where sizes come along
        with self._lock:
            held = self._held.get(path)
            if held is not None and (held.asked_sizes or not sized):
                return held
            flight = self._flights.get((path, True)) or self._flights.get((path, sized))
            fresh = flight is None
            if flight is None:
                flight = self._flights[(path, sized)] = _Flight()
        if fresh:
            flight.job = self._workers.submit(
                lambda: self._fly(directory, sized, flight), background=background, dropped=ended(flight.future)
            )
        elif flight.job is not None and not background:
            self._workers.promote(flight.job)
        return flight.future

    def recall(self, directory: Entry) -> Answer[Listing | None]:
        """Give a directory's listing from memory or disk; None when it has never been fetched. Asks no hub."""
        path = directory.path
        with self._lock:
            held = self._held.get(path)
            if held is not None or self._not_on_disk.get(path):
                return held
            future = self._recalls.get(path)
            if future is not None:
                return future
            future = self._recalls[path] = Future()
        self._workers.submit(lambda: self._settle_recall(directory, future), dropped=ended(future))
        return future

    def save(self, listing: Listing, *, at_once: bool = False) -> None:
        """Store the sizes learnt when enough of them have come, or enough time has passed."""
        now = time.monotonic()
        pause = 5 + len(listing) / 10_000  # seconds; the column of half a million sizes is 4 MB
        if listing.learnt and (at_once or now - listing.saved_at > pause):
            listing.learnt, listing.saved_at = 0, now
            if at_once:
                self._shelf.save_sizes(listing)
            else:
                self._workers.submit(lambda: self._shelf.save_sizes(listing), background=True)

    def save_columns(self, listing: Listing) -> None:
        """Store a listing whose rows turned out otherwise."""
        self._workers.submit(lambda: self._shelf.save(listing.directory.path, listing.columns), background=True)

    def shelve(self, path: str, columns: Columns) -> None:
        """Store a listing that nobody has asked for, unless there is one: node ids are places in it."""
        with self._lock:
            known = path in self._held or (path, False) in self._flights or (path, True) in self._flights
        if not known and self._shelf.load(path) is None:
            self._shelf.save(path, columns)
            with self._lock:
                self._not_on_disk.pop(path)

    def close(self) -> None:
        for listing in self.held():
            self.save(listing, at_once=True)

    def held(self) -> list[Listing]:
        """Give the listings at hand."""
        with self._lock:
            return list(self._held.values())

    def shrink(self, limit: int) -> None:
        """Hold no more than `limit` bytes from now on."""
        with self._lock:
            self.memory_bytes = limit
            evicted = self._shrink(None)
        for old in evicted:
            self.save(old, at_once=True)

    def figures(self) -> tuple[int, int]:
        """Count rows of the listings at hand, and the bytes of the sizes that they know."""
        held = self.held()
        return sum(len(listing) for listing in held), sum(listing.bytes_known for listing in held)

    def hidden(self) -> tuple[int, list[str]]:
        """Count the names that no file system can show, in the listings at hand, and give some of them."""
        held = self.held()
        names = [name for listing in held for name in listing.columns.hidden_names]
        return sum(listing.columns.hidden for listing in held), names[:100]

    def _fly(self, directory: Entry, sized: bool, flight: _Flight) -> None:
        outcome: Future[Listing] = Future()
        settle(outcome, lambda: self._load(directory, sized))
        with self._lock:  # before anybody is told: who asks after a failure starts anew
            del self._flights[(directory.path, sized)]
        settle(flight.future, outcome.result)

    def _load(self, directory: Entry, sized: bool) -> Listing:
        listing = self._recalled(directory)
        if listing is None:
            columns = self._download(directory, sized)
            self._shelf.hold(directory.path, columns)
            listing = self._adopt(directory, columns, sized)
            if listing.columns is columns:  # else rows that came first are held: what is stored must have their order
                self._shelf.save(directory.path, columns)
        if sized and not listing.asked_sizes:
            more = self._download(directory, True)
            self._shelf.hold(directory.path, more)
            listing.absorb(more)
        if sized:
            self._shelf.save_sizes(listing)
        return listing

    def _settle_recall(self, directory: Entry, future: Future[Listing | None]) -> None:
        outcome: Future[Listing | None] = Future()
        settle(outcome, lambda: self._recalled(directory))
        with self._lock:
            del self._recalls[directory.path]
        settle(future, outcome.result)

    def _recalled(self, directory: Entry) -> Listing | None:
        held = self._held.get(directory.path)
        if held is not None:
            return held
        stored = self._shelf.load(directory.path)
        if stored is None:
            with self._lock:
                self._not_on_disk.put(directory.path, True)
            return None
        columns, complete = stored
        return self._adopt(directory, columns, complete)

    def _adopt(self, directory: Entry, columns: Columns, asked_sizes: bool) -> Listing:
        listing = Listing(directory, self._book.give(directory, early=False), columns)
        listing.asked_sizes = asked_sizes
        listing.saved_at = time.monotonic()
        with self._lock:
            held = self._held.get(directory.path)
            if held is None:
                self._keep_early_nodes(listing)
                self._held[directory.path] = self._numbered[listing.number] = listing
                self._not_on_disk.pop(directory.path)
                self._cost += _cost(listing)
            evicted = self._shrink(listing)
        if held is not None:
            held.absorb(columns) if asked_sizes else None
            return held
        for old in evicted:
            self.save(old, at_once=True)
        self.adopted(listing)
        return listing

    def _keep_early_nodes(self, listing: Listing) -> None:
        """Under `_lock`: an early id is told only by who sees, under it, that the listing is not held yet."""
        for name, number in self._book.early_children(listing.directory.path).items():
            position = listing.find(name.encode("utf-8", "surrogateescape"))
            if position >= 0:
                listing.early[position] = number << SLOT_BITS

    def _shrink(self, newest: Listing | None) -> list[Listing]:
        """Take out listings until the rest fits; those used since the last sweep get one more round."""
        evicted: list[Listing] = []
        chances = len(self._held)
        while self._cost > self.memory_bytes and len(self._held) > 1:
            path, listing = next(iter(self._held.items()))
            if listing is newest or (listing.used and chances > 0):
                listing.used = False
                chances -= 1
                self._held.move_to_end(path)
                continue
            del self._held[path], self._numbered[listing.number]
            for node in self._aliases.pop(path, ()):
                del self._nodes[node]
            self._cost -= _cost(listing)
            evicted.append(listing)
        return evicted


def ended(future: Future[T]) -> Callable[[], None]:
    """Give what to do with a promise when the workers end before it is kept."""
    return lambda: future.set_exception(RemoteUnavailable("the mount is ending"))


def _cost(listing: Listing) -> int:
    return listing.columns.cost + _OBJECT_BYTES
