"""The tier that machines share: asked before the hub, and filled with what only the hub had."""

from __future__ import annotations

import threading
import time
from typing import Any

from dagfs.errors import DagfsError, IntegrityError, NotFound, RemoteUnavailable
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.fetch.timer import Timer
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.model import Content
from dagfs.origins.breaker import Breaker
from dagfs.origins.bucket import Pull
from dagfs.origins.checked import Unproved
from dagfs.origins.filler import Filler, Find
from dagfs.origins.leases import Leases, Turn
from dagfs.origins.marks import Marks
from dagfs.origins.parts import key_of, part_name
from dagfs.origins.remote import collect_manifest, is_whole_or_large
from dagfs.origins.seam import Body, ObjectStore, Wanted, object_key

ABSENT_SECONDS = 30.0
"""For which a large file is not looked for again: its spans are asked for one after another."""

PARTS_WAITING = 64
"""Parts of large files that wait to be brought: of these the bytes are held, 1 MiB each."""

ROUNDS_MAX = 2
"""Leases of others that are waited for. Then the hub is asked without one."""


class Tier:
    """Implements `route.Way`.

    A small file that is missing is leased: one machine fetches it, the others look for it until it is there. So is each
    part of a large one (`parts`), until all of its bytes have come to some machine.
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
        if self.is_absent(wanted.md5) and part_name(wanted) is None:
            return False
        return is_whole_or_large(wanted) and not self._missing.get(wanted.md5)

    def is_absent(self, md5: str) -> bool:
        """Say whether a large file was not there just now."""
        absent = self._absent.get(md5)
        return absent is not None and time.monotonic() - absent < ABSENT_SECONDS

    def shares(self, wanted: Wanted) -> bool:
        """Say whether to ask for the parts of a large file that is not there."""
        usable = not self.breaker.resting and not self.writing.resting
        return usable and not self._missing.get(wanted.md5)

    def came(self, wanted: Wanted, data: bytes) -> None:
        """All bytes of a span of a large file have come: bring them, if they are a part that is missing here."""
        name = part_name(wanted)
        if name is None or self._missing.pop(name) is None:
            return
        if self._filler.waiting >= PARTS_WAITING or not self._filler.add(name, data):
            self.writing.count("left out")
            self.leases.drop(name, linger=False)

    def found(self, md5: str) -> None:
        """A large file is there now."""
        self._absent.pop(md5)

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
            name = part_name(wanted)
            if name is not None:
                self._missing.put(name, False)
        if unproved or (isinstance(error, NotFound) and _is_large(wanted)):
            self._absent.put(wanted.md5, time.monotonic())

    def passed_by(self, wanted: Wanted, error: DagfsError | None) -> None:
        if error is not None:
            self.leases.drop(part_name(wanted) or wanted.md5, linger=False)
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
        self._part = part_name(wanted)
        self._name = self._part or wanted.md5
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
            body = self._open() if self._part is None else self._open_part(self._part)
        except NotFound as error:
            if self._is_ours():
                self._end(error)
            else:
                self._look_later()
        except DagfsError as error:
            self._end(error)
        else:
            self._end(body)

    def _open(self) -> Body:
        return self._tier.objects.open(object_key(self._wanted.md5), self._wanted.span)

    def _open_part(self, name: str) -> Body:
        """A part is there until the whole file is: look for both."""
        wanted, span = self._wanted, self._wanted.span
        try:
            body = self._tier.objects.open(key_of(name), None)
        except NotFound:
            body = self._open()
            self._tier.found(wanted.md5)
            return body
        if span is None or body.head.total != span.size:
            raise IntegrityError(f"{wanted.content.entry.path}: a part of {body.head.total} bytes")
        return Body(BodyHead(span.start, wanted.content.size, ranged=True), body.pieces)

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
        if (self._part is None and _is_large(self._wanted)) or tier.writing.resting:
            return True
        try:
            ours = self._leased()
        except DagfsError as error:
            tier.writing.failed(error)
            return True
        if ours and self._over:  # cancelled meanwhile
            tier.leases.drop(self._name, linger=False)
        return ours

    def _leased(self) -> bool:
        """Take the lease, or see who has it. Raises DagfsError."""
        leases, name, turn = self._tier.leases, self._name, self._turn
        if turn is None:
            if leases.take(name):
                return True
            turn = self._turn = Turn(leases.seconds)
        holder = leases.holder(name)
        if holder is None or leases.is_mine(name, holder):
            return holder is not None or leases.take(name)
        if turn.over and holder == turn.holder and leases.take_over(name, holder):
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
