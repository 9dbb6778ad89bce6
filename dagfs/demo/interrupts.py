"""Being interrupted only at moments when everything that was started is known and can be ended."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal asked to end; `exit_status` is what a shell gives for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class Interrupts:
    """Notes signals while it is entered; `check`, called by whoever waits long, raises Interrupted for them.

    A handler that raised by itself could do so between the start of a process and the `try` that ends it.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        wanted = (number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)  # as nohup wants it
        self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Interrupted if a signal has come since the last call."""
        if self._noted is not None:
            number, self._noted = self._noted, None
            raise Interrupted(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
