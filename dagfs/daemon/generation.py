"""The rooms of one commit, and what is done before a mount shows another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from dagfs.errors import NotADirectory, NotFound, UnknownRevision
from dagfs.model import Commit
from dagfs.repository.core import Rooms
from dagfs.tree.tree import Tree
from dagfs.vfs.generations import Generations

LISTED_AHEAD = 1024
"""Directories of the commit shown that are listed in the next one before it is; a request each."""


class Trees:
    """Trees by the ordinal of their commit, as long as anything uses them. Thread-safe.

    A commit whose rooms were dropped may have a request under way when they are built again; two trees of it would give
    one number to two paths.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: WeakValueDictionary[int, Tree] = WeakValueDictionary()

    def get(self, ordinal: int, make: Callable[[], Tree]) -> Tree:
        """Give the tree of an ordinal; `make` makes it unless there is one."""
        with self._lock:
            tree = self._used.get(ordinal)
            if tree is None:
                tree = self._used[ordinal] = make()
            return tree


class Change:
    """Prepares and shows commits (`following.Room`). Used by one thread."""

    def __init__(self, generations: Generations[Rooms], subdir: str, tell: Callable[[], None]) -> None:
        """`tell` makes the kernel forget names, without waiting."""
        self._generations = generations
        self._subdir = subdir
        self._tell = tell
        self._begun: tuple[str, int, Rooms] | None = None  # whose listings may be here in part

    @property
    def commit(self) -> Commit:
        return self._generations.commit

    def prepare(self, commit: Commit) -> Ready:
        """List the new commit as the shown one has been listed. Raises DagfsError; what came is kept for a next try."""
        if self._begun is None or self._begun[0] != commit.sha:
            self.forget()
            self._begun = (commit.sha, *self._generations.prepare(commit))
        _, ordinal, rooms = self._begun
        try:
            rooms.tree.prepare()
        except (NotFound, NotADirectory):
            raise UnknownRevision(f"commit {commit.sha[:12]} has no directory {self._subdir!r}") from None
        rooms.tree.prepare_like(self._generations.current.tree, LISTED_AHEAD)
        return Ready(self, ordinal, rooms)

    def show(self, ordinal: int, rooms: Rooms, may: Callable[[], bool]) -> bool:
        done = self._generations.switch(ordinal, rooms, may, self._tell)
        if done:
            self._begun = None
        return done

    def forget(self) -> None:
        """Drop what is prepared, or was begun."""
        if self._begun is not None:
            self._begun[2].close()
            self._begun = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A commit that is ready to be shown (`following.Prepared`)."""

    change: Change
    ordinal: int
    rooms: Rooms

    def show(self, may: Callable[[], bool]) -> bool:
        return self.change.show(self.ordinal, self.rooms, may)

    def drop(self) -> None:
        self.change.forget()
