"""What the cache's disk refuses: a line in the log, and a word in `dagfs status` until it takes something again."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

LOGGED_EVERY = 60.0
"""Seconds: a disk that is all but full takes one file and refuses the next."""


class Complaint:
    """Thread-safe: each field is set by itself, and what two threads say at once is the same."""

    def __init__(self) -> None:
        self.text: str | None = None  # of the disk's last refusal, since it last took something
        self._log_at = 0.0  # of the monotonic clock

    def make(self, error: BaseException) -> None:
        if self.text is None and time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOGGED_EVERY
            log.warning("the cache cannot be written, reads go on without it: %s", error)
        self.text = str(error)

    def over(self) -> None:
        """The disk has taken something."""
        self.text = None
