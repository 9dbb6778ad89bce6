"""How long to go on asking a hub that gives no answer."""

from __future__ import annotations

import random
import threading
import time

from dagfs.errors import AccessDenied, ProtocolError, RemoteError, RemoteUnavailable

FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0
DENIALS_MAX = 24
"""Refusals of one request while its token may be replaced; a path that is refused for ever ends by it."""

PROTOCOL_TRIES = 3
"""An answer that makes no sense three times will make none at the fourth."""


class Backoff:
    """Waits between tries: doubling, jittered so that many clients do not come back together, and bounded.

    `patience`: seconds without progress after which the last error is raised; `tries`: how many failures it takes at
    most. `closing` ends a wait.
    """

    def __init__(self, patience: float, closing: threading.Event, tries: int | None = None) -> None:
        self._patience = patience
        self._closing = closing
        self._tries = tries
        self._denials = 0
        self.progress()

    def progress(self) -> None:
        """The hub has answered in part: begin anew."""
        self._deadline = time.monotonic() + self._patience
        self._failures = 0

    def await_token(self, error: AccessDenied) -> None:
        """Sleep until a new token may be there, or raise `error` when none is to be expected."""
        self._denials += 1
        if error.retry_after is None or self._denials > DENIALS_MAX or self._closing.wait(error.retry_after):
            raise error

    def wait(self, error: RemoteError) -> None:
        """Sleep before the next try, or raise `error` when there is none."""
        self._failures += 1
        pause = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self._failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter  # nosec B311
        if isinstance(error, RemoteUnavailable) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        tries = PROTOCOL_TRIES if isinstance(error, ProtocolError) else self._tries
        exhausted = tries is not None and self._failures >= tries
        if exhausted or time.monotonic() + pause > self._deadline or self._closing.wait(pause):
            raise error
