"""The tier that machines share: asked before the hub, and filled with what only the hub had."""

from __future__ import annotations

import threading
import time
from typing import Any

from dagfs.errors import DagfsError, IntegrityError, NotFound, RemoteUnavailable
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.fetch.timer import Timer
from dagfs.hub.source import BodySink, Transfer
from dagfs.model import Content
from dagfs.origins.breaker import Breaker
from dagfs.origins.bucket import Pull
from dagfs.origins.checked import Unproved
from dagfs.origins.filler import Filler, Find
from dagfs.origins.leases import Leases, Turn
from dagfs.origins.marks import Marks
from dagfs.origins.remote import collect_manifest, is_whole_or_large
from dagfs.origins.seam import Body, ObjectStore, Wanted, object_key

ABSENT_SECONDS = 30.0
"""For which a large file is not looked for again: its spans are asked for one after another."""

ROUNDS_MAX = 2
"""Leases of others that are waited for. Then the hub is asked without one."""


class Tier:
    """Implements `route.Way`.

    A small file that is missing is leased: one machine fetches it, the others look for it until it is there. Large ones
    are not: they are in the tier when all their bytes have come to some machine.
    """

    vouches = False

    def __init__(self, name: str, objects: ObjectStore, find: Find, leases: Leases) -> None:
        self.breaker = Breaker(name, fills=True)
        self.writing = Breaker(f"{name}, writing")  # by itself: who may only read goes on reading
        self.objects = objects
        self.leases = leases
        self._filler = Filler(objects, find, self.leases, self.writing)
        self.timer = Timer()
        self._missing: Marks[bool] = Marks()  # what this machine shall bring when it has it; True: replace
        self._absent: Marks[float] = Marks()  # large files that were not there, and when, on the monotonic clock
        self._given: Marks[bool] = Marks()  # large files of which bytes have come from here

    def begin(self) -> None:
        """Nothing to find out: the user has named it."""

    def wants(self, wanted: Wanted) -> bool:
        absent = self._absent.get(wanted.md5)
        if absent is not None and time.monotonic() - absent < ABSENT_SECONDS:
            return False
        return is_whole_or_large(wanted) and not self._missing.get(wanted.md5)

    def ask(self, wanted: Wanted, sink: BodySink) -> Transfer:
        visit = Visit(wanted, sink, self)
        visit.start()
        return visit

    def gave(self, wanted: Wanted, size: int) -> None:
        self.breaker.hit(size)
        if _is_large(wanted):
            self._given.put(wanted.md5, True)

    def failed(self, wanted: Wanted, error: DagfsError) -> None:
        unproved = isinstance(error, Unproved)
        self.breaker.failed(NotFound(str(error)) if unproved else error)
        if isinstance(error, IntegrityError):
            self._missing.put(wanted.md5, True)
        elif isinstance(error, NotFound):
            self._missing.put(wanted.md5, False)
        if unproved or (isinstance(error, NotFound) and _is_large(wanted)):
            self._absent.put(wanted.md5, time.monotonic())

    def passed_by(self, wanted: Wanted, error: DagfsError | None) -> None:
        if error is not None:
            self.leases.drop(wanted.md5, linger=False)
        self._filler.sweeps(now=error is not None)

    def manifest(self, md5: str) -> bytes | None:
        key = object_key(f"{md5}.dir")
        return collect_manifest(self.breaker, lambda sink: self.objects.get(key, None, sink))

    def give(self, name: str, data: bytes) -> None:
        """Have an object brought whose bytes are at hand and proved."""
        if not self._filler.add(name, data):
            self.writing.count("left out")

    def kept(self, content: Content) -> None:
        """The store has a file, proved: bring it, if it is missing here."""
        md5 = content.key.digest
        wrong = self._missing.pop(md5)
        if wrong is None:
            return
        self._absent.pop(md5)
        if not self._filler.add(md5, content, replace=wrong):
            self.writing.count("left out")
            self.leases.drop(md5, linger=False)

    def disproved(self, content: Content) -> None:
        """The bytes of a large file were wrong: those of here, if any were."""
        if self._given.pop(content.key.digest):
            self.breaker.failed(IntegrityError(f"{content.entry.path}: wrong bytes of a large file"))
            self._missing.put(content.key.digest, True)

    def report(self) -> dict[str, Any]:
        writing = self.writing.report()
        told = {name: writing[name] for name in ("state", "why", "failures", "bytes")}
        more = {name: writing.get(name, 0) for name in ("stored", "there already", "replaced", "left out")}
        return {**self.breaker.report(), "writing": {**told, **more, "waiting": self._filler.waiting}}

    def close(self) -> None:
        self.timer.close()
        self._filler.close()
        self.objects.close()


