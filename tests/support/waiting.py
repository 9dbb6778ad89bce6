"""Waiting for what another thread or process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60  # far more than anything takes that nobody promises to be quick
POLL_SECONDS = 0.02


def until(condition: Callable[[], object], what: str = "it", seconds: float = SECONDS) -> None:
    """Ask again and again until it holds. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(POLL_SECONDS)
