"""The paths of one commit, found lazily: one path when one is asked for, a directory when it is listed."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby

from dagfs.answers import settle, then, wait
from dagfs.errors import ContentChanged, DagfsError, NotADirectory, RemoteUnavailable, Stalled
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import STORAGES, Answer, Commit, Content, Entry, Kind, RepoRef, Versioning, content_of, in_storages
from dagfs.tree.listing import ROOT_NODE, SLOT_BITS, Listing, Place, Single, child, inode_of
from dagfs.tree.listings import Listings
from dagfs.tree.manifests import Keep, Manifests
from dagfs.tree.numbers import BOOK_BITS, NumberBook, Values
from dagfs.tree.refused import Refused
from dagfs.tree.remote import Remote
from dagfs.tree.shelf import Shelf, Shelves
from dagfs.tree.singles import Singles
from dagfs.tree.walk import WalkAhead
from dagfs.tree.workers import Workers

log = logging.getLogger(__name__)

_STORAGES = STORAGES.encode()


@dataclass(frozen=True, slots=True)
class Pinned:
    """What is mounted. `root_path`: the directory of the repository that is the mount's root, "" for all of it.
    `mount`: tells the node ids of mounts that share a store apart; the same after a restart of one mount's worker.
    `ordinal`: stands in bits 48 to 63 of every node id but the root's, where a mount shows one commit after another;
    0 where it shows one only. `snapshot`: names what the mount sees of buckets: the same for all its commits and
    workers. `offline`: what it has not listed of them is as the last mount saw it."""

    repo: RepoRef
    commit: Commit
    root_path: str = ""
    mount: str = ""
    ordinal: int = 0
    snapshot: str = ""
    offline: bool = False


class Tree:
    """Thread-safe; answers at once from what is known, else by a promise that a worker keeps."""

    def __init__(  # noqa: PLR0913, PLR0917 -- the rooms below it
        self,
        source: Source,
        pinned: Pinned,
        values: Values,
        workers: Workers,
        metrics: Metrics,
        ledger: Values | None = None,
    ) -> None:
        """`values` may lose what it has; `ledger` keeps the node ids for as long as a kernel may remember them."""
        self.pinned = pinned
        self._metrics = metrics
        self._remote = Remote(source, pinned.commit, pinned.root_path, pinned.snapshot, metrics)
        self._root = Place(Single(_directory(pinned.root_path), ROOT_NODE, ROOT_NODE), 0)
        name = f"tree/{pinned.repo}/{pinned.commit.sha}"
        self._book = _book(values if ledger is None else ledger, f"{name}/numbers/{pinned.mount}", pinned.ordinal)
        shelves = Shelves(name, f"buckets/{pinned.repo}", pinned.snapshot, pinned.offline)
        shelf = Shelf(values, shelves, ledger)
        self._listings = Listings(self._remote.columns, shelf, self._book, workers)
        self._remote.shelve = self._listings.shelve
        self._singles = Singles(self._remote, self._listings, shelf, self._book, workers)
        self._walks = WalkAhead()
        self.refused = Refused()

    def keep_manifests(self, keep: Keep) -> None:
        """Have `keep` given the manifest of each DVC directory that is listed, or part of which is."""

        def fetch(directory: Entry) -> None:
            self._listings.get(directory, background=True)

        self._listings.adopted = Manifests(self._listings.of_path, fetch, keep).listed

    @property
    def unnumbered(self) -> bool:
        """Whether no node id is known: nobody has been told any, or the store has lost them."""
        return self._book.empty

    def prepare(self) -> None:
        """List the root, blocking. Raises NotADirectory, NotFound, AccessDenied, RemoteError."""
        directory = self._root.entry
        future: Future[Listing] = Future()
        settle(future, lambda: self._listings.get(directory))
        self._listings.call_by(ROOT_NODE, future.result())

    def prepare_like(self, other: Tree, most: int) -> None:
        """List what `other` has at hand, as far as it is there; blocking. At most `most` directories, those nearest to
        the root.

        Raises RemoteUnavailable, Stalled: a later try may do better. A directory that cannot be listed for another
        reason is left for who asks for it.
        """
        wanted = sorted(other._listings.held(), key=lambda listing: listing.directory.path.count("/"))
        for _, level in groupby(wanted[:most], key=lambda listing: listing.directory.path.count("/")):
            for asked in [self._listed_as(listing) for listing in level]:
                try:
                    wait(asked)
                except (RemoteUnavailable, Stalled):
                    raise
                except DagfsError as error:
                    log.info("not listed ahead: %s", error)

    def rest(self, listings_bytes: int) -> None:
        """Keep little in memory from now on: few programs will ask."""
        self._listings.shrink(listings_bytes)

    def close(self) -> None:
        """Store what has been learnt; the workers belong to who made them."""
        self._listings.close()

    def lookup(self, parent: int, name: bytes) -> Answer[Place]:
        """Find a child of a directory. Raises NotFound, NotADirectory."""
        listing = self._listings.of_node(parent)
        if listing is not None:
            return self._child(listing, name)
        return then(self.place(parent), lambda place: self._lookup_in(place, name))

    def place(self, node: int) -> Answer[Place]:
        """Find a path by its node id. Raises ContentChanged for an id that this mount has never given."""
        number, slot = node >> SLOT_BITS, node & ((1 << SLOT_BITS) - 1)
        listing = self._listings.of_number(number)
        if listing is not None and 0 < slot <= len(listing):
            return Place(listing, slot - 1)
        if node == ROOT_NODE:
            return self._root
        record = self._book.record(number)
        if record is None:
            raise ContentChanged(f"node {node} belongs to no path of this mount")
        if slot == 0:
            return self.known(record.entry.path) or self._singles.place(record.entry, number)
        return then(self._listings.get(record.entry), lambda found: _row(found, slot - 1))

    def path(self, node: int) -> str:
        """Give the path of a node for messages, "node N" when it is not in memory."""
        number, slot = node >> SLOT_BITS, node & ((1 << SLOT_BITS) - 1)
        listing = self._listings.of_number(number)
        if listing is not None and 0 < slot <= len(listing):
            return listing.path(slot - 1)
        if node == ROOT_NODE:
            return self.pinned.root_path or "/"
        record = self._book.record(number) if slot == 0 else None
        return f"node {node}" if record is None else record.entry.path

    def listing(self, place: Place, *, sized: bool = False) -> Answer[Listing]:
        """List a directory, with the sizes that the hub knows if `sized`. Raises NotADirectory."""
        entry = _as_directory(place)
        node = place.node
        return then(self._listings.get(entry, sized=sized), lambda listing: self._named(node, listing))

    def sized(self, directory: Entry) -> Answer[Listing]:
        """List a directory with all sizes that the hub knows: one request, however many ask."""
        return self._listings.get(directory, sized=True)

    def hub_fails(self) -> bool:
        """Say whether the hub gives no answers now."""
        return self._remote.failing()

    def content(self, place: Place) -> Content:
        """Give the identity of a file's bytes."""
        return content_of(self.pinned.repo, self.pinned.commit, place.entry)

    def known(self, path: str) -> Place | None:
        """Find a path of the repository in the listings at hand, without disk or network."""
        return self._listings.known(path)

    def listing_of(self, path: str) -> Listing | None:
        """Give the listing of a directory of the repository if it is at hand."""
        return self._listings.of_path(path)

    def listed(self, place: Place) -> Listing | None:
        """Give a directory's listing if it is at hand."""
        return self._listings.of_node(place.node) or self._listings.of_path(place.entry.path)

    def learn(self, place: Place, size: int) -> None:
        """Keep a file's size, in bytes, that was found out elsewhere."""
        self._listings.learn(place, size)

    def parent_inode(self, place: Place) -> int:
        """Give st_ino of the directory that a path other than the root lies in."""
        directory = place.entry.path.rpartition("/")[0]
        return ROOT_NODE if directory == self.pinned.root_path else inode_of(directory)

    def figures(self) -> tuple[int, int]:
        """Count the paths in the listings at hand, and the bytes of those whose size is known."""
        return self._listings.figures()

    def reveal_directory(self, place: Place) -> None:
        """Note that a path listed as a file is none: a submodule, which is shown as an empty directory."""
        place.rows.reveal_directory(place.position)
        if isinstance(place.rows, Listing):
            self._listings.save_columns(place.rows)

    def walked(self, directory: Entry, *, sized: bool) -> None:
        """Told whenever a program lists a directory: lists ahead the next siblings of a walk."""
        here = self.known(directory.path) if directory.path != self.pinned.root_path else None
        if here is None or not isinstance(here.rows, Listing):
            return
        parent = here.rows
        ordinal = parent.columns.directories_before(here.position)
        count = self._walks.visited(parent.directory.path, ordinal)
        for position in parent.columns.directories_after(here.position, count):
            sibling = parent.entry(position)
            if in_storages(sibling.path) and not in_storages(parent.directory.path):
                continue  # nobody has looked there
            self._metrics.add("tree.listed_ahead")
            self._listings.get(sibling, sized=sized, background=True)

    def hidden(self) -> tuple[int, list[str]]:
        """Count the names that no file system can show, in the listings at hand, and give some of them."""
        return self._listings.hidden()

    def _listed_as(self, listing: Listing) -> Answer[Listing | None]:
        """List a directory in the way that another tree has; None where this one has no such directory at hand."""
        path = listing.directory.path
        place = self._root if path == self.pinned.root_path else self.known(path)
        if place is None or place.kind is not Kind.DIRECTORY:
            return None
        listed = self._listings.get(place.entry, sized=listing.asked_sizes, background=True)
        return then(listed, lambda found: found)

    def _lookup_in(self, place: Place, name: bytes) -> Answer[Place]:
        directory = _as_directory(place)
        node = place.node

        def step(listing: Listing | None) -> Answer[Place]:
            if listing is not None:
                return self._child(self._named(node, listing), name)
            return self._singles.ask(directory, name)

        return then(self._listings.recall(directory), step)

    def _child(self, listing: Listing, name: bytes) -> Answer[Place]:
        """Find a name in a listing, or what is there without being listed: the connected buckets, by their own name."""
        if name != _STORAGES or listing.directory.path or listing.find(name) >= 0:
            return child(listing, name)
        return self._singles.ask(listing.directory, name)

    def _named(self, node: int, listing: Listing) -> Listing:
        self._listings.call_by(node, listing)
        return listing


def _book(values: Values, name: str, ordinal: int) -> NumberBook:
    if not ordinal:
        return NumberBook(values, name)
    return NumberBook(values, name, new_origin=lambda: ordinal << BOOK_BITS, limit=1 << BOOK_BITS)


def _directory(path: str) -> Entry:
    return Entry(path, Kind.DIRECTORY, Versioning.BUCKET if in_storages(path) else Versioning.GIT)


def _as_directory(place: Place) -> Entry:
    entry = place.entry
    if entry.kind is not Kind.DIRECTORY:
        raise NotADirectory(entry.path)
    return entry


def _row(listing: Listing, position: int) -> Place:
    if position >= len(listing):
        raise ContentChanged(f"{listing.directory.path}: no row {position}")
    return Place(listing, position)
