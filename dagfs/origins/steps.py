"""What bodies have in common that are asked for in steps, each by a transfer of its own."""

from __future__ import annotations

import threading

from dagfs.hub.source import Transfer


class Steps:
    """Implements the cancelling of `source.Transfer`. `_lock` is a leaf: nothing is called under it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._transfer: Transfer | None = None  # of the step that is under way
        self._cancelled = False

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            transfer = self._transfer
        if transfer is not None:
            transfer.cancel()
