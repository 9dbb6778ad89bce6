"""When a worker that died gets a successor, after which pause, and when there is no sense in it any more.

A worker that is killed from outside (SIGKILL, SIGTERM) says nothing about the next one: it may happen every second, for
as long as somebody likes. One that dies of itself would do so again if its cause stays, and asks the same requests of
its successor. Between the two stands the kernel's OOM killer: it uses SIGKILL, and the cause is in the worker.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

MAX_FAULTS = 5
"""Workers in a row that died of themselves before they had settled; then programs get ENOTCONN instead of waiting."""

SETTLED = 15.0
"""Seconds of service after which a fault is the first of a new row: the work between two faults is worth the pause."""

UNSERVED = 120.0
"""Seconds without a worker that serves, whatever ends them, until it is given up: the longest that a read may take."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds before a restart, from the second in a row on that was of no use; doubled each time."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended: its exit `status`, or the number of the `signal` that killed it.

    `starved`: the kernel has killed somebody for want of memory since the worker started. `stuck`: it was killed
    because it did not answer.
    """

    status: int
    signal: int
    starved: bool = False
    stuck: bool = False

    @property
    def crashed(self) -> bool:
        return self.signal != 0 or self.status != 0

    @property
    def from_outside(self) -> bool:
        """Somebody else wanted its end."""
        if self.stuck:
            return False
        if self.signal == signal.SIGKILL:
            return not self.starved
        return signal.SIGTERM in (self.signal, self.status - 128)

    def __str__(self) -> str:
        if self.stuck:
            return "stuck"
        how = f"killed by {signal.Signals(self.signal).name}" if self.signal else f"exit status {self.status}"
        return f"{how}, out of memory" if self.starved and self.signal == signal.SIGKILL else how


class Restarts:
    """Judges deaths. Times are monotonic seconds: they stand still while the machine is suspended."""

    def __init__(self, now: float) -> None:
        self._faults = 0  # in a row
        self._useless = 0  # deaths in a row of workers that had a fault or never served
        self._served_since: float | None = None  # None iff no worker serves
        self._served_until = now  # of the last one that did
        self.settled = False  # the last one that died had served for SETTLED

    def ready(self, now: float) -> None:
        """A worker serves; it says so again for each commit that it shows."""
        if self._served_since is None:
            self._served_since = now

    def died(self, ended: Ended, last_answer: float, now: float) -> str | None:
        """Count a death and give the reason to give up, None for another worker.

        `last_answer`: when it is known to have answered; for one that is not stuck, `now`.
        """
        since, self._served_since = self._served_since, None
        if since is not None:
            self._served_until = max(since, last_answer)
        self.settled = since is not None and last_answer - since >= SETTLED
        self._useless = 0 if self.settled or (ended.from_outside and since is not None) else self._useless + 1
        if not ended.from_outside:
            self._faults = 1 if self.settled else self._faults + 1
        if self._faults >= MAX_FAULTS:
            return f"{MAX_FAULTS} workers in a row died of themselves, the last: {ended}"
        if now - self._served_until >= UNSERVED:
            return f"no worker has served for {UNSERVED:.0f} s, the last: {ended}"
        return None

    @property
    def pause(self) -> float:
        """Seconds to wait before the next worker is started."""
        if self._useless < 2:
            return 0.0
        return min(FIRST_PAUSE * 2.0 ** min(self._useless - 2, 16), LONGEST_PAUSE)


def stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by a signal or a debugger."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def oom_kills(statistics: str = "/proc/vmstat") -> int:
    """Count the kernel's kills for want of memory since the machine started; 0 where it does not tell (Linux 4.13)."""
    try:
        with open(statistics, encoding="utf-8") as rows:
            return next((int(row.split()[1]) for row in rows if row.startswith("oom_kill ")), 0)
    except OSError:
        return 0
