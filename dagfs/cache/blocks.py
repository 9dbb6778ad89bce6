"""The flight of a large file: blocks that are there, runs of blocks that are coming, and who waits for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from dagfs.cache.runs import Hold, Run, overlap, without
from dagfs.errors import DagfsError, IntegrityError, ProtocolError, RemoteUnavailable
from dagfs.fetch.seam import Load, Loader
from dagfs.model import Content, Span, Urgency
from dagfs.store.seam import PartialFile

log = logging.getLogger(__name__)

ROUNDS = 3
"""Loads that a reader waits for before its blocks are given up: one more than a block damaged on disk needs."""

ALONG = 1 << 20
"""Bytes that come before the prover is called to hash along: so many at most are left to it when the last has come."""


@dataclass(slots=True, eq=False)
class _Reader:
    span: Span
    later: Future[bytes]
    rounds: int = 0


class Owner(Protocol):
    """What the flight needs of the cache."""

    def hash(self, work: Callable[[], None], refused: Callable[[], None]) -> None:
        """Do `work`, which hashes a while, in the prover's thread; `refused` is called when the cache closes first."""

    def settle(self, flight: BlocksFlight) -> None:
        """Forget the flight if it is idle."""

    def proved(self, flight: BlocksFlight, *, right: bool) -> None:
        """The whole file was hashed."""

    def unpublished(self, flight: BlocksFlight) -> None:
        """The disk did not take the whole file; not to be tried again for each read."""


