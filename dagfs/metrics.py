"""Counters of what the daemon has done: requests, bytes, hits, errors. No global state: one object a daemon."""

from __future__ import annotations

import threading
from collections import Counter


class Metrics:
    """Named counters, thread-safe. Names are `room.what`, bytes end in `_bytes`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)
