"""The seam to the bytes on disk: what the cache asks of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from dagfs.model import Content, ContentId, Proof, Span


class StoredFile(Protocol):
    """A whole, verified file, pinned against eviction until it is closed."""

    size: int

    @property
    def descriptor(self) -> int | None:
        """Give the descriptor to read its bytes by; None when they lie in memory, or each block is to be checked."""

    def read(self, offset: int, size: int) -> bytes:
        """Give bytes; fewer than asked only at the end of the file. Raises OSError when the disk fails."""

    def close(self) -> None: ...


class PartialFile(Protocol):
    """The blocks of a large file that have come so far, pinned until it is closed. Survives a restart."""

    size: int

    @property
    def completing(self) -> Span | None:
        """Give the block that came last of all, so nobody was given it while one was missing; the whole file when that
        is not known. None unless every block is there and the file can be proved: what memory alone holds cannot."""

    def missing(self, span: Span) -> Sequence[Span]:
        """Give the parts of `span` that are not there yet, in order."""

    def read(self, offset: int, size: int) -> bytes | None:
        """Give the bytes, None unless all of them are there and undamaged."""

    def write(self, offset: int, data: bytes) -> None: ...

    def advance(self) -> bool:
        """Hash the next bytes of the beginning that is there without a gap; False when there are none. At most 8 MiB at
        a call; `advance` and `publish` are called by one thread at a time. Raises OSError."""

    def publish(self) -> bool:
        """If nothing is missing: verify, move to the whole files and return True. Raises IntegrityError, and forgets
        everything, when the bytes are not the claimed ones."""

    def forget(self) -> None:
        """What came is wrong: nothing of it is there any more."""

    def close(self) -> None: ...


class Store(Protocol):
    """Thread-safe and safe across processes. `store.DiskStore` is the real one, `store.memory.MemoryStore` the fake."""

    def find(self, content: Content) -> StoredFile | None:
        """Open the whole file, by the content's key or by its claim. Damage is None, never an error."""

    def size(self, content: Content) -> int | None:
        """Give the size of a whole or partial file without opening it."""

    def has(self, content: Content) -> bool:
        """Say whether a whole file seems to be there: a cheap look, not a promise."""

    def also_called(self, content: Content, name: ContentId) -> bool:
        """Let a whole file be found by another name as well; False when it is not there."""

    def awaken(self, content: Content) -> None:
        """Have the disk bring a whole file into memory, or the beginning of a large one, without waiting for it."""

    def put(self, content: Content, data: bytes, proof: Proof) -> None:
        """Publish a whole file by rename; making room for it first. A full disk is logged, not raised."""

    def partial(self, content: Content, size: int) -> PartialFile: ...

    def get_value(self, name: str) -> bytes | None:
        """Give a small or large value kept beside the files (listings, commits, sizes)."""

    def set_value(self, name: str, value: bytes) -> None: ...

    def set_values(self, values: Mapping[str, bytes]) -> None:
        """Keep several at once."""

    def close(self) -> None: ...
