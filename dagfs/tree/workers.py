"""The threads that ask the hub for metadata: lookups that a program waits for go before listings that it may want."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

THREADS = 20
BACKGROUND = 16
"""Listings fetched ahead at a time: at 20 ms each, 800 directories a second; four threads stay for who waits."""


CLOSE_SECONDS = 2.0
"""An unmount must not wait for a hub that hangs."""


class Job:
    """Work that is done once, by whichever queue gives it out first."""

    __slots__ = ("background", "dropped", "run", "taken")

    def __init__(self, run: Callable[[], None], background: bool, dropped: Callable[[], None]) -> None:
        self.run = run
        self.dropped = dropped
        self.background = background
        self.taken = False  # guarded by Workers._lock


class Workers:
    """A bounded pool with two classes. Threads start when needed and end with `close`.

    Lock order: `_lock` is a leaf; jobs run outside of it. A job must not wait for another job: the pool is bounded.
    """

    def __init__(self, threads: int = THREADS, background: int = BACKGROUND) -> None:
        self._limit = threads
        self._background_limit = background
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._urgent: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._running_background = 0  # never above _background_limit
        self._closed = False

    def submit(
        self, run: Callable[[], None], *, background: bool = False, dropped: Callable[[], None] = lambda: None
    ) -> Job:
        """Queue `run`, which must not raise. `dropped` is called in its place when the pool has been closed."""
        job = Job(run, background, dropped)
        with self._lock:
            closed = self._closed
            if not closed:
                (self._background if background else self._urgent).append(job)
                self._call_thread()
        if closed:
            dropped()
        return job

    def promote(self, job: Job) -> None:
        """Let a background job that is still queued go with the urgent ones."""
        with self._lock:
            if job.background and not job.taken and not self._closed:
                job.background = False
                self._urgent.append(job)  # its other place in the queue is skipped: it will be taken
                self._call_thread()

    def close(self) -> None:
        """Drop what is queued and wait a little for what runs; what hangs on the hub is left to end by itself."""
        with self._lock:
            self._closed = True
            queued = dict.fromkeys((*self._urgent, *self._background))  # a promoted job is in both
            left = [job for job in queued if not job.taken]
            self._urgent.clear()
            self._background.clear()
            self._wake.notify_all()
            threads = list(self._threads)
        for job in left:
            job.dropped()
        end = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=max(0.0, end - time.monotonic()))

    def _call_thread(self) -> None:
        queued = len(self._urgent) + len(self._background)
        if self._idle < queued and len(self._threads) < self._limit:
            thread = threading.Thread(target=self._work, name=f"metadata-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._wake.notify()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            background = job.background
            try:
                job.run()
            except Exception:
                log.exception("a metadata job failed")
            del job  # an idle thread would keep the tree of a commit that nobody is in any more
            if background:
                with self._lock:
                    self._running_background -= 1
                    self._wake.notify()

    def _next(self) -> Job | None:
        with self._lock:
            while not self._closed:
                job = self._take()
                if job is not None:
                    return job
                self._idle += 1
                self._wake.wait()
                self._idle -= 1
            return None

    def _take(self) -> Job | None:
        while self._urgent:
            job = self._urgent.popleft()
            if not job.taken:
                job.taken = True
                return job
        while self._background and self._running_background < self._background_limit:
            job = self._background.popleft()
            if not job.taken:
                job.taken = True
                self._running_background += 1
                return job
        return None
