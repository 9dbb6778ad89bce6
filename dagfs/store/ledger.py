"""What a mount must not forget while it lasts: it lies apart from the cache, which anybody may clear at any time."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from dagfs.config import private_directory
from dagfs.store.index import INDEX_ERRORS
from dagfs.store.values import Values

log = logging.getLogger(__name__)

_LIMIT = 8 << 30  # of which Values takes an eighth: the numbers of five million directories


class Ledger:
    """Named bytes on disk, thread-safe, for one mount. A disk that fails is logged: then a restart may miss them."""

    def __init__(self, directory: Path) -> None:
        self._values: Values | None = None  # None iff the directory cannot be used
        try:
            self._values = Values(private_directory(directory), _LIMIT)
        except INDEX_ERRORS as error:
            self._complain(error)

    def get_value(self, name: str) -> bytes | None:
        return self._values.get(name) if self._values is not None else None

    def set_value(self, name: str, value: bytes) -> None:
        if self._values is None:
            return
        try:
            self._values.set(name, value)
        except INDEX_ERRORS as error:
            self._complain(error)

    def set_values(self, values: Mapping[str, bytes]) -> None:
        """Keep several values at once."""
        if self._values is None:
            return
        try:
            self._values.set_all(values)
        except INDEX_ERRORS as error:
            self._complain(error)

    def close(self) -> None:
        if self._values is not None:
            self._values.close()

    @staticmethod
    def _complain(error: Exception) -> None:
        log.warning("node ids are not written down, and a worker's death may cost ESTALE: %s", error)


def forget(directory: Path) -> None:
    """Remove the ledger of a mount that has ended."""
    with contextlib.suppress(OSError):
        shutil.rmtree(directory)
