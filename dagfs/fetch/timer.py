"""One thread that calls functions later."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Timer:
    """Thread-safe; the thread starts with the first call. What is called must not block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call in `delay` seconds; never when the timer is closed before."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._ticket), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fetch-timer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:
                log.exception("a delayed call failed")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                delay = self._due[0][0] - time.monotonic() if self._due else None
                if delay is not None and delay <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(delay)
            return None