def _is_large(wanted: Wanted) -> bool:
    return wanted.content.size is not None and wanted.content.size > WHOLE_MAX


class Visit:
    """One file asked for in the tier (`source.Transfer`), with the wait for another machine that fetches it.

    Steps run in the store's threads, one at a time; between two looks no thread waits.
    """

    def __init__(self, wanted: Wanted, sink: BodySink, tier: Tier) -> None:
        self._wanted = wanted
        self._tier = tier
        self._pull = Pull(sink)
        self._turn: Turn | None = None  # while another machine has the lease
        self._lock = threading.Lock()  # guards the one below
        self._over = False  # the pull runs, or has ended

    def start(self) -> None:
        """Raises RemoteUnavailable when the tier is closed."""
        self._tier.objects.submit(self._look)

    def cancel(self) -> None:
        self._pull.cancel()
        if self._turn is not None:
            self._end(RemoteUnavailable("the transfer was cancelled"))

    def _look(self) -> None:
        if self._over:  # cancelled between two looks
            return
        try:
            body = self._tier.objects.open(object_key(self._wanted.md5), self._wanted.span)
        except NotFound as error:
            if self._is_ours():
                self._end(error)
            else:
                self._look_later()
        except DagfsError as error:
            self._end(error)
        else:
            self._end(body)

    def _look_later(self) -> None:
        assert self._turn is not None  # noqa: S101 -- who waits has one  # nosec B101
        self._tier.timer.after(self._turn.pause(), self._look_again)

    def _look_again(self) -> None:
        try:
            self._tier.objects.submit(self._look)
        except DagfsError as error:
            self._end(error)

    def _is_ours(self) -> bool:
        """Say whether this machine is to ask the hub: it has the lease, or waits no longer."""
        tier = self._tier
        if _is_large(self._wanted) or tier.writing.resting:
            return True
        try:
            ours = self._leased()
        except DagfsError as error:
            tier.writing.failed(error)
            return True
        if ours and self._over:  # cancelled meanwhile
            tier.leases.drop(self._wanted.md5, linger=False)
        return ours

    def _leased(self) -> bool:
        """Take the lease, or see who has it. Raises DagfsError."""
        leases, md5, turn = self._tier.leases, self._wanted.md5, self._turn
        if turn is None:
            if leases.take(md5):
                return True
            turn = self._turn = Turn(leases.seconds)
        holder = leases.holder(md5)
        if holder is None or leases.is_mine(md5, holder):
            return holder is not None or leases.take(md5)
        if turn.over and holder == turn.holder and leases.take_over(md5, holder):
            self._tier.breaker.count("taken over")
            return True
        if turn.over or holder != turn.holder:
            self._tier.breaker.count("waited")
            turn.begin(holder)
        return turn.rounds > ROUNDS_MAX

    def _end(self, outcome: Body | DagfsError) -> None:
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._pull.run(lambda: _given(outcome))


def _given(outcome: Body | DagfsError) -> Body:
    if isinstance(outcome, DagfsError):
        raise outcome
    return outcome
