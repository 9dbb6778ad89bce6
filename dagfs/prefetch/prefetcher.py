"""Fetches ahead what the sources guess: a policy over accounts, and the small part that runs it."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Urgency
from dagfs.prefetch.ledger import IN_ORDER, Ledger, Waste
from dagfs.prefetch.ready import Ready
from dagfs.prefetch.seam import Bytes, FileRef, GuessSource

IN_FLIGHT_MAX = 64 << 20
"""Bytes guessed that have not arrived: half a second of a link of 1 Gbit/s."""

GUESSES_MAX = 64
"""Guesses that one opening may cause: enough to keep all transfers of the fetcher busy."""

SIZE_ASSUMED = 256 << 10
"""Bytes charged for a file whose size is not known, before any file was opened; then it is the mean of those."""

CHARGED_MAX = 8 << 20
"""Bytes charged for a large file, of which only the beginning is fetched."""

LOT = 8
"""Openings that are looked at together while LOT times as many guesses lie ahead: the thread that plans would else take
the interpreter from the one that serves, and give it back, at each."""

_LANDED_CHECKS = 64  # guesses looked after for each opening
_QUEUED_MAX = 4096  # openings not looked at yet; more are dropped, since guesses about them come too late


@dataclass(slots=True)
class _Flight:
    """A guess that has not arrived: `charge` in bytes, `urgency` it was asked for in last."""

    content: Content
    charge: int
    urgency: Urgency


class Planner:
    """Turns openings into contents to prepare. No threads; called by one thread at a time."""

    def __init__(self, sources: Sequence[GuessSource], cached: Callable[[Content], bool], metrics: Metrics) -> None:
        """`sources`: the surest first."""
        self._cached = cached
        self._metrics = metrics
        self.waste = Waste()
        self._accounts = [(source, Ledger(self.waste, source.stakes)) for source in sources]
        self._mean = 0.0  # bytes of the files opened lately
        self._in_flight: OrderedDict[ContentId, _Flight] = OrderedDict()
        self._classes: dict[str, Urgency] = {}  # source -> the class that its guesses were in at the last opening
        self._ready = Ready()
        self.awaken: list[Content] = []  # what the last opening lets expect and the disk of the cache should bring
        self.ahead = 0  # open guesses of the source that foresaw the last opening, if it goes by an order
        self.bytes_in_flight = 0  # sum of _in_flight, at most IN_FLIGHT_MAX beside one file

    def opened(self, file: FileRef) -> list[tuple[Content, Urgency]]:
        """Note the opening of a file; give what to fetch now and in which class, the likeliest first."""
        key = file.content.key
        self._landed(key)
        self._sweep()
        self._note_size(file.content.size)
        asked, foreseen = [], False
        self.ahead, self.awaken = 0, []
        if self._ready.opened(key):
            self.ahead = len(self._ready)
        for source, ledger in self._accounts:
            source.opened(file)
            if not foreseen:  # what comes after a source that knew has less to say
                asked.append((source, ledger))
            if ledger.opened(key, source.patience()):
                self._metrics.add(f"prefetch.hits.{source.name}")
                foreseen = True
                self.ahead = ledger.guesses if source.stakes is IN_ORDER else 0
        wanted: list[tuple[Content, Urgency]] = []
        for source, ledger in asked:
            contents = [*self._raised(source, ledger), *self._bets(source, ledger, key)]
            wanted += [(content, source.urgency) for content in contents]
        return wanted

    def _raised(self, source: GuessSource, ledger: Ledger) -> list[Content]:
        """Give the guesses of an account on their way that the last opening has made more urgent."""
        urgency = source.urgency
        before, self._classes[source.name] = self._classes.get(source.name, urgency), urgency
        if urgency >= before:
            return []
        late = [key for key, flight in self._in_flight.items() if flight.urgency > urgency and ledger.holds(key)]
        for key in late:
            self._in_flight[key].urgency = urgency
        return [self._in_flight[key].content for key in late]

    def _bets(self, source: GuessSource, ledger: Ledger, opened: ContentId) -> list[Content]:
        chosen: list[Content] = []
        while self._may_guess(len(chosen), ledger):
            guess = next(iter(source.guesses(1)), None)
            if guess is None:
                break
            content = guess.content
            if content.key == opened or self._holds(content.key):
                continue
            if self._cached(content):
                if self._ready.expect(content.key, self._charge(content)):
                    self.awaken.append(content)
                continue
            charge = self._charge(content)
            ledger.charge(content.key, charge)
            self._in_flight[content.key] = _Flight(content, charge, source.urgency)
            self.bytes_in_flight += charge
            self._metrics.add(f"prefetch.guesses.{source.name}")
            chosen.append(content)
        return chosen

    def _may_guess(self, chosen: int, ledger: Ledger) -> bool:
        room = self.bytes_in_flight < IN_FLIGHT_MAX and not self._ready.full
        return room and chosen < GUESSES_MAX and ledger.allowance > 0

    def _charge(self, content: Content) -> int:
        """Give the bytes that a guess is counted with."""
        size = int(self._mean) or SIZE_ASSUMED if content.size is None else content.size
        return min(CHARGED_MAX, size)

    def _note_size(self, size: int | None) -> None:
        if size is not None:
            self._mean = (7 * self._mean + size) / 8 if self._mean else float(size)

    def _holds(self, key: ContentId) -> bool:
        return any(ledger.holds(key) for _, ledger in self._accounts)

    def _landed(self, key: ContentId) -> None:
        flight = self._in_flight.pop(key, None)
        self.bytes_in_flight -= flight.charge if flight is not None else 0

    def _sweep(self) -> None:
        """Take note of guesses that have arrived, or that no account waits for any more, oldest first."""
        for _ in range(min(_LANDED_CHECKS, len(self._in_flight))):
            key, flight = next(iter(self._in_flight.items()))
            if self._holds(key) and not self._cached(flight.content):
                self._in_flight.move_to_end(key)
                break
            self._landed(key)


class Prefetcher:
    """Runs the planner outside of the dispatcher, for one opening after the other.

    Lock order: `_lock` is a leaf. `run` gets a job to run in another thread, soon.
    """

    def __init__(self, planner: Planner, cache: Bytes, run: Callable[[Callable[[], None]], object]) -> None:
        self._planner = planner
        self._cache = cache
        self._run = run
        self._lock = threading.Lock()
        self._openings: deque[FileRef] = deque(maxlen=_QUEUED_MAX)
        self._running = False  # True iff a job is queued or works; it alone touches the planner
        self._lot = 1  # openings to wait for before the next job
        self.enabled = True

    def opened(self, file: FileRef) -> None:
        """Note the first read of a file; returns at once."""
        with self._lock:
            if not self.enabled:
                return
            self._openings.append(file)
            if self._running or len(self._openings) < self._lot:
                return
            self._running = True
        self._run(self._work)

    def _work(self) -> None:
        while (file := self._next()) is not None:
            try:
                for content, urgency in self._planner.opened(file):
                    self._cache.prepare(content, None, urgency)
                for content in self._planner.awaken:
                    self._cache.awaken(content)
            except BaseException:
                with self._lock:
                    self._running = False
                raise

    def _next(self) -> FileRef | None:
        with self._lock:
            if self._openings and self.enabled:
                return self._openings.popleft()
            self._running = False
            self._lot = LOT if self._planner.ahead >= LOT * LOT else 1
            return None
