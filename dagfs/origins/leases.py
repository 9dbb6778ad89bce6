"""Who of several machines asks the hub for what the tier lacks, a file or a part: the one whose lease is there.

A lease is a small object that is created unless it is there. Whoever finds it there looks for the file now and then.
It is removed a little after the file has come: who has just seen the file missing must not take the lease again. A
machine that dies leaves its leases behind; after LEASE_SECONDS one of those who wait takes a lease over.
"""

from __future__ import annotations

import hashlib
import random
import socket
import time

from dagfs.errors import NotFound
from dagfs.origins.marks import Marks
from dagfs.origins.seam import ObjectStore
from dagfs.store.layout import boot_id

LEASE_SECONDS = 10.0
"""The longest wait for another machine. It fetches at most 8 MiB in that time."""

LINGER_SECONDS = 2.0
"""For which a lease stays when its file is there: longer than a store takes from one answer to the next request."""

FIRST_LOOK = 0.05
LONGEST_LOOK = 0.5
"""Seconds between two looks for the file."""

_LEASE_BYTES = 256


def lease_key(md5: str) -> str:
    """Beside what DVC keeps, where it does not look."""
    return f"dagfs/leases/{md5}"


class Turn:
    """One wait for a file that another machine fetches. Used by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0
        self._look = FIRST_LOOK
        self.holder: bytes | None = None  # what its lease says
        self.rounds = 0  # leases waited for

    def pause(self) -> float:
        """Give the seconds until the next look."""
        self._look = min(1.6 * self._look, LONGEST_LOOK)
        return self._look * random.uniform(0.5, 1.0)  # noqa: S311 -- no secret  # nosec B311

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    def begin(self, holder: bytes) -> None:
        """Wait for a holder from now on."""
        self.holder = holder
        self.rounds += 1
        self._until = time.monotonic() + self._seconds


def name_of(mount: str) -> str:
    """Give what a mount calls itself: not its machine's name, which others may have as well, as a hash of all there is.

    `mount` names it on this machine.
    """
    return hashlib.sha256("\0".join((boot_id(), socket.gethostname(), mount)).encode()).hexdigest()[:16]


class Leases:
    """The leases of this machine. Everything that asks the store blocks, and raises what the store raises."""

    def __init__(self, store: ObjectStore, me: str, seconds: float = LEASE_SECONDS) -> None:
        """`me` is what no other mount of any machine calls itself, and this one again when its worker was replaced."""
        self.seconds = seconds
        self._store = store
        self._me = me.encode()
        self._held: Marks[float] = Marks()  # MD5 -> when it was taken, on the monotonic clock
        self._ripe: Marks[float] = Marks()  # MD5 -> from when on it can be removed

    def take(self, md5: str) -> bool:
        """Take a lease; False when another machine has it."""
        if not self._store.create(lease_key(md5), self._me):
            return False
        self._held.put(md5, time.monotonic())
        return True

    def is_mine(self, md5: str, holder: bytes) -> bool:
        """Take up a lease that this mount has already: not removed yet, or of a worker before."""
        if holder != self._me:
            return False
        self._ripe.pop(md5)
        self._held.put(md5, time.monotonic())
        return True

    def holder(self, md5: str) -> bytes | None:
        """Say who has a lease; None when nobody has it any more."""
        try:
            body = self._store.open(lease_key(md5), None)
            return b"".join(body.pieces)[:_LEASE_BYTES]
        except NotFound:
            return None

    def take_over(self, md5: str, holder: bytes | None) -> bool:
        """Take a lease from `holder`, unless somebody else has done so."""
        found = self.holder(md5)
        if found is not None and found != holder:
            return False
        if found is not None:
            self._store.remove([lease_key(md5)])
        return self.take(md5)

    def drop(self, md5: str, *, linger: bool) -> None:
        """Have a lease removed by the next `sweep`, or when it has lingered. Does not block."""
        if self._held.pop(md5) is not None:
            self._ripe.put(md5, time.monotonic() + (LINGER_SECONDS if linger else 0.0))

    def sweep(self, *, everything: bool = False) -> None:
        """Remove the leases that are ripe, and those whose file has not come: it was wrong, or nobody kept it."""
        now = time.monotonic()
        names = self._ripe.older(float("inf") if everything else now)
        names += self._held.older(float("inf") if everything else now - 3 * self.seconds)
        if names:
            self._store.remove([lease_key(md5) for md5 in names])

    @property
    def pending(self) -> bool:
        """Whether there is something to remove, now or later."""
        return bool(self._ripe or self._held)
