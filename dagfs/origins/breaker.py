"""Whether a way to the bytes is in use, and what it has brought: the figures of `dagfs status`."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from dagfs.errors import AccessDenied, DagfsError, IntegrityError, NotFound, Stalled
from dagfs.model import printable

log = logging.getLogger(__name__)

FAILURES = 3
"""One after another, after which a way is left alone; a refusal or a silence of its deadline is enough by itself."""

FIRST_PAUSE = 15.0
LONGEST_PAUSE = 600.0
"""Seconds for which it is left alone, doubled each time. Then one request tries again."""

BARREN = 64
"""Misses without a hit since the last pause, after which a remote is taken for one without this repository's data."""

COUNTS = ("hits", "misses", "failures", "wrong", "bytes", "manifests")


class Breaker:
    """Thread-safe; `_lock` is a leaf. `clock` in monotonic seconds. `fills`: misses are what it is there for."""

    def __init__(self, name: str, *, fills: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._fills = fills
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._counts: Counter[str] = Counter()
        self._failures = 0  # since the last answer
        self._barren = 0  # misses since the last hit or pause
        self._pause = FIRST_PAUSE
        self._until = 0.0  # when it is asked again
        self._trying = False  # one request finds out, after a pause, whether it answers again
        self._why = ""  # of the failure or pause; "" while all is well

    def allows(self) -> bool:
        """Say whether to ask now. Whoever is told so after a pause must say how it ended."""
        if not self._until:
            return True
        with self._lock:
            if self._clock() < self._until or self._trying:
                return False
            self._trying = self._until > 0
            return True

    def untried(self) -> None:
        """Who was allowed to ask has not: the next may."""
        with self._lock:
            self._trying = False

    def hit(self, size: int) -> None:
        with self._lock:
            self._counts["hits"] += 1
            self._counts["bytes"] += size
            self._answered()
            self._barren = 0

    def missed(self) -> None:
        with self._lock:
            self._counts["misses"] += 1
            self._answered()
            self._barren += 1
            if self._barren >= BARREN and not self._fills:
                self._pause = LONGEST_PAUSE
                self._rest(f"it had none of {self._barren} files that were asked for")

    def failed(self, error: DagfsError) -> None:
        """A request has failed; a NotFound is a miss."""
        if isinstance(error, NotFound):
            self.missed()
            return
        with self._lock:
            self._counts["wrong" if isinstance(error, IntegrityError) else "failures"] += 1
            self._failures += 1
            self._why = printable(str(error))
            at_once = isinstance(error, AccessDenied | Stalled) or self._trying
            if at_once or self._failures >= FAILURES:
                self._rest(self._why)

    def worked(self, what: str = "", size: int = 0) -> None:
        """A request has gone well that is neither a hit nor a miss: `what` is counted, and `size` bytes."""
        with self._lock:
            self._answered()
            if what:
                self._counts[what] += 1
                self._counts["bytes"] += size

    @property
    def resting(self) -> bool:
        return self._clock() < self._until

    def given_up(self) -> None:
        """A request was cancelled: it says nothing."""
        with self._lock:
            self._trying = False

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def refuse(self, why: str) -> None:
        """Leave this way alone for good."""
        with self._lock:
            self._pause = float("inf")
            self._rest(why)

    def report(self) -> dict[str, Any]:
        """Give name, `state` (in use, failing or resting), `why`, and the counts."""
        with self._lock:
            state = "resting" if self.resting else "failing" if self._why else "in use"
            return {"name": self.name, "state": state, "why": self._why, **dict.fromkeys(COUNTS, 0), **self._counts}

    def _answered(self) -> None:
        """With the lock held."""
        if self._until:
            log.info("%s answers again", self.name)
        self._failures, self._until, self._trying, self._why = 0, 0.0, False, ""
        self._pause = FIRST_PAUSE

    def _rest(self, why: str) -> None:
        """With the lock held."""
        self._why, self._until, self._trying = why, self._clock() + self._pause, False
        self._failures = self._barren = 0
        log.warning("%s is not asked for %g s: %s", self.name, self._pause, why)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
