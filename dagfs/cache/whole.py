"""The flight of a file fetched whole, or of one whose size is not known yet."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Protocol

from dagfs.cache.runs import Run
from dagfs.errors import DagfsError, ProtocolError
from dagfs.fetch.seam import WHOLE_MAX, Load, Loader
from dagfs.model import Content, Proof, Span, Urgency


class Owner(Protocol):
    """What the flight needs of the cache."""

    def keep(self, flight: WholeFlight, data: bytes, proof: Proof) -> None:
        """All bytes have come: store them and forget the flight."""

    def retire(self, flight: WholeFlight) -> None:
        """Forget the flight."""

    def grow(self, flight: WholeFlight, size: int) -> Run:
        """The file is large: go on with its blocks, which take the rest of the load."""


class WholeFlight:
    """One load, any number of waiters. `_lock` is a leaf; futures are completed and rooms called outside of it."""

    def __init__(self, content: Content, urgency: Urgency, owner: Owner) -> None:
        self.content = content
        self.urgency = urgency
        self._owner = owner
        self._lock = threading.Lock()  # guards everything below
        self.size = content.size
        self.load: Load | None = None
        self._ended = False
        self._sizes: list[Future[int]] = []
        self._readers: list[tuple[Span, Future[bytes]]] = []
        self._wanted = False  # the bytes are, not the size alone
        self._grows = False  # the file turned out large: no reader is taken any more
        self._blocks: Run | None = None  # takes the rest of the load; set once when it grows

    def want_size(self) -> Future[int] | int | None:
        """Give the size or its promise; None when the flight is over."""
        with self._lock:
            if self.size is not None:
                return self.size
            if self._ended:
                return None
            later: Future[int] = Future()
            self._sizes.append(later)
            return later

    def want_bytes(self, span: Span | None) -> Future[bytes] | None:
        """Give the promise of a span's bytes, without a reader when it is None; None when the flight is over."""
        later: Future[bytes] = Future()
        with self._lock:
            if self._ended or self._grows:
                return None
            self._wanted = True
            if span is not None:
                self._readers.append((span, later))
            return later

    def start(self, loader: Loader) -> None:
        load = loader.load(self.content, None, self.urgency, self)
        with self._lock:
            self.load = load
            urgency = self.urgency
            if self._blocks is not None:
                self._blocks.load = load
        load.promote(urgency)

    def promote(self, urgency: Urgency) -> None:
        with self._lock:
            if urgency >= self.urgency:
                return
            self.urgency = urgency
            load = self.load
        if load is not None:
            load.promote(urgency)

    def sized(self, size: int) -> None:
        with self._lock:
            self.size = size
            waiting, self._sizes = self._sizes, []
            large = size > WHOLE_MAX
            self._grows = large and self._wanted
            self._ended = large and not self._wanted
            load = self.load
        for later in waiting:
            later.set_result(size)
        if self._grows:
            blocks = self._owner.grow(self, size)
            with self._lock:
                self._blocks = blocks
                blocks.load = self.load  # None as long as `start` has not got it
        elif large:
            self._owner.retire(self)
            if load is not None:
                load.cancel()

    def whole(self, data: bytes, proof: Proof) -> None:
        self._owner.keep(self, data, proof)
        for span, later in self._end():
            later.set_result(data[span.start : span.end])

    def piece(self, offset: int, data: bytes) -> None:
        blocks = self._blocks
        if blocks is not None:
            blocks.piece(offset, data)
        elif self.load is not None:
            self.load.cancel()  # the size alone was wanted, and the load was not known yet when it came

    def finished(self, error: DagfsError | None) -> None:
        if self._blocks is not None:
            self._blocks.finished(error)
        failure = error or ProtocolError(f"{self.content.entry.path}: the load ended without its bytes")
        readers = self._end()
        with self._lock:
            sizes, self._sizes = self._sizes, []
        for size_later in sizes:
            size_later.set_exception(failure)
        for _, later in readers:
            later.set_exception(failure)

    def take_readers(self) -> list[tuple[Span, Future[bytes]]]:
        with self._lock:
            readers, self._readers = self._readers, []
            return readers

    def _end(self) -> list[tuple[Span, Future[bytes]]]:
        self._owner.retire(self)
        with self._lock:
            self._ended = True
        return self.take_readers()
