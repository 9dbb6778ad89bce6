"""One mount, one commit after another: each request goes to the file system of the commit that its node id names.

A node id has the ordinal of its commit in bits 48 to 63 (`tree.Pinned.ordinal`). Only the root's, which the protocol
fixes, has none: it means the commit that the mount shows now. `root_of` names the root of one commit for good.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from dagfs.answers import settle, then
from dagfs.errors import ContentChanged
from dagfs.model import Answer, Commit, Kind
from dagfs.store.seam import StoredFile
from dagfs.tree.listing import SLOT_BITS
from dagfs.tree.numbers import BOOK_BITS
from dagfs.vfs.seam import ROOT, Attributes, Directory, Figures, FileSystem

log = logging.getLogger(__name__)

T = TypeVar("T")
G = TypeVar("G", bound="Generation")

ORDINAL_SHIFT = SLOT_BITS + BOOK_BITS
_WITHIN = (1 << ORDINAL_SHIFT) - 1

KEPT = 4
"""Earlier commits whose rooms stay in memory. Others are built again from the store when an open file or a working
directory of theirs is used."""


class Ledger(Protocol):
    """Which commits the mount has shown, by ordinal from 1 on; outlives the process that serves."""

    def current(self) -> int: ...

    def commit(self, ordinal: int) -> Commit | None:
        """Give the commit of an ordinal, None when none was ever given it."""

    def add(self, commit: Commit) -> int:
        """Give a commit the next ordinal. Raises Unsupported when there is none left."""

    def select(self, ordinal: int) -> None:
        """Make it the current one: whoever takes over begins with it."""


class Generation(Protocol):
    """The rooms of one commit."""

    @property
    def fs(self) -> FileSystem: ...

    @property
    def lost(self) -> bool:
        """Whether the store has no node id of this commit, so that none may be told any more by its ordinal."""

    def rest(self) -> None:
        """The mount shows another commit from now on."""

    def close(self) -> None: ...


class Generations(Generic[G]):
    """The file system of a mount that changes its commit (`seam.FileSystem`). Thread-safe.

    Lock order: `_lock` before the ledger, and before what `switch` is given to call: messages to the kernel that it
    takes without waiting. They belong under the lock, since no request for the root may be routed between the change
    and the kernel's word of it: a program could see the new commit first, and then a name of the old one that the
    kernel still had.
    """

    def __init__(
        self,
        ledger: Ledger,
        build: Callable[[Commit, int], G],
        run: Callable[[Callable[[], None]], object],
        *,
        takes_over: bool,
    ) -> None:
        """`build` makes the rooms of a commit from what the store has; `run` gets jobs for another thread."""
        self._ledger = ledger
        self._build = build
        self._run = run
        self._lock = threading.Lock()
        self._live: dict[int, G] = {}  # by ordinal, in the order of their making; read without the lock
        self._reviving: dict[int, Future[G]] = {}
        self._ordinal = ledger.current()
        self._current = self._begin(takes_over)
        self._live[self._ordinal] = self._current

    def _begin(self, takes_over: bool) -> G:
        commit = self._known(self._ordinal)
        found = self._build(commit, self._ordinal)
        if takes_over and found.lost:  # `dagfs cache clear`: what the kernel knows of it must be refused
            self._ordinal = self._ledger.add(commit)
            self._ledger.select(self._ordinal)
            found = self._build(commit, self._ordinal)
        return found

    @property
    def current(self) -> G:
        """The rooms of the commit that the mount shows."""
        return self._current

    @property
    def commit(self) -> Commit:
        """The commit that the mount shows."""
        return self._known(self._ordinal)

    def prepare(self, commit: Commit) -> tuple[int, G]:
        """Give a new commit an ordinal and its rooms, which nobody is shown before `switch`."""
        ordinal = self._ledger.add(commit)
        return ordinal, self._build(commit, ordinal)

    def switch(self, ordinal: int, to: G, may: Callable[[], bool], tell: Callable[[], None]) -> bool:
        """Show a prepared commit from now on, unless `may` forbids; `tell` makes the kernel forget names. Neither may
        wait. Gives whether it was done."""
        with self._lock:
            if not may():
                return False
            self._live[ordinal] = to
            old, self._current, self._ordinal = self._current, to, ordinal
            self._ledger.select(ordinal)
            tell()
            dropped = self._dropped()
        _put_away(old.rest, *(one.close for one in dropped))
        return True

    def admit(self, node: int, note: Callable[[], None]) -> bool:
        """Call `note` if the node is of the commit that the mount shows, so that no `switch` comes between."""
        with self._lock:
            if node != ROOT and node >> ORDINAL_SHIFT != self._ordinal:
                return False
            note()
            return True

    def root_of(self, node: int) -> int:
        """Give a node id that stands for the root of the commit shown now, whatever is shown later; 0 for others."""
        if node != ROOT:
            return 0
        with self._lock:
            return self._ordinal << ORDINAL_SHIFT | ROOT

    def at_hand(self) -> list[G]:
        """Give the rooms in memory."""
        with self._lock:
            return list(self._live.values())

    def close(self) -> None:
        """Close the rooms of every commit."""
        for one in self.at_hand():
            one.close()

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        return self._ask(parent, lambda fs, node: fs.lookup(node, name))

    def getattr(self, node: int) -> Answer[Attributes]:
        return self._ask(node, lambda fs, node: fs.getattr(node))

    def readdir(self, node: int) -> Answer[Directory]:
        lasting = self.root_of(node) or node

        def ask(fs: FileSystem, within: int) -> Answer[Directory]:
            answer = fs.readdir(within)
            return then(answer, lambda found: RootView(found, lasting)) if within == ROOT else answer

        return self._ask(lasting, ask)

    def read(self, node: int, offset: int, size: int) -> Answer[bytes]:
        return self._ask(node, lambda fs, node: fs.read(node, offset, size))

    def whole(self, node: int) -> Answer[StoredFile | None]:
        return self._ask(node, lambda fs, node: fs.whole(node))

    def readlink(self, node: int) -> Answer[bytes]:
        return self._ask(node, lambda fs, node: fs.readlink(node))

    def getxattr(self, node: int, name: bytes) -> Answer[bytes | None]:
        return self._ask(node, lambda fs, node: fs.getxattr(node, name))

    def listxattr(self, node: int) -> Sequence[bytes]:
        found = self._at_hand(node)
        return (found or self._current).fs.listxattr(_within(node))

    def statfs(self) -> Figures:
        return self._current.fs.statfs()

    def path(self, node: int) -> str:
        found = self._at_hand(node)
        return f"node {node}" if found is None else found.fs.path(_within(node))

    def failed(self, node: int, operation: str, error: BaseException) -> None:
        found = self._at_hand(node)
        (found or self._current).fs.failed(_within(node), operation, error)

    def _ask(self, node: int, ask: Callable[[FileSystem, int], Answer[T]]) -> Answer[T]:
        found = self._at_hand(node)
        if found is not None:
            return ask(found.fs, _within(node))
        return then(self._revive(node >> ORDINAL_SHIFT), lambda found: ask(found.fs, _within(node)))

    def _at_hand(self, node: int) -> G | None:
        if node == ROOT:
            with self._lock:
                return self._current
        return self._live.get(node >> ORDINAL_SHIFT)

    def _revive(self, ordinal: int) -> Answer[G]:
        """Build the rooms of an earlier commit again. Raises ContentChanged when nothing is known of it."""
        with self._lock:
            flight = self._reviving.get(ordinal)
            if flight is not None:
                return flight
            future = self._reviving[ordinal] = Future()
        self._run(lambda: self._settle_revived(ordinal, future))
        return future

    def _settle_revived(self, ordinal: int, future: Future[G]) -> None:
        outcome: Future[G] = Future()
        settle(outcome, lambda: self._rebuilt(ordinal))
        with self._lock:
            del self._reviving[ordinal]
            if outcome.exception() is None:
                self._live.setdefault(ordinal, outcome.result())
            dropped = self._dropped()
        _put_away(*(one.close for one in dropped))
        settle(future, outcome.result)

    def _rebuilt(self, ordinal: int) -> G:
        found = self._live.get(ordinal)
        if found is not None:
            return found
        found = self._build(self._known(ordinal), ordinal)
        if found.lost:
            raise ContentChanged(f"the store has lost what it knew of commit {self._known(ordinal).sha[:12]}")
        found.rest()
        return found

    def _known(self, ordinal: int) -> Commit:
        commit = self._ledger.commit(ordinal)
        if commit is None:
            raise ContentChanged(f"this mount has shown no commit {ordinal}")
        return commit

    def _dropped(self) -> list[G]:
        """With the lock held: take out the oldest rooms above KEPT."""
        old = [ordinal for ordinal in self._live if ordinal != self._ordinal]
        return [self._live.pop(ordinal) for ordinal in old[: max(0, len(old) - KEPT)]]


class RootView:
    """The root's listing in one commit (`seam.Directory`), without the attributes of its rows.

    The kernel takes names that come with attributes as of the moment when it reads the reply, not of its question: one
    that it read late would outlive the commit. So it has to look each name up.
    """

    def __init__(self, view: Directory, node: int) -> None:
        self._view = view
        self.node = node
        self.inode = view.inode
        self.parent_inode = view.parent_inode

    @property
    def sizes_known(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._view)

    def rows(self, start: int, count: int) -> Sequence[tuple[bytes, int, Kind]]:
        return self._view.rows(start, count)

    def attributes(self, _position: int) -> Attributes | None:
        return None


def _put_away(*actions: Callable[[], None]) -> None:
    """Do what saves memory and stores what was learnt; the mount goes on if that fails."""
    for action in actions:
        try:
            action()
        except Exception:
            log.exception("the rooms of an earlier commit could not be put away")


def _within(node: int) -> int:
    """Give the id that the rooms of the commit know: `root_of`'s is theirs for the root."""
    return ROOT if node & _WITHIN == ROOT else node
