"""What the hub was asked: for tests that count requests and bytes."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

RECORDS_KEPT = 200_000
"""Requests remembered one by one; the totals go on for ever."""


@dataclass(slots=True)
class Record:
    """One request. `bytes` of its body were handed to the network; `span` is its Range header."""

    method: str
    kind: str
    path: str
    status: int
    span: str | None = None
    bytes: int = 0


class Requests:
    """Counters of every request, thread-safe. A request and its bytes are counted before they are sent, so that a
    client that has the answer finds it counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def begin(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)
            self._counts[record.kind] += 1
            self._bytes[record.kind] += record.bytes
            self._statuses[record.status] += 1
            if record.kind == "raw" and record.method == "GET":
                self._raw_paths[record.path] += 1

    def add_bytes(self, record: Record, size: int) -> None:
        """Correct a record's bytes; `size` is negative for what could not be sent."""
        with self._lock:
            record.bytes += size
            self._bytes[record.kind] += size

    def next_number(self, kind: str, path: str) -> int:
        """Give how many requests of this kind came for this path before."""
        with self._lock:
            number = self._numbers[kind, path]
            self._numbers[kind, path] += 1
        return number

    def leak(self, path: str) -> None:
        """Note that another origin was sent an Authorization."""
        with self._lock:
            self._leaks.append(path)

    def count(self, kind: str | None = None) -> int:
        with self._lock:
            return sum(self._counts.values()) if kind is None else self._counts[kind]

    def bytes(self, kind: str | None = None) -> int:
        with self._lock:
            return sum(self._bytes.values()) if kind is None else self._bytes[kind]

    @property
    def records(self) -> list[Record]:
        with self._lock:
            return list(self._records)

    @property
    def raw_paths(self) -> Counter[str]:
        """Path in the repository -> GET requests of its bytes, those that failed included."""
        with self._lock:
            return Counter(self._raw_paths)

    @property
    def leaks(self) -> list[str]:
        """Paths for which another origin was sent an Authorization."""
        with self._lock:
            return list(self._leaks)

    def summary(self) -> dict[str, Any]:
        """Give the totals as JSON values."""
        with self._lock:
            return {
                "requests": dict(self._counts),
                "bytes": dict(self._bytes),
                "statuses": {str(status): n for status, n in self._statuses.items()},
                "raw_paths": {_printable(path): n for path, n in self._raw_paths.items()},
                "leaks": [_printable(path) for path in self._leaks],
            }

    def reset(self) -> None:
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._records: deque[Record] = deque(maxlen=RECORDS_KEPT)
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._raw_paths: Counter[str] = Counter()
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._leaks: deque[str] = deque(maxlen=RECORDS_KEPT)


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
