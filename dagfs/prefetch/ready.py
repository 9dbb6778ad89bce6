"""Files ahead that are in the cache already: the disk of the cache brings them into memory, some of them at a time."""

from __future__ import annotations

from collections import OrderedDict

from dagfs.model import ContentId
from dagfs.prefetch.runs import AHEAD_MAX

READY_MAX = 32 << 20
"""Bytes ahead of the reader that are brought: three hundred images, which a disk brings in 20 ms."""

STRAYED = 8
"""Openings of other files in a row after which nobody is taken to be on the way to these any more."""


class Ready:
    """What was expected and not opened yet, in bytes. Used by one thread at a time."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[ContentId, int] = OrderedDict()
        self._bytes = 0  # sum of _sizes
        self._strayed = 0  # openings since the last that was expected

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def full(self) -> bool:
        return self._bytes >= READY_MAX

    def opened(self, key: ContentId) -> bool:
        """Note an opening; True when it was expected."""
        size = self._sizes.pop(key, None)
        self._bytes -= size or 0
        self._strayed = 0 if size is not None else self._strayed + 1
        if self._strayed >= STRAYED:
            self._sizes.clear()
            self._bytes = 0
        return size is not None

    def expect(self, key: ContentId, size: int) -> bool:
        """Note a file; False when it is expected already."""
        if key in self._sizes:
            return False
        self._sizes[key] = size
        self._bytes += size
        while len(self._sizes) > AHEAD_MAX:
            self._bytes -= self._sizes.popitem(last=False)[1]
        return True
