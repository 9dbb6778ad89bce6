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
        return attributes_of(self._listing, position, self._mtime)


def attributes_of(rows: Rows, position: int, mtime: float) -> Attributes | None:
    """Give what stat shows of a path; None while its size is not known.

    Directories have one link, as on Btrfs: the kernel keeps attributes, so a count that comes with the listing would
    come too late, and 2 would tell programs that there are no sub-directories.
    """
    kind = rows.kind(position)
    if kind is Kind.DIRECTORY:
        return Attributes(rows.node(position), rows.inode(position), kind, 0, mtime)
    size = rows.size(position)
    return None if size < 0 else Attributes(rows.node(position), rows.inode(position), kind, size, mtime)
