"""The commits that this process has open: shared by all file systems in it, made anew in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from dagfs.fsspec_adapter.core import Core, Settings
from dagfs.model import Commit, RepoRef

OPEN_MAX = 16
"""Commits open at a time; each has some threads and connections. Those in use are not counted out."""

Pin = tuple[RepoRef, "str | None"]
"""A repository and the name of a revision."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A commit as a path names it."""

    repo: RepoRef
    revision: str | None
    settings: Settings

    @property
    def pin(self) -> Pin:
        return self.repo, self.revision


@dataclass(slots=True, eq=False)
class _Open:
    """`core` is a promise: one thread opens it, and others wait for that one."""

    core: Future[Core] = field(default_factory=Future)
    users: int = 0


class Pool:
    """Thread-safe; `_lock` is a leaf: cores are opened and closed outside of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._open: OrderedDict[Wanted, _Open] = OrderedDict()  # used last comes last
        self._pins: dict[Pin, Commit] = {}
        self._inherited: list[_Open] = []

    @contextlib.contextmanager
    def use(self, wanted: Wanted) -> Iterator[Core]:
        """Give the core for the length of a block. Raises DagfsError."""
        with self._lock:
            found = self._open.get(wanted)
            mine = found is None
            if found is None:
                found = self._open[wanted] = _Open()
            self._open.move_to_end(wanted)
            found.users += 1
            surplus = self._surplus()
            pinned = self._pins.get(wanted.pin)
        _close(surplus)
        try:
            if mine:
                self._make(wanted, found, pinned)
            yield found.core.result()
        finally:
            with self._lock:
                found.users -= 1
                late = [found] if not found.users and self._open.get(wanted) is not found else []
            _close(late)

    def pins(self) -> Mapping[Pin, Commit]:
        """Give what each revision was found to be, for another process that is to read the same."""
        with self._lock:
            return dict(self._pins)

    def pin(self, pins: Mapping[Pin, Commit]) -> None:
        """Take over what another process has found; what was found here stays."""
        with self._lock:
            self._pins = {**pins, **self._pins}

    def forget(self) -> None:
        """Ask the hub anew for every revision from now on."""
        with self._lock:
            self._pins.clear()
            unused = [found for found in self._open.values() if not found.users]
            self._open.clear()
        _close(unused)

    def close(self) -> None:
        """At the end of the process: what waits for the disk is written."""
        self.forget()

    def forked(self) -> None:
        """In a child: the parent's threads are not here, its locks may be held, and its connections are not ours. They
        are left alone, also by the garbage collector. Which commits it reads stays."""
        self._lock = threading.Lock()
        self._inherited += self._open.values()
        self._open = OrderedDict()

    def _make(self, wanted: Wanted, found: _Open, pinned: Commit | None) -> None:
        try:
            core = Core(wanted.repo, wanted.revision, wanted.settings, pinned)
        except BaseException as error:
            with self._lock:
                if self._open.get(wanted) is found:
                    del self._open[wanted]
            found.core.set_exception(error)
            raise
        with self._lock:
            self._pins[wanted.pin] = core.commit
        found.core.set_result(core)

    def _surplus(self) -> list[_Open]:
        idle = [wanted for wanted, found in self._open.items() if not found.users]
        return [self._open.pop(wanted) for wanted in idle[: max(0, len(self._open) - OPEN_MAX)]]


def _close(cores: list[_Open]) -> None:
    for found in cores:
        if found.core.done() and found.core.exception() is None:
            found.core.result().close()


POOL = Pool()
"""The one of this process: fsspec makes a file system for each thread, and they are to share what they open."""

atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forked)
