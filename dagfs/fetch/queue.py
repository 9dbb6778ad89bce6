"""Loads that wait for a slot, by class: first come first served within each."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Protocol

from dagfs.fetch.pace import Pace
from dagfs.fetch.slots import LENT_MAX, LOOK, SILENCE, Slots
from dagfs.model import Urgency

GUESSED_BYTES_MAX = 64 << 20
"""Bytes that guesses may hold in memory together: a small file is collected before it is given."""


class Waiter(Protocol):
    """What the queue needs of a load. `weight`: bytes that it may hold in memory."""

    urgency: Urgency
    weight: int

    @property
    def heard(self) -> float:
        """When its transfer began, or bytes came last; on the caller's clock."""


class Queue:
    """What waits and how much runs. Not thread-safe: the fetcher's lock guards it."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.pace = Pace()
        self._waiting: dict[Urgency, OrderedDict[Waiter, None]] = {urgency: OrderedDict() for urgency in Urgency}
        self._running: dict[Waiter, Urgency] = {}  # the class it was started in
        self._weight = 0  # of all that run
        self._bets = 0  # of those that run
        self._silent: set[Waiter] = set()  # that ran without a byte at the last look: readers may run besides
        self._look_at = -math.inf

    def add(self, load: Waiter) -> None:
        self._waiting[load.urgency][load] = None

    def remove(self, load: Waiter) -> bool:
        """Take a waiting load out; False when it does not wait."""
        waiting = self._waiting[load.urgency]
        if load not in waiting:
            return False
        del waiting[load]
        return True

    def start(self, now: float, *, guesses: bool) -> Waiter | None:
        """Take the next load that may run now; `guesses`: also those that only fill the cache."""
        if now < self.slots.paused_until or self._full(now):
            return None
        for urgency, waiting in self._waiting.items():
            if waiting and self._may_run(urgency, next(iter(waiting)), guesses, now):
                load = waiting.popitem(last=False)[0]
                self._running[load] = urgency
                self._bets += urgency is Urgency.BET
                if urgency is Urgency.READER:
                    self.pace.started(load, now)
                self._weight += load.weight
                return load
        return None

    def ended(self, load: Waiter, now: float) -> Urgency | None:
        """Give the class that it was started in."""
        urgency = self._running.pop(load, None)
        if urgency is None:
            return None
        self._weight -= load.weight
        self._bets -= urgency is Urgency.BET
        self._silent.discard(load)
        self.pace.ended(load, now)
        return urgency

    def bets_at(self, now: float) -> float:
        """When waiting bets should be looked at again; infinity when something else has to happen first."""
        opens = self.pace.opens(now) if self._waiting[Urgency.BET] else math.inf
        return opens if opens > now else math.inf

    def lends_at(self) -> float:
        """When a slot may be lent to a reader that waits; infinity when none does."""
        return self._look_at if self._waiting[Urgency.READER] else math.inf

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    @property
    def running(self) -> int:
        return len(self._running)

    def _full(self, now: float) -> bool:
        """Tell whether nobody may start. Silent transfers hold no slot against readers, who else would wait for the
        inactivity deadlines of files that are not theirs."""
        free = self.slots.limit - len(self._running)
        if free > 0:
            return False
        if self._waiting[Urgency.READER] and now >= self._look_at:
            self._look_at = now + LOOK
            self._silent = {load for load in self._running if now - load.heard >= SILENCE}
        return free + min(len(self._silent), LENT_MAX) <= 0

    def _may_run(self, urgency: Urgency, load: Waiter, guesses: bool, now: float) -> bool:
        if urgency is Urgency.READER:
            return True
        if len(self._running) >= self.slots.lower or (urgency > Urgency.READ_AHEAD and not guesses):
            return False
        if urgency is Urgency.BET and self._bets >= self.pace.room(now):
            return False
        if urgency is Urgency.PREFETCH and self.pace.filled(len(self._running), self.slots.rate(now)):
            return False
        return not self._running or self._weight + load.weight <= GUESSED_BYTES_MAX
