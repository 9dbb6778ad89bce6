"""The symbolic links that were asked for and lead out of the mount: counted and named for `dagfs status`."""

from __future__ import annotations

import threading

REFUSED_KEPT = 10_000
"""Refused links that are told apart; no more are counted."""


class Refused:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[int, str] = {}  # node -> what was said of it

    def note(self, node: int, text: str) -> None:
        with self._lock:
            if len(self._links) < REFUSED_KEPT:
                self._links[node] = text

    def told(self, limit: int) -> tuple[int, list[str]]:
        """Count them, and give some."""
        with self._lock:
            return len(self._links), list(self._links.values())[:limit]
