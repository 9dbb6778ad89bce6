"""File systems in memory, one for each commit, as a mount that follows a branch shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dagfs.answers import then
from dagfs.errors import ContentChanged
from dagfs.model import Commit
from dagfs.vfs.generations import ORDINAL_SHIFT, Generations
from dagfs.vfs.memory import MemoryFs
from dagfs.vfs.seam import ROOT, Attributes, Directory


def sha(number: int) -> str:
    return f"{number:040d}"


class Ledger:
    """What a supervisor keeps, in lists."""

    def __init__(self, first: Commit) -> None:
        self.commits = [first]
        self.selected = [1]

    def current(self) -> int:
        return self.selected[-1]

    def commit(self, ordinal: int) -> Commit | None:
        return self.commits[ordinal - 1] if 0 < ordinal <= len(self.commits) else None

    def add(self, commit: Commit) -> int:
        self.commits.append(commit)
        return len(self.commits)

    def select(self, ordinal: int) -> None:
        self.selected.append(ordinal)


class Numbered:
    """The rooms of one commit over a MemoryFs: its node ids carry the commit's ordinal, as the tree's do."""

    def __init__(self, fs: MemoryFs, ordinal: int, lost: bool = False) -> None:
        self._fs = fs
        self._base = ordinal << ORDINAL_SHIFT
        self.fs: Any = self
        self.lost = lost
        self.resting = False
        self.closed = False

    def rest(self) -> None:
        self.resting = True

    def close(self) -> None:
        self.closed = True

    def lookup(self, parent: int, name: bytes) -> Any:
        return then(self._fs.lookup(self._own(parent), name), self._told)

    def getattr(self, node: int) -> Any:
        return then(self._fs.getattr(self._own(node)), self._told)

    def readdir(self, node: int) -> Any:
        return then(self._fs.readdir(self._own(node)), lambda found: _Listed(found, self))

    def path(self, node: int) -> str:
        return self._fs.path(self._own(node))

    def statfs(self) -> Any:
        return self._fs.statfs()

    def failed(self, node: int, operation: str, error: BaseException) -> None:
        self._fs.failed(self._own(node), operation, error)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The rest has a node first and none in what it gives."""
        return lambda node, *more: getattr(self._fs, name)(self._own(node), *more)

    def _own(self, node: int) -> int:
        if node != ROOT and node >> ORDINAL_SHIFT != self._base >> ORDINAL_SHIFT:
            raise ContentChanged(f"node {node:x} is of another commit")
        return node & ((1 << ORDINAL_SHIFT) - 1)

    def _told(self, attributes: Attributes) -> Attributes:
        node = attributes.node if attributes.node == ROOT else attributes.node | self._base
        return dataclasses.replace(attributes, node=node)


class _Listed:
    def __init__(self, found: Directory, numbered: Numbered) -> None:
        self._found = found
        self._numbered = numbered
        self.node = found.node if found.node == ROOT else found.node | numbered._base
        self.inode, self.parent_inode = found.inode, found.parent_inode

    sizes_known = True

    def __len__(self) -> int:
        return len(self._found)

    def rows(self, start: int, count: int) -> Any:
        return self._found.rows(start, count)

    def attributes(self, position: int) -> Any:
        known = self._found.attributes(position)
        return None if known is None else self._numbered._told(known)


def generations(
    commits: Mapping[str, Callable[[], MemoryFs]], first: str, run: Any = None, ledger: Ledger | None = None
) -> Generations[Numbered]:
    """Make the file system of a mount that begins at `first`; `commits` by their shas."""
    book = ledger or Ledger(Commit(first, 0.0))
    return Generations(
        book,
        lambda commit, ordinal: Numbered(commits[commit.sha](), ordinal),
        run or (lambda job: job()),
        takes_over=ledger is not None,
    )
