"""`--follow`: ask now and then which commit the branch has, prepare it, and show it when nothing speaks against it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from dagfs.errors import DagfsError, RemoteUnavailable
from dagfs.model import Answer, Commit

log = logging.getLogger(__name__)

JITTER = 0.1
"""Share of a pause by which it is longer or shorter: mounts that began together do not ask together."""

LONGEST_PAUSE = 600.0
"""Seconds between two questions to a hub that fails, unless it or the user wants a longer pause."""

HELD_POLL = 0.2
"""Seconds after which a commit that an open file holds back is tried again. It asks the kernel and the hub nothing."""


class Room(Protocol):
    """What may come to be shown: `vfs.generations.Generations` with rooms to prepare in."""

    @property
    def commit(self) -> Commit: ...

    def prepare(self, commit: Commit) -> Prepared:
        """Bring in what was looked at before the change. Blocks; raises DagfsError."""


class Prepared(Protocol):
    """A commit that is ready."""

    def show(self, may: Callable[[], bool]) -> bool:
        """Show it from now on unless `may` forbids."""

    def drop(self) -> None:
        """It will not be shown."""


@dataclass(frozen=True, slots=True)
class Hold:
    """When a prepared commit may be shown: never while a file is open. `quiet_for` gives for how many seconds none has
    been, below 0 while one is. An epoch has moments without an open file, so it is also waited until none has been open
    for `seconds`, or a new epoch begins."""

    quiet_for: Callable[[], float] = lambda: 0.0
    seconds: float = 0.0

    def over(self) -> bool:
        return self.quiet_for() >= self.seconds

    def at_epoch(self) -> bool:
        return self.quiet_for() >= 0


@dataclass(slots=True)
class Told:
    """What `dagfs status` tells: `next` is a commit that is being prepared or held back, `why` says which, `error` is
    the last question's or preparation's; times in seconds since the epoch."""

    next: str | None = None
    why: str | None = None
    error: str | None = None
    asked: float | None = None
    failures: int = 0  # in a row
    again: float = field(default_factory=time.time)


class Follower:
    """A thread that follows a branch until stopped. A failure of any kind leaves the shown commit as it is.

    Lock order: `_lock` before those of the room. It is held while a commit is shown, never while the hub is asked.
    """

    def __init__(
        self, ask: Callable[[], Commit], room: Room, seconds: float, hold: Hold, shown: Callable[[], None]
    ) -> None:
        """`ask` gives the branch's commit, blocking; `shown` is called after each change."""
        self._ask = ask
        self._room = room
        self._seconds = seconds
        self._hold = hold
        self._shown = shown
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._prepared: tuple[Commit, Prepared] | None = None  # written under the lock
        self._told = Told()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End soon; what hangs on the hub ends with the hub's connections."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def epoch_begins(self) -> Answer[None]:
        """A program begins a new epoch: try to show what is held back. The promise is kept when that was tried."""
        if self._prepared is None:
            return None
        tried: Future[None] = Future()

        def attempt() -> None:
            try:
                self._show(self._hold.at_epoch)
            finally:
                tried.set_result(None)

        threading.Thread(target=attempt, name="follow-epoch", daemon=True).start()  # the dispatcher never waits
        return tried

    def report(self) -> dict[str, Any]:
        """Tell how it goes, for `dagfs status`."""
        told = self._told
        return {
            "seconds": self._seconds,
            "next": told.next,
            "why": told.why,
            "error": told.error,
            "asked": told.asked,
            "again": told.again,
        }

    def _run(self) -> None:
        pause = self._pause(None)
        while not self._rest(pause):
            error = self._step()
            self._told.failures = 0 if error is None else self._told.failures + 1
            pause = self._pause(error)

    def _rest(self, pause: float) -> bool:
        """Wait until the next question is due; a commit that is held back may be shown meanwhile. True at the end."""
        self._told.again = time.time() + pause
        due = time.monotonic() + pause
        while (left := due - time.monotonic()) > 0:
            if self._prepared is None or self._show(self._hold.over):
                return self._stopping.wait(max(0.0, due - time.monotonic()))
            if self._stopping.wait(min(left, HELD_POLL)):
                return True
        return self._stopping.is_set()

    def _step(self) -> DagfsError | None:
        """Ask and prepare; give what went wrong."""
        told = self._told
        told.asked = time.time()
        try:
            self._look()
        except DagfsError as error:
            if told.error != str(error) and not self._stopping.is_set():  # said once, not at every try
                log.warning("the branch is not followed for now: %s", error)
            told.error = str(error)
            return error
        except Exception as error:
            log.exception("following the branch failed")
            told.error = f"{type(error).__name__}: {error}"
            return DagfsError(told.error)
        told.error = None
        return None

    def _look(self) -> None:
        commit = self._ask()
        waiting = self._prepared
        if waiting is not None and waiting[0].sha != commit.sha:
            self._drop()  # the branch moved on, or back, before it was shown
        if commit.sha == self._room.commit.sha:
            self._told.next = self._told.why = None
        elif self._prepared is None:
            self._told.next, self._told.why = commit.sha, "being prepared"
            ready = self._room.prepare(commit)
            with self._lock:
                self._prepared = commit, ready
                self._told.why = "held back: a file is open, or was until a moment ago"
        self._show(self._hold.over)

    def _drop(self) -> None:
        with self._lock:
            if self._prepared is not None:
                self._prepared[1].drop()
                self._prepared = self._told.next = self._told.why = None

    def _show(self, may: Callable[[], bool]) -> bool:
        """Show the prepared commit if there is one and nothing holds it back; False when something does."""
        with self._lock:
            if self._prepared is None:
                return True
            commit, prepared = self._prepared
            if not prepared.show(may):
                return False
            self._prepared = self._told.next = self._told.why = None
        log.info("the mount shows commit %s from now on", commit.sha)
        self._shown()
        return True

    def _pause(self, error: DagfsError | None) -> float:
        """Give the seconds until the next question: doubled with each failure in a row, as long as the hub asks for."""
        pause = self._seconds
        if error is not None:
            pause = max(pause, min(LONGEST_PAUSE, pause * 2 ** min(self._told.failures, 20)))
            pause = max(pause, _asked_for(error))
        return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- jitter  # nosec B311


def _asked_for(error: BaseException | None) -> float:
    """Give the pause that the hub asked for, in seconds; 0 when it did not."""
    while error is not None:
        if isinstance(error, RemoteUnavailable) and error.retry_after is not None:
            return error.retry_after
        error = error.__cause__
    return 0.0
