"""A load: its assembly, the body under way, and what was tried so far."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable

from dagfs.errors import DagfsError, ProtocolError, RemoteError
from dagfs.fetch.assembly import Assembly, SizeNeeded
from dagfs.fetch.blobs import BlobIds
from dagfs.fetch.seam import WHOLE_MAX, LoadSink
from dagfs.hub.source import BodyHead, Transfer
from dagfs.model import Content, Span, Urgency

log = logging.getLogger(__name__)

UNKNOWN_WEIGHT = 256 << 10
"""Bytes that a file of unknown size is taken for."""


class State(enum.Enum):
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    WAITING = enum.auto()  # for a retry, or for the size
    ENDED = enum.auto()


class Job:
    """One load. `state`, `urgency` and `cancelled` are guarded by the fetcher's lock; the rest belongs to whoever runs
    the body, one thread at a time."""

    def __init__(
        self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink, blob_ids: BlobIds
    ) -> None:
        self.content = content
        self.urgency = urgency
        self.sink = sink
        self.assembly = Assembly(content, span, sink, blob_ids)
        self.weight = 0 if span is not None else min(content.size or UNKNOWN_WEIGHT, WHOLE_MAX)
        self.state = State.QUEUED
        self.cancelled = False
        self.attempt: Attempt | None = None
        self.asked = time.monotonic()
        self.progress: float | None = None  # when it started, or when new bytes came last, on the monotonic clock
        self.furthest: int | None = None  # offset; bytes before it that come again are no progress
        self.failures = 0  # since the last progress
        self.integrity_failures = 0
        self.denials = 0

    @property
    def heard(self) -> float:
        """When its body was asked for, or brought something last, on the monotonic clock."""
        attempt = self.attempt
        return self.asked if attempt is None else max(attempt.opened, attempt.first_byte, attempt.last_byte)

    def __repr__(self) -> str:
        return f"<load of {self.content.entry.path} {self.state.name} {self.urgency.name}>"


class Attempt:
    """One body of a load: the sink of the transport. Calls `ended` once, with the error or None."""

    def __init__(
        self,
        job: Job,
        ended: Callable[[Job, Attempt, BaseException | None], None],
        hold: Callable[[Content, str | None], None],
    ) -> None:
        """`hold` raises ContentChanged when a body with this validator is of another version than was read before."""
        self.moved = 0  # bytes
        self.opened = time.monotonic()
        self.first_byte = 0.0  # when the head came; this and the next on the monotonic clock
        self.last_byte = 0.0
        self._job = job
        self._ended = ended
        self._hold = hold
        self._error: BaseException | None = None  # what the bytes were found to be, before the transport's word
        self._transfer: Transfer | None = None
        self._stopped = False

    def began(self, transfer: Transfer) -> None:
        self._transfer = transfer
        if self._stopped:
            transfer.cancel()

    def stop(self) -> None:
        self._stopped = True
        if self._transfer is not None:
            self._transfer.cancel()

    def head(self, head: BodyHead) -> None:
        self.first_byte = time.monotonic()
        self._take(lambda: self._begin(head))

    def data(self, chunk: bytes) -> None:
        self.moved += len(chunk)
        self.last_byte = time.monotonic()
        job = self._job
        furthest = job.assembly.position if job.furthest is None else job.furthest
        self._take(lambda: job.assembly.data(chunk))
        job.furthest = max(furthest, job.assembly.position)
        if job.furthest > furthest:
            job.progress = self.last_byte
            job.failures = 0

    def done(self, error: DagfsError | None) -> None:
        assembly = self._job.assembly
        if self.moved and isinstance(error, RemoteError) and not self._stopped and assembly.satisfied:
            error = None
        if error is None and not self._stopped:
            self._take(assembly.complete)
        failure = self._error or error
        if failure is not None:
            failure = assembly.broken_off(failure)
        self._ended(self._job, self, failure)

    def _begin(self, head: BodyHead) -> None:
        self._hold(self._job.content, head.validator)
        self._job.assembly.head(head)

    def _take(self, step: Callable[[], None]) -> None:
        if self._stopped:
            return
        try:
            step()
        except (DagfsError, SizeNeeded) as error:
            self._error = error
            self.stop()
        except Exception as error:  # a sink's own fault must not end the transport's thread
            log.exception("a body of %s could not be taken", self._job.content.entry.path)
            self._error = ProtocolError(f"{self._job.content.entry.path}: {error!r}")
            self.stop()
