"""The cache: a hit, a wait for who is fetching, or a fetch. Keyed by content, so nothing is ever invalidated."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dagfs.cache.blocks import BlocksFlight
from dagfs.cache.proving import ProvedFlight
from dagfs.cache.runs import Hold, Run
from dagfs.cache.whole import WholeFlight
from dagfs.errors import IntegrityError
from dagfs.fetch.seam import WHOLE_MAX, Loader
from dagfs.metrics import Metrics
from dagfs.model import Answer, Content, ContentId, Proof, Span, Urgency
from dagfs.store.seam import Store, StoredFile

BEGINNING = Span(0, 1 << 20)
"""Bytes of a large file that are prepared when nobody says which: headers, and the reader's first read-ahead."""

JUST_ENDED = 512
"""Flights remembered after their end: who looked before it and asks after it must look again, not fetch again."""

BROKEN_MAX = 1024
"""Large files remembered as wrong; each is proved whole before the next byte of it is given."""

WRONG_SECONDS = 2.0
"""How long no read of a file is answered whose bytes were found wrong. The kernel asks at once again for a page whose
read failed, and a program in the middle of the file reads on: with right bytes both would end well."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What is under way: files, and the bytes of large ones that are asked for."""

    whole: int
    large: int
    large_bytes: int


class Cache:
    """Thread-safe and never blocks on the network. `_lock` comes before the locks of the flights; store and loader are
    called outside of it."""

    def __init__(
        self,
        store: Store,
        loader: Loader,
        metrics: Metrics,
        disproved: Callable[[Content], None] = lambda content: None,
        kept: Callable[[Content], None] = lambda content: None,
    ) -> None:
        """`disproved` is told when bytes of a large file were given that turned out wrong, `kept` when all bytes of a
        file are in the store, proved; neither may block."""
        self._disproved = disproved
        self._kept = kept
        self._store = store
        self._loader = loader
        self._metrics = metrics
        self._closing = False
        self._prover = ThreadPoolExecutor(1, thread_name_prefix="cache-prove")
        self._lock = threading.Lock()  # guards everything below
        self._whole: dict[ContentId, WholeFlight] = {}
        self._large: dict[ContentId, BlocksFlight] = {}
        self._just_ended: OrderedDict[ContentId, int] = OrderedDict()  # content -> number of the end
        self._ends = 0  # flights that have ended; read without the lock, before a look into the store
        self._broken: OrderedDict[ContentId, float] = OrderedDict()  # when it was found, on the monotonic clock
        self._unpublished: OrderedDict[ContentId, None] = OrderedDict()  # whole, but the disk refused them

    def size(self, content: Content, urgency: Urgency) -> Answer[int]:
        """Give the size in bytes: known, stored, or as the answer to a load announces it."""
        while True:
            before = self._ends
            size = self._known_size(content)
            if size is not None:
                return size
            flight, fresh = self._whole_flight(content, urgency, before)
            if flight is None:
                continue
            answer = flight.want_size()
            self._begin(flight, urgency, fresh)
            if answer is not None:
                return answer

    def read(self, content: Content, span: Span, urgency: Urgency) -> Answer[bytes]:
        """Give exactly the bytes of `span`, fewer only at the end of the file."""
        answer: Answer[bytes] | None = None
        while answer is None:
            before = self._ends
            answer = self._stored(content, span)
            if answer is None:
                answer = self._fetch(content, span, urgency, before)
        self._metrics.add("cache.misses" if isinstance(answer, Future) else "cache.hits")
        return answer

    def prepare(self, content: Content, span: Span | None, urgency: Urgency) -> None:
        """Start to fetch a span without waiting; None is a small file whole, or the beginning of a large one."""
        done = False
        while not done:
            before = self._ends
            done = self.cached(content) or self._prepare(content, span, urgency, before)

    def _prepare(self, content: Content, span: Span | None, urgency: Urgency, before: int) -> bool:
        """Join or start a flight; False when it ended meanwhile."""
        size = self._known_size(content)
        if size is not None and size > WHOLE_MAX:
            wanted = span or BEGINNING
            wanted = Span(min(wanted.start, size), min(wanted.end, size))
            if self._just_broken(content):
                return True
            blocks = self._blocks_flight(content, size, before)
            return blocks is not None and blocks.prepare(wanted, urgency)
        flight, fresh = self._whole_flight(content, urgency, before)
        if flight is None:
            return False
        flight.want_bytes(None)
        self._begin(flight, urgency, fresh)
        return True

    def file(self, content: Content) -> StoredFile | None:
        """Open the whole file, if it is there, proved."""
        return self._store.find(content)

    def cached(self, content: Content) -> bool:
        """Say whether all bytes are there, proved."""
        found = self.file(content)
        if found is not None:
            found.close()
        return found is not None

    def here(self, content: Content) -> bool:
        """Say whether all bytes seem to be there: a cheap look, not a promise."""
        return self._store.has(content)

    def awaken(self, content: Content) -> None:
        """Have the disk bring a stored file into memory, or the beginning of a large one, without waiting for it."""
        self._store.awaken(content)

    def in_flight(self) -> InFlight:
        with self._lock:
            large = list(self._large.values())
            whole = len(self._whole)
        return InFlight(whole, len(large), sum(flight.coming() for flight in large))

    def close(self) -> None:
        """End the proofs that are being made, which the next run makes; to be called after the loader's `close` and
        before the store's."""
        self._closing = True
        self._prover.shutdown(wait=True)

    def keep(self, flight: WholeFlight, data: bytes, proof: Proof) -> None:
        self._store.put(flight.content, data, proof)
        self._kept(flight.content)

    def retire(self, flight: WholeFlight) -> None:
        with self._lock:
            if self._whole.get(flight.content.key) is flight:
                self._forget(self._whole, flight.content.key)

    def grow(self, flight: WholeFlight, size: int) -> Run:
        readers: list[tuple[Span, Future[bytes]]] = []
        while True:
            blocks = self._blocks_flight(flight.content, size, self._ends)
            self.retire(flight)
            readers += flight.take_readers()
            if blocks is None:
                continue
            run = blocks.adopt(Span(0, WHOLE_MAX), flight.load, flight.urgency, readers)
            if run is not None:
                return run

    def hash(self, work: Callable[[], None], refused: Callable[[], None]) -> None:
        try:
            # Not cancelled by the executor: it would call back with its lock held.
            self._prover.submit(lambda: refused() if self._closing else work())
        except RuntimeError:
            refused()

    def settle(self, flight: ProvedFlight) -> None:
        with self._lock:
            over = flight.end_if_idle() and self._large.get(flight.content.key) is flight
            if over:
                self._forget(self._large, flight.content.key)
        if over:
            flight.close()

    def proved(self, flight: ProvedFlight, *, right: bool) -> None:
        with self._lock:
            self._broken.pop(flight.content.key, None)
            if not right:
                self._broken[flight.content.key] = time.monotonic()
            while len(self._broken) > BROKEN_MAX:
                self._broken.popitem(last=False)
        (self._kept if right else self._disproved)(flight.content)

    def unpublished(self, flight: ProvedFlight) -> None:
        with self._lock:
            self._unpublished[flight.content.key] = None
            while len(self._unpublished) > BROKEN_MAX:
                self._unpublished.popitem(last=False)

    def _stored(self, content: Content, span: Span) -> bytes | None:
        found = self.file(content)
        if found is None:
            return None
        try:
            return found.read(span.start, span.size)
        except OSError:
            return None  # damage is a miss
        finally:
            found.close()

    def _known_size(self, content: Content) -> int | None:
        size = content.size if content.size is not None else self._store.size(content)
        if size is None:
            with self._lock:
                flight = self._large.get(content.key)
            size = flight.size if flight is not None else None
        return size

    def _fetch(self, content: Content, span: Span, urgency: Urgency, before: int) -> Answer[bytes] | None:
        """Join or start a flight; None when it ended meanwhile, and the store must be asked again."""
        size = self._known_size(content)
        if size is not None and size > WHOLE_MAX:
            if self._just_broken(content):
                return _failed(IntegrityError(f"{content.entry.path}: its bytes were wrong just now"))
            blocks = self._blocks_flight(content, size, before)
            return blocks.read(span, urgency) if blocks is not None else None
        flight, fresh = self._whole_flight(content, urgency, before)
        if flight is None:
            return None
        answer = flight.want_bytes(span)
        self._begin(flight, urgency, fresh)
        return answer

    def _just_broken(self, content: Content) -> bool:
        with self._lock:
            found = self._broken.get(content.key)
        return found is not None and time.monotonic() - found < WRONG_SECONDS

    def _whole_flight(self, content: Content, urgency: Urgency, before: int) -> tuple[WholeFlight | None, bool]:
        """Give the flight and whether it is new; None when one has ended since `before`: the store may have it now."""
        with self._lock:
            flight = self._whole.get(content.key)
            if flight is not None or self._just_ended.get(content.key, -1) >= before:
                return flight, False
            flight = self._whole[content.key] = WholeFlight(content, urgency, self)
            return flight, True

    def _begin(self, flight: WholeFlight, urgency: Urgency, fresh: bool) -> None:
        if fresh:
            flight.start(self._loader)
        else:
            flight.promote(urgency)

    def _blocks_flight(self, content: Content, size: int, before: int) -> BlocksFlight | None:
        """Give the flight, the running one or a new one; None when one has ended since `before`."""
        with self._lock:
            flight = self._large.get(content.key)
            ended = self._just_ended.get(content.key, -1) >= before
        if flight is not None or ended:
            return flight
        partial = self._store.partial(content, size)
        unused = None
        with self._lock:
            flight = self._large.get(content.key)
            if flight is None:
                hold = self._hold(content)
                self._large[content.key] = flight = BlocksFlight(content, partial, self, self._loader, hold)
                resumes = content.key not in self._unpublished
            else:
                unused, resumes = partial, False
        if unused is not None:
            unused.close()
        if resumes:
            flight.resume()
        return flight

    def _hold(self, content: Content) -> Hold:
        """With the lock held."""
        if content.hashed and content.key in self._broken:
            return Hold.ALL
        return Hold.LAST if content.hashed and content.key not in self._unpublished else Hold.NONE

    def _forget(self, flights: dict[ContentId, WholeFlight] | dict[ContentId, BlocksFlight], key: ContentId) -> None:
        """With the lock held."""
        del flights[key]
        self._just_ended[key] = self._ends
        self._just_ended.move_to_end(key)
        self._ends += 1
        while len(self._just_ended) > JUST_ENDED:
            self._just_ended.popitem(last=False)


def _failed(error: IntegrityError) -> Future[bytes]:
    failed: Future[bytes] = Future()
    failed.set_exception(error)
    return failed
