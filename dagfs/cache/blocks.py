"""The flight of a large file: blocks that are there, runs of blocks that are coming, and who waits for them."""

from __future__ import annotations

from concurrent.futures import Future

from dagfs.cache.proving import ROUNDS, Owner, ProvedFlight
from dagfs.cache.runs import Hold, Reader, Run, overlap, without
from dagfs.errors import DagfsError, Disproved, ProtocolError
from dagfs.fetch.seam import Load, Loader
from dagfs.model import Content, Span, Urgency
from dagfs.store.seam import PartialFile

ALONG = 1 << 20
"""Bytes that come before the prover is called to hash along: so many at most are left to it when the last has come."""


class BlocksFlight(ProvedFlight):
    """What of a file is asked for, comes and is given. Futures are completed and loads started outside of the lock."""

    def __init__(self, content: Content, partial: PartialFile, owner: Owner, loader: Loader, hold: Hold) -> None:
        super().__init__(content, partial, owner, hold)
        self._loader = loader
        self._came = 0  # bytes since the prover was last called; of the transport's thread

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
            self._readers += [Reader(self._clip(wanted), later) for wanted, later in taken]
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
        failed: list[tuple[Reader, DagfsError]] = []
        runs: list[Run] = []
        if isinstance(error, Disproved):
            self._disprove(error)
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

    def coming(self) -> int:
        """Give the bytes that are asked for."""
        with self._lock:
            return sum(run.span.size for run in self._runs)

    def _read(self, span: Span, urgency: Urgency) -> Future[bytes] | bytes:
        data = self._partial.read(span.start, span.size) if self._hold is not Hold.ALL else None
        # The look comes after the read: a block that came in between may have been the last.
        if data is not None and not self._holds(span):
            return data
        reader = Reader(span, Future())
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

    def _clip(self, span: Span) -> Span:
        return Span(min(span.start, self.size), min(span.end, self.size))

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

    def _give(self, reader: Reader) -> None:
        try:
            data = self._partial.read(reader.span.start, reader.span.size)
        except Exception as error:  # noqa: BLE001 -- the promise carries it to whoever waits
            reader.later.set_exception(error)
            return
        if data is not None:
            reader.later.set_result(data)
        else:
            self._again(reader)

    def _again(self, reader: Reader) -> None:
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

    def _after(self, reader: Reader, run: Run, error: DagfsError | None) -> tuple[DagfsError | None, list[Run]]:
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
