"""The proof of a large file: hashed along with what comes, completed when all is there; who has to wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from dagfs.cache.runs import Hold, Reader, Run, overlap
from dagfs.errors import DagfsError, Disproved, IntegrityError, RemoteUnavailable
from dagfs.model import Content, Span
from dagfs.store.seam import PartialFile

log = logging.getLogger(__name__)

ROUNDS = 3
"""Loads that a reader waits for before its blocks are given up: one more than a block damaged on disk needs."""


class Owner(Protocol):
    """What the flight needs of the cache."""

    def hash(self, work: Callable[[], None], refused: Callable[[], None]) -> None:
        """Do `work`, which hashes a while, in the prover's thread; `refused` is called when the cache closes first."""

    def settle(self, flight: ProvedFlight) -> None:
        """Forget the flight if it is idle."""

    def proved(self, flight: ProvedFlight, *, right: bool) -> None:
        """The whole file was hashed."""

    def unpublished(self, flight: ProvedFlight) -> None:
        """The disk did not take the whole file; not to be tried again for each read."""


class ProvedFlight:
    """The half of `BlocksFlight` that proves. Lock order: the cache's, `_lock`, the partial file's.

    While a file is complete and held, its proof is under way: whoever makes it complete, or finds it so, begins it.
    """

    def __init__(self, content: Content, partial: PartialFile, owner: Owner, hold: Hold) -> None:
        self.content = content
        self.size = partial.size
        self._partial = partial
        self._owner = owner
        self._damaged = 0  # proofs that found a block damaged; of the prover's thread
        self._lock = threading.Lock()  # guards everything below
        self._hold = hold
        self._proves = content.hashed
        self._runs: list[Run] = []
        self._readers: list[Reader] = []
        self._publishing = False
        self._published = False  # or the disk did not take it
        self._hashing = False  # along with what comes
        self._behind = False  # more has come since the prover looked last
        self._wrong: IntegrityError | None = None  # then nothing is given any more
        self._using = 0  # threads that read the partial file outside of the lock
        self._ended = False  # then the partial file is closed, or about to be

    def _serve(self) -> None:
        """Give their bytes to the readers that wait for nothing more."""
        raise NotImplementedError

    def _replan(self) -> None:
        """Blocks that were there are gone: fetch those that others wait for."""
        raise NotImplementedError

    def end_if_idle(self) -> bool:
        """End the flight when nothing comes and nobody waits; True when it is over, and `close` is due."""
        with self._lock:
            busy = self._runs or self._readers or self._publishing or self._hashing or self._using
            self._ended = self._ended or not busy
            return self._ended

    def close(self) -> None:
        self._partial.close()

    def _holds(self, span: Span) -> bool:
        """Say whether a span that is there has to wait for the proof."""
        last = self._partial.completing if self._hold is Hold.LAST else None
        return self._hold is Hold.ALL or (last is not None and overlap(span, last))

    def _hash_along(self) -> None:
        with self._lock:
            self._behind = True
            if self._hashing or self._publishing or self._ended:
                return
            self._hashing = True
        self._owner.hash(self._advance, self._stop_hashing)

    def _advance(self) -> None:
        """Hash a step of what has come without a gap, in the prover's thread."""
        self._behind = False  # before the look: who comes after it sets it again
        try:
            more = self._partial.advance()
        except Exception as error:  # noqa: BLE001 -- who publishes finds it again, and tells
            log.debug("%s cannot be hashed yet: %s", self.content.entry.path, error)
            more = False
        with self._lock:
            self._hashing = more = more or self._behind
        if more:
            self._owner.hash(self._advance, self._stop_hashing)
        else:
            self._owner.settle(self)

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

    def _disprove(self, error: Disproved) -> None:
        """Bytes were given that no hash could find wrong; what they came in was damaged."""
        log.warning("%s", error)
        self._partial.forget()
        self._owner.proved(self, right=False)
        self._settle_proof(Hold.ALL, error, wrong=error)

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

    def _begin_publishing(self) -> bool:
        """Say whether every block is there and nobody publishes them yet; with the lock held."""
        if self._publishing or self._published or self._wrong is not None:
            return False
        if self._partial.completing:
            self._publishing = self._proves or not self._runs  # without a hash, the end of what brings them tells
        if self._publishing or self._runs:
            return self._publishing
        # The ends first: of a file that is read in order the last block comes last.
        edges = (Span(self.size - 1, self.size), Span(0, 1), Span(0, self.size))
        self._publishing = not any(self._partial.missing(edge) for edge in edges)
        return self._publishing
