"""What a repository looks like as a file system: the seam between the core and its adapters.

Names are bytes, as the kernel has them. `vfs.core.Vfs` is the real one, `vfs.memory.MemoryFs` the fake that the
adapters are tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dagfs.model import Answer, Kind
from dagfs.store.seam import StoredFile

ROOT = 1
"""Node id of the mount's root, fixed by the FUSE protocol."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat shows, without owner and permission bits, which belong to the mount.

    `node`: the id that the kernel and the core call it by; never used again for something else. `inode`: st_ino, the
    same at every mount of the commit. `size` in bytes. `mtime` in seconds since the epoch. `links`: st_nlink.
    """

    node: int
    inode: int
    kind: Kind
    size: int
    mtime: float
    links: int = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What statfs shows: `blocks` of `block_size` bytes, and how many files the commit is known to have."""

    block_size: int
    blocks: int
    files: int
    name_max: int = 255


class Directory(Protocol):
    """A listing, frozen: a row's position never changes while the commit is mounted, so a seek is always exact."""

    node: int
    inode: int
    parent_inode: int

    @property
    def sizes_known(self) -> bool:
        """True iff `attributes` gives an answer for every row; it may become true later."""

    def __len__(self) -> int: ...

    def rows(self, start: int, count: int) -> Sequence[tuple[bytes, int, Kind]]:
        """Give up to `count` rows from position `start`: name, inode, kind."""

    def attributes(self, position: int) -> Attributes | None:
        """Give a row's attributes, or None while its size is not known. No network."""


class FileSystem(Protocol):
    """Thread-safe; every call returns at once (`Answer`). Raises, or ends a promise with, a DagfsError."""

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        """Find a child. Raises NotFound, NotADirectory."""

    def getattr(self, node: int) -> Answer[Attributes]: ...

    def readdir(self, node: int) -> Answer[Directory]:
        """List a directory; a listing that is known is given at once."""

    def read(self, node: int, offset: int, size: int) -> Answer[bytes]:
        """Give exactly the bytes [offset, offset+size) of a file, fewer only at its end."""

    def whole(self, node: int) -> Answer[StoredFile | None]:
        """Give a large file on the disk of the cache if all of it is there; whoever takes it closes it. No network."""

    def readlink(self, node: int) -> Answer[bytes]: ...

    def getxattr(self, node: int, name: bytes) -> Answer[bytes | None]:
        """Give the value of `user.dagfs.*`; None when there is no such attribute."""

    def listxattr(self, node: int) -> Sequence[bytes]: ...

    def statfs(self) -> Figures: ...

    def path(self, node: int) -> str:
        """Give a node's path in the repository for messages, "node N" when it is not at hand. Never raises."""

    def failed(self, node: int, operation: str, error: BaseException) -> None:
        """Told by the adapter once for each failed operation that is not an ordinary NotFound: kept for the path's
        `user.dagfs.error` and counted."""
