"""Where a path stands: a row of a listing, or a path known by itself; and the ids that follow from it."""

from __future__ import annotations

import hashlib
import threading
from typing import NamedTuple, Protocol

from dagfs.errors import NotFound
from dagfs.model import Entry, Kind
from dagfs.tree.columns import UNKNOWN, Columns

ROOT_NODE = 1
"""Node id and inode number of the mount's root; the FUSE protocol fixes the first."""

SLOT_BITS = 24
"""A node id is (number of the directory << SLOT_BITS) | (position + 1); slot 0 is the numbered path itself."""

_RESERVED_INODES = 2  # 0 is no inode, 1 is the root


class Rows(Protocol):
    """What knows the paths that `Place`s point to."""

    def node(self, position: int) -> int: ...
    def inode(self, position: int) -> int: ...
    def kind(self, position: int) -> Kind: ...

    def size(self, position: int) -> int:
        """Give the size in bytes, UNKNOWN (-1) while nobody has told it."""

    def entry(self, position: int) -> Entry: ...
    def learn(self, position: int, size: int) -> None: ...
    def reveal_directory(self, position: int) -> None: ...


class Place(NamedTuple):
    """A path of the mounted commit."""

    rows: Rows
    position: int

    @property
    def node(self) -> int:
        return self.rows.node(self.position)

    @property
    def kind(self) -> Kind:
        return self.rows.kind(self.position)

    @property
    def entry(self) -> Entry:
        return self.rows.entry(self.position)


def inode_of(path: str) -> int:
    """Give st_ino of a path: the same at every mount and in whatever order paths are discovered."""
    return _inode(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest())


class Single:
    """One path that is known without its directory's listing: the root, or an early lookup. Positions mean nothing."""

    __slots__ = ("_entry", "_inode", "_node")

    def __init__(self, entry: Entry, node: int, inode: int) -> None:
        self._entry = entry
        self._node = node
        self._inode = inode

    def node(self, position: int) -> int:
        return self._node

    def inode(self, position: int) -> int:
        return self._inode

    def kind(self, position: int) -> Kind:
        return self._entry.kind

    def size(self, position: int) -> int:
        return UNKNOWN if self._entry.size is None else self._entry.size

    def entry(self, position: int) -> Entry:
        return self._entry

    def learn(self, position: int, size: int) -> None:
        old = self._entry
        self._entry = Entry(old.path, old.kind, old.versioning, old.hash, size)

    def reveal_directory(self, position: int) -> None:
        old = self._entry
        self._entry = Entry(old.path, Kind.DIRECTORY, old.versioning, old.hash)


class Listing:
    """A listed directory: `number` is the one that its children's node ids start with.

    Lock order: `_lock` is a leaf; it guards the two sums and the first writing of a size.
    """

    def __init__(self, directory: Entry, number: int, columns: Columns) -> None:
        self.directory = directory
        self.number = number
        self.columns = columns
        self.early: dict[int, int] = {}  # position -> node id, exists iff the id was given before the listing came
        self.asked_sizes = False  # the hub has been asked for all sizes; those it did not know stay UNKNOWN
        self.used = True  # looked into since the memory's last sweep
        self.learnt = 0  # sizes learnt since they were last stored
        self.saved_at = 0.0  # monotonic seconds
        self.directories = columns.directories
        self.unknown = 0  # rows, directories aside, whose size is UNKNOWN
        self.bytes_known = 0  # sum of the sizes that are known
        self._lock = threading.Lock()
        self._base = (number << SLOT_BITS) + 1
        self._prefix = directory.path + "/" if directory.path else ""
        self._hasher = hashlib.blake2b(self._prefix.encode("utf-8", "surrogateescape"), digest_size=8)
        self._count_unknown()

    def __len__(self) -> int:
        return len(self.columns)

    def find(self, name: bytes) -> int:
        return self.columns.find(name)

    def node(self, position: int) -> int:
        if self.early:
            return self.early.get(position, self._base + position)
        return self._base + position

    def inode(self, position: int) -> int:
        hasher = self._hasher.copy()
        hasher.update(self.columns.name(position))
        return _inode(hasher.digest())

    def rows(self, start: int, count: int) -> list[tuple[bytes, int, Kind]]:
        """Give name, inode and kind of up to `count` rows; one loop, as a directory may have half a million."""
        names, ends, kind = self.columns.names, self.columns.name_ends, self.columns.kind
        copy = self._hasher.copy
        found = []
        for position in range(start, min(start + count, len(self.columns))):
            name = names[ends[position] : ends[position + 1]]
            hasher = copy()
            hasher.update(name)
            found.append((name, _inode(hasher.digest()), kind(position)))
        return found

    def kind(self, position: int) -> Kind:
        return self.columns.kind(position)

    def size(self, position: int) -> int:
        return self.columns.sizes[position]

    def path(self, position: int) -> str:
        return self._prefix + self.columns.name(position).decode("utf-8", "surrogateescape")

    def entry(self, position: int) -> Entry:
        columns = self.columns
        size = columns.sizes[position]
        return Entry(
            self.path(position),
            columns.kind(position),
            columns.versioning(position),
            columns.hash(position),
            None if size == UNKNOWN else size,
        )

    def learn(self, position: int, size: int) -> None:
        with self._lock:
            if self.columns.sizes[position] != UNKNOWN:
                return
            self.columns.sizes[position] = size
            self.bytes_known += size
            self.unknown -= self.columns.kind(position) is not Kind.DIRECTORY
            self.learnt += 1

    def reveal_directory(self, position: int) -> None:
        with self._lock:
            if self.columns.kind(position) is not Kind.DIRECTORY:
                self.columns.reveal_directory(position)
                self.directories += 1
                self.unknown -= self.columns.sizes[position] == UNKNOWN

    def absorb(self, sized: Columns) -> None:
        """Take over the sizes of a second listing of the same directory, which had them."""
        same = sized.names == self.columns.names
        for row, size in enumerate(sized.sizes):
            if size != UNKNOWN:
                position = row if same else self.find(sized.name(row))
                if position >= 0:
                    self._set(position, size)
        self.asked_sizes = True
        self._count_unknown()

    def _set(self, position: int, size: int) -> None:
        if self.columns.sizes[position] == UNKNOWN:
            self.columns.sizes[position] = size
            self.learnt += 1

    def _count_unknown(self) -> None:
        with self._lock:
            columns = self.columns
            self.bytes_known = sum(columns.sizes) + columns.sizes.count(UNKNOWN)
            if UNKNOWN not in columns.sizes:
                self.unknown = 0
                return
            rows = zip(columns.flags, columns.sizes, strict=True)
            self.unknown = sum(1 for flag, size in rows if flag & 3 and size == UNKNOWN)


def child(listing: Listing, name: bytes) -> Place:
    """Find a name. Raises NotFound."""
    position = listing.columns.find(name)
    if position < 0:
        raise NotFound(name.decode("utf-8", "replace"))
    return Place(listing, position)


def _inode(digest: bytes) -> int:
    value = int.from_bytes(digest, "little")
    return value if value >= _RESERVED_INODES else value + _RESERVED_INODES
