"""What is remembered of contents, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

KEPT = 65_536


class Marks(Generic[V]):
    """MD5 -> value; thread-safe. What was marked first is forgotten first."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._marks: OrderedDict[str, V] = OrderedDict()

    def put(self, md5: str, value: V) -> None:
        with self._lock:
            self._marks[md5] = value
            if len(self._marks) > self._limit:
                self._marks.popitem(last=False)

    def get(self, md5: str) -> V | None:
        return self._marks.get(md5)

    def pop(self, md5: str) -> V | None:
        with self._lock:
            return self._marks.pop(md5, None)

    def older(self, limit: V) -> list[str]:
        """Take out the marks whose value is below `limit`; they were put in the order of their values."""
        taken = []
        with self._lock:
            while self._marks:
                md5, value = next(iter(self._marks.items()))
                if not value < limit:  # type: ignore[operator]  # of marks that are times
                    break
                del self._marks[md5]
                taken.append(md5)
        return taken

    def __len__(self) -> int:
        return len(self._marks)
