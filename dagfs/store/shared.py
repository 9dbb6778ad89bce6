"""The blocks of a large file, as each of their users holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dagfs.model import Span
from dagfs.store.complaint import Complaint
from dagfs.store.volatile import VolatileBlocks


class Blocks(Protocol):
    """What `PartialFile` needs besides its users' count."""

    size: int
    finished: bool
    """True once the file is published: nobody comes back for its blocks."""

    @property
    def completing(self) -> Span | None: ...
    def missing(self, span: Span) -> Sequence[Span]: ...
    def read(self, offset: int, size: int) -> bytes | None: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def advance(self) -> bool: ...
    def publish(self) -> bool: ...
    def forget(self) -> None: ...
    def shut(self) -> None: ...


class SharedPartial:
    """One user's pin on the blocks of a file. When the disk fails, the rest of its reads goes through memory."""

    def __init__(self, blocks: Blocks, release: Callable[[], None], complaint: Complaint) -> None:
        self._blocks = blocks
        self._complaint = complaint
        self._release: Callable[[], None] | None = release
        self.size = blocks.size

    @property
    def completing(self) -> Span | None:
        return self._blocks.completing

    def missing(self, span: Span) -> Sequence[Span]:
        return self._blocks.missing(span)

    def read(self, offset: int, size: int) -> bytes | None:
        try:
            return self._blocks.read(offset, size)
        except OSError:
            self._blocks = VolatileBlocks(self.size)
            return None

    def write(self, offset: int, data: bytes) -> None:
        try:
            self._blocks.write(offset, data)
        except OSError as error:
            if self._release is not None:  # else the piece came after the end
                self._complaint.make(error)
            self._blocks = VolatileBlocks(self.size)
            self._blocks.write(offset, data)
        if not isinstance(self._blocks, VolatileBlocks):
            self._complaint.over()

    def advance(self) -> bool:
        return self._blocks.advance()

    def publish(self) -> bool:
        return self._blocks.publish()

    def forget(self) -> None:
        try:
            self._blocks.forget()
        except OSError:
            self._blocks = VolatileBlocks(self.size)

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