class BlocksFlight:
    """Lock order: the cache's, `_lock`, the partial file's. Futures are completed and loads started outside of it.

    While a file is complete and held, its proof is under way: whoever makes it complete, or finds it so, begins it.
    """

    def __init__(self, content: Content, partial: PartialFile, owner: Owner, loader: Loader, hold: Hold) -> None:
        self.content = content
        self.size = partial.size
        self._partial = partial
        self._owner = owner
        self._loader = loader
        self._damaged = 0  # proofs that found a block damaged; of the prover's thread
        self._came = 0  # bytes since the prover was last called; of the transport's thread
        self._lock = threading.Lock()  # guards everything below
        self._hold = hold
        self._runs: list[Run] = []
        self._readers: list[_Reader] = []
        self._publishing = False
        self._published = False  # or the disk did not take it
        self._hashing = False  # along with what comes
        self._wrong: IntegrityError | None = None  # then nothing is given any more
        self._using = 0  # threads that read the partial file outside of the lock
        self._ended = False  # then the partial file is closed, or about to be

    def read(self, span: Span, urgency: Urgency) -> Future[bytes] | bytes | None:
        """Give the bytes or their promise; None when the flight is over."""
        span = Span(min(span.start, self.size), min(span.end, self.size))
        with self._lock:
            if self._ended:
                return None
            self._using += 1
        try:
            return self._read(span, urgency)
        finally:
            with self._lock:
                self._using -= 1
            self._owner.settle(self)

    def prepare(self, span: Span, urgency: Urgency) -> bool:
        """Fetch a span that nobody waits for; False when the flight is over."""
        with self._lock:
            if self._ended:
                return False
            runs = self._plan(span, urgency) if self._wrong is None else []
        self._start(runs)
        self._promote(span, urgency)
        if not runs:
            self._owner.settle(self)
        return True

    def adopt(
        self, span: Span, load: Load | None, urgency: Urgency, readers: list[tuple[Span, Future[bytes]]]
    ) -> Run | None:
        """Take over a load of [0, span.end) and its readers; None when the flight is over."""
        run = Run(self, span, urgency)
        run.load = load
        with self._lock:
            if self._ended:
                return None
            self._runs.append(run)
            wrong = self._wrong
            taken = readers if wrong is None else []
            self._readers += [_Reader(self._clip(wanted), later) for wanted, later in taken]
            runs = [found for wanted, _ in taken for found in self._plan(self._clip(wanted), urgency)]
        for _, later in readers if wrong is not None else []:
            later.set_exception(wrong)
        self._start(runs)
        return run

    def unasked(self, run: Run) -> None:
        """A hub without ranges sends the whole file: one such run is enough."""
        everything = Span(0, self.size)
        with self._lock:
            others = [other for other in self._runs if other is not run]
            if any(other.span == everything for other in others):
                return  # and `run` is cancelled already
            run.span = everything
        for other in others:
            if other.load is not None:
                other.load.cancel()

    def arrived(self, offset: int, data: bytes) -> None:
        """A piece has come, in the transport's thread."""
        if self._wrong is not None:
            return  # of what is to come anew
        self._partial.write(offset, data)
        self._came += len(data)
        if self._partial.completing:
            self._prove()
        elif self._came >= ALONG:
            self._came = 0
            self._hash_along()
        if self._readers and self._hold is not Hold.ALL:
            self._serve()

    def ended(self, run: Run, error: DagfsError | None) -> None:
        """A run is over."""
        failed: list[tuple[_Reader, DagfsError]] = []
        runs: list[Run] = []
        self._serve()
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)
            for reader in list(self._readers):
                failure, more = self._after(reader, run, error)
                runs += more
                if failure is not None:
                    self._readers.remove(reader)
                    failed.append((reader, failure))
        for reader, failure in failed:
            reader.later.set_exception(failure)
        self._start(runs)
        self._prove()
        self._owner.settle(self)

    def resume(self) -> None:
        """Publish what an earlier run left complete."""
        self._prove()

    def end_if_idle(self) -> bool:
        """End the flight when nothing comes and nobody waits; True when it is over, and `close` is due."""
        with self._lock:
            busy = self._runs or self._readers or self._publishing or self._hashing or self._using
            self._ended = self._ended or not busy
            return self._ended

    def close(self) -> None:
        self._partial.close()

    def coming(self) -> int:
        """Give the bytes that are asked for."""
        with self._lock:
            return sum(run.span.size for run in self._runs)

    def _read(self, span: Span, urgency: Urgency) -> Future[bytes] | bytes:
        data = self._partial.read(span.start, span.size) if self._hold is not Hold.ALL else None
        # The look comes after the read: a block that came in between may have been the last.
        if data is not None and not self._holds(span):
            return data
        reader = _Reader(span, Future())
        with self._lock:
            wrong = self._wrong
            if wrong is None:
                self._readers.append(reader)
                runs = self._plan(Span(0, self.size) if self._hold is Hold.ALL else span, urgency)
        if wrong is not None:
            reader.later.set_exception(wrong)
            return reader.later
        self._start(runs)
        self._promote(span, urgency)
        self._prove()
        self._serve()
        return reader.later

    def _holds(self, span: Span) -> bool:
        """Say whether a span that is there has to wait for the proof."""
        last = self._partial.completing if self._hold is Hold.LAST else None
        return self._hold is Hold.ALL or (last is not None and overlap(span, last))

    def _hash_along(self) -> None:
        with self._lock:
            if self._hashing or self._publishing or self._ended:
                return
            self._hashing = True
        self._owner.hash(self._advance, self._stop_hashing)

    def _advance(self) -> None:
        """Hash a step of what has come without a gap, in the prover's thread."""
        try:
            more = self._partial.advance()
        except Exception as error:  # noqa: BLE001 -- who publishes finds it again, and tells
            log.debug("%s cannot be hashed yet: %s", self.content.entry.path, error)
            more = False
        if more:
            self._owner.hash(self._advance, self._stop_hashing)
        else:
            self._stop_hashing()

    def _stop_hashing(self) -> None:
        with self._lock:
            self._hashing = False
        self._owner.settle(self)

    def _prove(self) -> None:
        """Begin to publish when every block is there and nobody does."""
        with self._lock:
            begun = not self._ended and self._begin_publishing()
        if begun:
            self._owner.hash(self._publish, self._not_published)

    def _publish(self) -> None:
        """Prove the whole file and move it to the whole ones, in the prover's thread; hash a step at a time."""
        hold, unproved = self._hold, IntegrityError(f"{self.content.entry.path}: cannot be proved now")
        try:
            if self._partial.advance():
                self._owner.hash(self._publish, self._not_published)
                return
            if self._published_now():
                self._owner.proved(self, right=True)
                self._settle_proof(Hold.NONE, published=True)
            else:
                self._settle_proof(hold, unproved if hold is Hold.ALL else None)
                if self._partial.completing:
                    self._prove()  # the damaged block has come again meanwhile
        except IntegrityError as error:
            log.warning("%s", error)
            self._owner.proved(self, right=False)
            self._settle_proof(Hold.ALL, error, wrong=error)
        except Exception as error:  # a flight that publishes never ends
            unexpected = None if isinstance(error, OSError) else error
            log.warning("%s cannot be stored: %s", self.content.entry.path, error, exc_info=unexpected)
            self._owner.unpublished(self)
            if hold is Hold.ALL:
                self._settle_proof(hold, unproved)
            else:
                self._settle_proof(Hold.NONE, published=True)
        self._serve()
        self._replan()
        self._owner.settle(self)

    def _published_now(self) -> bool:
        """Publish; False when a block was damaged. Raises OSError when that goes on, and what `publish` raises."""
        if self._partial.publish():
            return True
        self._damaged += 1
        if self._damaged >= ROUNDS and self._partial.completing:
            raise OSError("its blocks cannot be kept")
        return False

    def _settle_proof(
        self,
        hold: Hold,
        failure: DagfsError | None = None,
        *,
        published: bool = False,
        wrong: IntegrityError | None = None,
    ) -> None:
        """The proof is over: change what waits, and fail those who do when there is a failure."""
        with self._lock:
            self._publishing = False
            self._published = published
            self._wrong = wrong
            self._hold = hold
            readers = self._readers if failure is not None else []
            self._readers = [] if failure is not None else self._readers
        for reader in readers:
            reader.later.set_exception(failure)

    def _not_published(self) -> None:
        """The cache is closing; the blocks stay for the next run. Not settled: a read would begin the flight anew."""
        closing = RemoteUnavailable(f"{self.content.entry.path}: cannot be proved any more, the cache is closed")
        self._settle_proof(self._hold, closing if self._holds(Span(0, self.size)) else None)

    def _clip(self, span: Span) -> Span:
        return Span(min(span.start, self.size), min(span.end, self.size))

    def _begin_publishing(self) -> bool:
        """Say whether every block is there and nobody publishes them yet; with the lock held."""
        if self._publishing or self._published or self._wrong is not None:
            return False
        if self._partial.completing:
            self._publishing = True
        if self._publishing or self._runs:
            return self._publishing
        # The ends first: of a file that is read in order the last block comes last.
        edges = (Span(self.size - 1, self.size), Span(0, 1), Span(0, self.size))
        self._publishing = not any(self._partial.missing(edge) for edge in edges)
        return self._publishing

    def _plan(self, span: Span, urgency: Urgency) -> list[Run]:
        """Register runs for what is neither there nor coming, with the lock held."""
        runs = []
        for gap in self._partial.missing(span):
            for part in without(gap, [run.span for run in self._runs]):
                runs.append(Run(self, part, urgency))
        self._runs += runs
        return runs

    def _start(self, runs: list[Run]) -> None:
        for run in runs:
            load = self._loader.load(self.content, run.span, run.urgency, run)
            run.load = load
            load.promote(run.urgency)

    def _promote(self, span: Span, urgency: Urgency) -> None:
        with self._lock:
            late = [run for run in self._runs if run.urgency > urgency and overlap(run.span, span)]
            for run in late:
                run.urgency = urgency
        for run in late:
            if run.load is not None:
                run.load.promote(urgency)

    def _serve(self) -> None:
        """Give their bytes to the readers whose blocks are all there."""
        with self._lock:
            there = [reader for reader in self._readers if not self._partial.missing(reader.span)]
            ready = [reader for reader in there if not self._holds(reader.span)]  # after the look, as in `_read`
            for reader in ready:
                self._readers.remove(reader)
            self._using += bool(ready)
        for reader in ready:
            self._give(reader)
        if ready:
            with self._lock:
                self._using -= 1

    def _give(self, reader: _Reader) -> None:
        try:
            data = self._partial.read(reader.span.start, reader.span.size)
        except Exception as error:  # noqa: BLE001 -- the promise carries it to whoever waits
            reader.later.set_exception(error)
            return
        if data is not None:
            reader.later.set_result(data)
        else:
            self._again(reader)

    def _again(self, reader: _Reader) -> None:
        """A block turned out damaged, or left memory before it was given."""
        reader.rounds += 1
        if reader.rounds >= ROUNDS:
            reader.later.set_exception(ProtocolError(f"{self.content.entry.path}: its blocks cannot be kept"))
            self._replan()
            return
        with self._lock:
            self._readers.append(reader)
            runs = self._plan(reader.span, Urgency.READER)
        self._start(runs)

    def _replan(self) -> None:
        """Blocks that were there are gone: fetch those that others wait for."""
        with self._lock:
            spans = [] if self._hold is Hold.ALL else [reader.span for reader in self._readers]
            runs = [run for span in spans for run in self._plan(span, Urgency.READER)]
        self._start(runs)

    def _after(self, reader: _Reader, run: Run, error: DagfsError | None) -> tuple[DagfsError | None, list[Run]]:
        """Say what a run's end means for a reader: its failure, or the runs that it still needs. With the lock held."""
        wanted = Span(0, self.size) if self._hold is Hold.ALL else reader.span
        coming = [other.span for other in self._runs]
        left = [part for gap in self._partial.missing(wanted) for part in without(gap, coming)]
        if not left:
            return None, []
        if error is not None and any(overlap(gap, run.span) for gap in left):
            return error, []
        reader.rounds += 1
        if reader.rounds >= ROUNDS:
            return ProtocolError(f"{self.content.entry.path}: {left[0]} does not come"), []
        return None, self._plan(wanted, Urgency.READER)
