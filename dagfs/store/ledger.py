"""What a mount must not forget while it lasts: it lies apart from the cache, which anybody may clear at any time."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from dagfs.config import private_directory
from dagfs.store.index import INDEX_ERRORS
from dagfs.store.spare import Spare
from dagfs.store.values import FrozenValues, Values

log = logging.getLogger(__name__)

_LIMIT = 8 << 30  # of which Values takes an eighth: the numbers of five million directories


class Ledger:
    """Named bytes for one mount, thread-safe: on disk, and what that does not take in memory that the mount's workers
    share. A name that is in memory stays there until the next worker, so that no older value hides a newer one."""

    def __init__(self, directory: Path, spare: Spare) -> None:
        self._directory = directory
        self._spare = spare
        self._lock = threading.Lock()  # held over writes
        self._values: Values | None = None  # None as long as the disk takes no writes
        self._frozen: FrozenValues | None = None  # what such a disk has; of no meaning once there are values
        self._told = False  # the log has been told of the trouble that there is
        spare.reload()
        try:
            self._open().set_all(spare.items())
            spare.clear()
        except INDEX_ERRORS as error:
            self._complain(error)
            self._freeze()

    def get_value(self, name: str) -> bytes | None:
        kept = self._spare.get(name)
        if kept is not None:
            return kept
        on_disk = self._values or self._frozen  # without the lock: the dispatcher asks, and must not wait for a disk
        return None if on_disk is None else on_disk.get(name)

    def set_value(self, name: str, value: bytes) -> None:
        self.set_values({name: value})

    def set_values(self, values: Mapping[str, bytes]) -> None:
        """Keep several values at once."""
        with self._lock:
            plain = {name: value for name, value in values.items() if name not in self._spare}
            written = bool(plain) and self._written(plain.items())
            for name, value in values.items():
                if name not in plain or not written:
                    self._keep(name, value)

    def close(self) -> None:
        if self._values is not None:
            self._values.close()
        if self._frozen is not None:
            self._frozen.close()

    def _written(self, values: Iterable[tuple[str, bytes]]) -> bool:
        try:
            (self._values or self._open()).set_all(values)
        except INDEX_ERRORS as error:
            self._complain(error)
            return False
        self._told = False
        return True

    def _keep(self, name: str, value: bytes) -> None:
        if not self._spare.set(name, value):
            log.error("a node id is not written down, there is no room: a worker's death may cost ESTALE")

    def _open(self) -> Values:
        self._values = Values(private_directory(self._directory), _LIMIT)
        return self._values

    def _freeze(self) -> None:
        try:
            if self._values is None:
                self._frozen = FrozenValues(self._directory)
        except INDEX_ERRORS as error:
            log.warning("no node ids of earlier workers, if there were any, can be read: %s", error)

    def _complain(self, error: Exception) -> None:
        if not self._told:
            log.warning("node ids are kept in memory until the disk of the state directory takes them: %s", error)
            self._told = True


def forget(directory: Path) -> None:
    """Remove the ledger of a mount that has ended."""
    with contextlib.suppress(OSError):
        shutil.rmtree(directory)
