"""How the hub stands to us: whether it answers, and what becomes of requests while it refuses the token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dagfs.errors import AccessDenied, DagfsError, RemoteUnavailable, Stalled
from dagfs.hub.auth import Token

GRACE_SECONDS = 10.0
"""A token in a file may be replaced a little after the hub has dropped it: so long readers wait for the new one."""

LOOK_SECONDS = 0.5
"""Between two looks of a waiting reader whether there is a new token; they cost no request."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 60.0
"""Seconds between two requests with a token that was refused: a hub may also have been wrong."""

_NO_ANSWER = (RemoteUnavailable, Stalled)


class Standing:
    """Thread-safe; `_lock` is a leaf. `clock` in monotonic seconds."""

    def __init__(self, token: Token, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = token
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._failing = ""  # why the hub gives no usable answer; "" while it does
        self._refusing = False
        self._refused: str | None = None  # the token, iff _refusing
        self._since = 0.0  # when either began
        self._next_try = 0.0
        self._pause = FIRST_PAUSE

    def hindrance(self) -> AccessDenied | None:
        """Say why the hub is not to be asked with the token of now; None where it is."""
        if not self._refusing:
            return None
        token = self._token.current()
        with self._lock:
            now = self._clock()
            if not self._refusing or token != self._refused:
                return None
            if now < self._next_try:
                return self._denial(now)
            self._put_off(now)
            return None

    @property
    def failing(self) -> bool:
        """Whether the last answer was none, or no usable one."""
        return bool(self._failing)

    def refused(self, token: str | None) -> AccessDenied:
        """The hub has answered 401 to this token: give the error for whoever asked."""
        with self._lock:
            now = self._clock()
            if not self._refusing or token != self._refused:
                self._refusing, self._refused, self._since = True, token, now
                self._pause = FIRST_PAUSE
                self._put_off(now)
            return self._denial(now)

    def heard(self, error: DagfsError | None) -> None:
        """A request has ended otherwise than with a 401."""
        answered = error is None or not isinstance(error, _NO_ANSWER)
        if answered and not self._failing and not self._refusing:
            return
        with self._lock:
            if answered:
                self._refusing, self._failing = False, ""
                return
            if not self._failing and not self._refusing:
                self._since = self._clock()
            self._failing = str(error)

    def report(self) -> dict[str, Any]:
        """Give `state`, ok, failing or "token refused", with `error` and the `seconds` that it has lasted."""
        with self._lock:
            state = "token refused" if self._refusing else "failing" if self._failing else "ok"
            error = str(self._denial(0.0)) if self._refusing else self._failing
            return {"state": state, "error": error, "seconds": int(self._clock() - self._since) if error else 0}

    def _put_off(self, now: float) -> None:
        self._next_try = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _denial(self, now: float) -> AccessDenied:
        remedy = "put a new one there" if self._token.rotates else "mount again with a new one"
        waits = self._token.rotates and now - self._since < GRACE_SECONDS
        text = f"the hub refuses the token of {self._token.source} (HTTP 401): {remedy}"
        return AccessDenied(text, LOOK_SECONDS if waits else None)
