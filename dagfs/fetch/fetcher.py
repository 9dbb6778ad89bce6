"""Runs loads: the queue, the retries and the end of each."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dagfs.errors import ContentChanged, DagfsError, ProtocolError, RemoteError, RemoteUnavailable
from dagfs.fetch.assembly import OtherSize, SizeNeeded
from dagfs.fetch.blobs import BlobIds
from dagfs.fetch.job import Attempt, Job, State
from dagfs.fetch.queue import Queue
from dagfs.fetch.retries import delay_of
from dagfs.fetch.seam import LoadSink
from dagfs.fetch.slots import Slots
from dagfs.fetch.timer import Timer
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import Commit, Content, Span, Urgency

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds without a byte after which a load fails: a hub's restart is survived, and a program is told before a person
takes it for dead."""

WAITED_ENOUGH = 0.75
"""Share of the patience after which a load that waits for a slot is given up together with one that had its slot."""

CONGESTION_POLL = 0.05
"""Seconds after which guesses held back for the disk are looked at again."""


class Fetcher:
    """Implements `seam.Loader`, for contents of `commit` unless they name another. Sinks are never called with `_lock`
    held, which is a leaf."""

    def __init__(  # noqa: PLR0913, PLR0917 -- the last three are for the mount alone
        self,
        source: Source,
        commit: Commit,
        metrics: Metrics,
        slots: Slots | None = None,
        congested: Callable[[], bool] = lambda: False,
        hold: Callable[[Content, str | None], None] = lambda content, validator: None,
    ) -> None:
        """`congested`: more guesses would not be kept; only readers and read-ahead start while it says so. `hold`: see
        `job.Attempt`."""
        self.patience = PATIENCE
        self._source = source
        self._commit = commit
        self._metrics = metrics
        self._congested = congested
        self._hold = hold
        self._blob_ids = BlobIds()
        self._timer = Timer()
        self._describer = ThreadPoolExecutor(2, thread_name_prefix="fetch-size")
        self._lock = threading.Lock()  # guards everything below, and each job's state, urgency and cancelled
        self._queue = Queue(slots or Slots())
        self._jobs: set[Job] = set()  # that have not ended
        self._last_byte = 0.0  # when one came for a load that has ended a body, on the monotonic clock
        self._wakes: set[float] = set()  # times at which the timer looks at the queue
        self._closed = False

    def load(self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink) -> Handle:
        """Bring the bytes of `span`; None is a small file whole, or the size and the beginning of a large one."""
        job = Job(content, span, urgency, sink, self._blob_ids)
        with self._lock:
            closed = self._closed
            if not closed:
                self._jobs.add(job)
                self._queue.add(job)
            else:
                job.state = State.ENDED
        if closed:
            sink.finished(RemoteUnavailable("the mount is closed"))
        self._metrics.add("fetch.loads")
        self._pump()
        return Handle(self, job)

    def in_flight(self) -> tuple[int, int]:
        """Give how many transfers run, and how many loads wait."""
        with self._lock:
            return self._queue.running, len(self._jobs) - self._queue.running

    def close(self) -> None:
        """End every load; each is told."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        self._timer.close()
        for job in jobs:
            self.cancel(job)
        self._describer.shutdown(wait=False, cancel_futures=True)

    def promote(self, job: Job, urgency: Urgency) -> None:
        with self._lock:
            if urgency >= job.urgency:
                return
            waits = self._queue.remove(job)
            job.urgency = urgency
            if waits:
                self._queue.add(job)
        self._pump()

    def cancel(self, job: Job) -> None:
        with self._lock:
            if job.cancelled or job.state is State.ENDED:
                return
            job.cancelled = True
            self._queue.remove(job)  # in the same breath: nobody may start it any more
            attempt = job.attempt if job.state is State.RUNNING else None
        if attempt is not None:
            attempt.stop()
        else:
            self._finish(job, _cancelled(job))

    def _pump(self) -> None:
        """Start what may run."""
        while True:
            guesses = not self._congested()
            with self._lock:
                now = time.monotonic()
                job = self._queue.start(now, guesses=guesses)
                if not isinstance(job, Job):
                    wake = self._wake_time(now, guesses)
                    break
                job.state = State.RUNNING
                job.attempt = attempt = Attempt(job, self._ended, self._hold)
                job.progress = job.progress or now
            error = self._open(job, attempt)
            if error is not None:
                self._settle(job, attempt, error)
        if wake is not None:
            self._timer.after(wake - now, lambda: self._woken(wake))

    def _wake_time(self, now: float, guesses: bool) -> float | None:
        """Say when to look again at a queue that is paused or held back; with the lock held."""
        if not len(self._queue):
            return None
        paused = self._queue.slots.paused_until
        wake = paused if paused > now else self._queue.bets_at(now) if guesses else now + CONGESTION_POLL
        wake = min(wake, max(paused, self._queue.lends_at()))
        if wake == math.inf or any(other <= wake for other in self._wakes):
            return None
        self._wakes.add(wake)
        return wake

    def _woken(self, wake: float) -> None:
        with self._lock:
            self._wakes.discard(wake)
        self._pump()

    def _open(self, job: Job, attempt: Attempt) -> DagfsError | None:
        """Start a body; give why it cannot be. To end the load here would call `_pump` again for each that waits."""
        self._metrics.add("fetch.transfers")
        try:
            transfer = self._source.open(
                job.content.commit or self._commit, job.content.entry, job.assembly.request(), attempt
            )
        except DagfsError as error:
            return error
        except Exception as error:  # whoever waits for this load must hear of it
            log.exception("%r cannot be started", job)
            return ProtocolError(f"{job.content.entry.path}: {error!r}")
        attempt.began(transfer)
        return None

    def _ended(self, job: Job, attempt: Attempt, error: BaseException | None) -> None:
        """A body has ended, in the transport's thread."""
        self._settle(job, attempt, error)
        self._pump()

    def _settle(self, job: Job, attempt: Attempt, error: BaseException | None) -> None:
        self._metrics.add("fetch.received_bytes", attempt.moved)
        now = time.monotonic()
        with self._lock:
            started_as = self._queue.ended(job, now)
            job.state = State.WAITING
            self._last_byte = max(self._last_byte, attempt.last_byte)
            slots = self._queue.slots
            if isinstance(error, RemoteUnavailable) and not job.cancelled:
                pause = error.retry_after  # nobody waits longer than for a hub that says nothing
                slots.refused(now, None if pause is None else min(pause, self.patience))
            elif error is None:
                crowded = self._queue.running + 1 >= slots.lower
                slots.ended(attempt.moved, now, busy=len(self._queue) > 0, crowded=crowded)
                if started_as is Urgency.READER and job.weight:
                    wait, body = attempt.first_byte - attempt.opened, attempt.last_byte - attempt.first_byte
                    self._queue.pace.measured(wait, max(0.0, body))
            cancelled = job.cancelled
        if error is None or cancelled:
            self._finish(job, error if isinstance(error, DagfsError) or error is None else _cancelled(job))
        elif isinstance(error, SizeNeeded):
            self._ask_size(job)
        else:
            self._retry(job, error, now)

    def _retry(self, job: Job, error: BaseException, now: float) -> None:
        delay = delay_of(job, error, now, self.patience)
        if delay is None:
            given_up = error if isinstance(error, DagfsError) else RemoteUnavailable(repr(error))
            if isinstance(error, OtherSize):
                given_up = ContentChanged(f"it has changed in the bucket: {error}")
            for ended in (job, *(self._hopeless(now) if isinstance(error, RemoteError) else ())):
                self._finish(ended, given_up)
            return
        self._metrics.add("fetch.retries")
        self._timer.after(delay, lambda: self._requeue(job))

    def _hopeless(self, now: float) -> list[Job]:
        """Give the loads that have waited about as long for a slot, while no byte came for anybody: each batch of them
        would wait as long again for its turn."""
        with self._lock:
            moved = max([self._last_byte, *(job.attempt.last_byte for job in self._jobs if job.attempt is not None)])
            since = now - WAITED_ENOUGH * self.patience
            return [job for job in self._jobs if job.state is State.QUEUED and max(job.asked, moved) <= since]

    def _requeue(self, job: Job) -> None:
        with self._lock:
            if job.state is not State.WAITING or job.cancelled:
                return
            job.state = State.QUEUED
            self._queue.add(job)
        self._pump()

    def _ask_size(self, job: Job) -> None:
        """Ask the hub for the size of a file that turned out large; in a thread of its own, since it blocks."""
        try:
            self._describer.submit(self._describe, job)
        except RuntimeError:
            self._finish(job, RemoteUnavailable("the mount is closed"))

    def _describe(self, job: Job) -> None:
        try:
            commit = job.content.commit or self._commit
            size = self._source.describe(commit, job.content.entry.path, sized=True).size
        except RemoteError:
            size = None  # it can also be learnt from the bytes
        except DagfsError as error:
            self._finish(job, error)
            return
        with self._lock:
            ended = job.cancelled or job.state is not State.WAITING
        if ended:
            return
        if job.assembly.learnt(size):
            self._finish(job, None)
        else:
            self._requeue(job)

    def _finish(self, job: Job, error: DagfsError | None) -> None:
        with self._lock:
            if job.state is State.ENDED:
                return
            self._queue.remove(job)
            self._jobs.discard(job)
            job.state = State.ENDED
        if error is not None:
            self._metrics.add("fetch.failures")
            error = job.assembly.verdict(error)
        job.sink.finished(error)


class Handle:
    """Implements `seam.Load`."""

    def __init__(self, fetcher: Fetcher, job: Job) -> None:
        self._fetcher = fetcher
        self._job = job

    def promote(self, urgency: Urgency) -> None:
        self._fetcher.promote(self._job, urgency)

    def cancel(self) -> None:
        self._fetcher.cancel(self._job)

    def __repr__(self) -> str:
        return repr(self._job)


def _cancelled(job: Job) -> DagfsError:
    return RemoteUnavailable(f"{job.content.entry.path}: the load was cancelled")
