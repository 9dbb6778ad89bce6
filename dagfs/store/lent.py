"""Files of a DVC cache, as far as they may be trusted: small ones are hashed at their first use, large ones before."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from dagfs.store.dvc_cache import DvcCache
from dagfs.store.handles import KNOWN_MAX, Handle, Handles
from dagfs.store.index import INDEX_ERRORS, good_mark
from dagfs.store.layout import Stamp, boot_id, stamp
from dagfs.store.values import Values

log = logging.getLogger(__name__)

INLINE_MAX = 8 << 20
"""Bytes of a file that is hashed while its reader waits: 15 ms."""


class Lent:
    """What a large file was found to be is kept in `values`, since to hash 100 GiB takes minutes."""

    def __init__(self, cache: DvcCache, handles: Handles, values: Values) -> None:
        self.cache = cache
        self._handles = handles
        self._values = values
        self._boot = boot_id()
        self._born = time.time_ns()
        self._damaged: dict[str, Stamp] = {}  # by MD5, as it was when it was found so; each change is one step

    def open(self, md5: str, cancelled: Callable[[], bool] | None = None) -> Handle | None:
        """Open a file whose bytes are known to be right; hash it whatever its size where that can be `cancelled`.
        Damage is None."""
        path = self.cache.path(md5)
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            seen = stamp(fd)
            if self._known(md5, seen) or self._prove(fd, md5, seen, cancelled):
                return Handle(fd, seen, md5, settled=seen.modified < self._born, lent=True)
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error)
        os.close(fd)
        return None

    def _known(self, md5: str, seen: Stamp) -> bool:
        if self._handles.is_good(md5, seen):
            return True
        return seen.size > INLINE_MAX and self._values.get(_name(md5)) == self._mark(seen)

    def _prove(self, fd: int, md5: str, seen: Stamp, cancelled: Callable[[], bool] | None) -> bool:
        if (cancelled is None and seen.size > INLINE_MAX) or self._damaged.get(md5) == seen:
            return False
        cancelled = cancelled or (lambda: False)
        if not self.cache.right(fd, md5, cancelled) or stamp(fd) != seen:
            if not cancelled():
                if len(self._damaged) >= KNOWN_MAX:
                    self._damaged.clear()
                self._damaged[md5] = seen
            return False
        if seen.size > INLINE_MAX:
            try:
                self._values.set(_name(md5), self._mark(seen))
            except INDEX_ERRORS as error:
                log.warning("that a file of DVC's cache is right cannot be written down: %s", error)
        return True

    def _mark(self, seen: Stamp) -> bytes:
        return f"{seen.size} {good_mark(seen, self._boot)}".encode()


def _name(md5: str) -> str:
    return f"dvc-cache {md5}"
