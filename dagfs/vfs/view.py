"""A listed directory as the adapters see it."""

from __future__ import annotations

from collections.abc import Sequence

from dagfs.model import Kind
from dagfs.tree.listing import Listing, Rows
from dagfs.vfs.seam import Attributes


class DirectoryView:
    """Rows of one listing (`seam.Directory`). `mtime`: of every path of the commit, seconds since the epoch."""

    __slots__ = ("_listing", "_mtime", "inode", "node", "parent_inode")

    def __init__(self, listing: Listing, node: int, inode: int, parent_inode: int, mtime: float) -> None:
        self._listing = listing
        self._mtime = mtime
        self.node = node
        self.inode = inode
        self.parent_inode = parent_inode

    @property
    def sizes_known(self) -> bool:
        return self._listing.unknown == 0

    def __len__(self) -> int:
        return len(self._listing)

    def rows(self, start: int, count: int) -> Sequence[tuple[bytes, int, Kind]]:
        return self._listing.rows(start, count)

    def attributes(self, position: int) -> Attributes | None:
        return attributes_of(self._listing, position, self._mtime, LINKS_UNKNOWN)


LINKS_UNKNOWN = 1
"""st_nlink of a directory that is not listed. Not 2: to programs that count sub-directories by it, 2 means none."""


def attributes_of(rows: Rows, position: int, mtime: float, directory_links: int) -> Attributes | None:
    """Give what stat shows of a path; None while its size is not known."""
    kind = rows.kind(position)
    if kind is Kind.DIRECTORY:
        return Attributes(rows.node(position), rows.inode(position), kind, 0, mtime, directory_links)
    size = rows.size(position)
    return None if size < 0 else Attributes(rows.node(position), rows.inode(position), kind, size, mtime)
