"""What a mount without a network was asked for and did not have: for `dagfs status` to tell what to warm."""

from __future__ import annotations

import threading
from typing import Any

from dagfs.errors import Offline
from dagfs.model import printable

KEPT = 10_000
"""Paths of each kind that are told apart; beyond, counts stay where they are."""

SHOWN = 100


class Missing:
    """Paths that operations failed for, each counted once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listings: dict[str, None] = {}
        self._files: dict[str, None] = {}

    def note(self, error: Offline) -> None:
        with self._lock:
            paths = self._listings if error.listing else self._files
            if len(paths) < KEPT:
                paths[error.path] = None

    def report(self) -> dict[str, Any]:
        """Count directories whose listing and files whose bytes were missing, and name some, the directories first."""
        with self._lock:
            listings, files = list(self._listings), list(self._files)
        paths = [*(f"{path}/" for path in listings[:SHOWN]), *files[:SHOWN]][:SHOWN]
        return {"directories": len(listings), "files": len(files), "paths": [printable(path) for path in paths]}
