"""A file system in memory with faults on command: what the adapters are tested on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from dagfs.errors import IsADirectory, NotADirectory, NotFound, Unsupported
from dagfs.model import Answer, Kind
from dagfs.store.seam import StoredFile
from dagfs.vfs.seam import ROOT, Attributes, Directory, Figures

T = TypeVar("T")
INODE_BASE = 1 << 32  # so that a test tells inode and node apart
MTIME = 1_600_000_000.25


@dataclass(slots=True)
class _Node:
    path: str
    number: int
    kind: Kind
    parent: int
    data: bytes = b""
    children: dict[bytes, int] = field(default_factory=dict)
    looked_up: bool = False


class MemoryFs:
    """`files` and `links` by path ("a/b"), directories follow from them and from `directories`.

    Behaviour can be switched at any time: `sizes_known` False hides sizes from listings until a lookup; operations in
    `later` are answered by another thread; those in `stalling` whose path is in `stalled` once `release` is called;
    `errors` by (operation, path) are raised; `sparse` gives files of zeros by their size. `calls` counts
    (operation, path).
    """

    def __init__(
        self, files: Mapping[str, bytes], links: Mapping[str, str] | None = None, directories: Sequence[str] = ()
    ) -> None:
        self.sizes_known = True
        self.later: set[str] = set()
        self.stalled: set[str] = set()
        self.stalling = {"read"}
        self.errors: dict[tuple[str, str], Exception] = {}
        self.sparse: dict[str, int] = {}
        self.on_disk: dict[str, StoredFile] = {}
        self.xattrs: dict[bytes, bytes] = {b"user.dagfs.commit": b"0" * 40}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.failures: list[tuple[int, str, str]] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._listings: dict[int, MemoryDirectory] = {}
        self._nodes: list[_Node] = [_Node("", 0, Kind.FILE, 0), _Node("", ROOT, Kind.DIRECTORY, ROOT)]
        for path in directories:
            self._add(path, Kind.DIRECTORY)
        for path, data in files.items():
            self._add(path, Kind.FILE).data = data
        for path, target in (links or {}).items():
            self._add(path, Kind.SYMLINK).data = target.encode("utf-8", "surrogateescape")

    def release(self) -> None:
        """Let every stalled operation, and those to come, go on."""
        self._released.set()

    def total(self, operation: str) -> int:
        """Give how often an operation was called, over all paths."""
        with self._lock:
            return sum(count for (name, _), count in self.calls.items() if name == operation)

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        directory = self._nodes[parent]
        path = _join(directory.path, name)
        return self._answer("lookup", path, lambda: self._child(directory, name))

    def getattr(self, node: int) -> Answer[Attributes]:
        return self._answer("getattr", self._nodes[node].path, lambda: self.attributes(node))

    def readdir(self, node: int) -> Answer[Directory]:
        return self._answer("readdir", self._nodes[node].path, lambda: self._listing(node))

    def read(self, node: int, offset: int, size: int) -> Answer[bytes]:
        return self._answer("read", self._nodes[node].path, lambda: self._bytes(node, offset, size))

    def whole(self, node: int) -> Answer[StoredFile | None]:
        return self._answer("whole", self._nodes[node].path, lambda: self.on_disk.get(self._nodes[node].path))

    def readlink(self, node: int) -> Answer[bytes]:
        return self._answer("readlink", self._nodes[node].path, lambda: self._target(node))

    def getxattr(self, node: int, name: bytes) -> Answer[bytes | None]:
        return self._answer("getxattr", self._nodes[node].path, lambda: self.xattrs.get(name))

    def listxattr(self, _node: int) -> Sequence[bytes]:
        return list(self.xattrs)

    def statfs(self) -> Figures:
        return Figures(block_size=4096, blocks=1000, files=len(self._nodes))

    def path(self, node: int) -> str:
        return self._nodes[node].path or "/" if 0 < node < len(self._nodes) else f"node {node}"

    def failed(self, node: int, operation: str, error: BaseException) -> None:
        with self._lock:
            self.failures.append((node, operation, type(error).__name__))

    def attributes(self, node: int) -> Attributes:
        """Describe a node, without counting a call."""
        one = self._nodes[node]
        folders = sum(1 for child in one.children.values() if self._nodes[child].kind is Kind.DIRECTORY)
        links = 2 + folders if one.kind is Kind.DIRECTORY else 1
        return Attributes(node, INODE_BASE + node, one.kind, self._size(one), MTIME, links)

    def listed(self, node: int) -> Attributes | None:
        """Describe a node as far as its directory's listing does."""
        one = self._nodes[node]
        return self.attributes(node) if self.sizes_known or one.looked_up or one.kind is not Kind.FILE else None

    def _add(self, path: str, kind: Kind) -> _Node:
        above, _, last = path.rpartition("/")
        parent = self._folder(above)
        node = _Node(path, len(self._nodes), kind, parent)
        self._nodes.append(node)
        self._nodes[parent].children[last.encode("utf-8", "surrogateescape")] = node.number
        return node

    def _folder(self, path: str) -> int:
        node = ROOT
        for position, name in enumerate(path.split("/") if path else ()):
            child = self._nodes[node].children.get(name.encode("utf-8", "surrogateescape"))
            node = child or self._add("/".join(path.split("/")[: position + 1]), Kind.DIRECTORY).number
        return node

    def _answer(self, operation: str, path: str, give: Callable[[], T]) -> Answer[T]:
        with self._lock:
            self.calls[operation, path] += 1
        if error := self.errors.get((operation, path)):
            raise error
        stalls = path in self.stalled and operation in self.stalling and not self._released.is_set()
        if not stalls and operation not in self.later:
            return give()
        promise: Future[T] = Future()
        threading.Thread(target=self._settle, args=(promise, give, stalls), daemon=True).start()
        return promise

    def _settle(self, promise: Future[T], give: Callable[[], T], stalls: bool) -> None:
        if stalls:
            self._released.wait()
        try:
            promise.set_result(give())
        except Exception as error:  # noqa: BLE001 -- the promise carries it
            promise.set_exception(error)

    def _child(self, directory: _Node, name: bytes) -> Attributes:
        if directory.kind is not Kind.DIRECTORY:
            raise NotADirectory(directory.path)
        child = directory.children.get(name)
        if child is None:
            raise NotFound(_join(directory.path, name))
        self._nodes[child].looked_up = True
        return self.attributes(child)

    def _listing(self, node: int) -> Directory:
        if self._nodes[node].kind is not Kind.DIRECTORY:
            raise NotADirectory(self._nodes[node].path)
        if node not in self._listings:
            rows = [self._row(node, name) for name in sorted(self._nodes[node].children)]
            self._listings[node] = MemoryDirectory(self, node, self._nodes[node].parent, rows)
        return self._listings[node]

    def _row(self, node: int, name: bytes) -> tuple[bytes, int, Kind]:
        child = self._nodes[node].children[name]
        return name, child, self._nodes[child].kind

    def _bytes(self, node: int, offset: int, size: int) -> bytes:
        one = self._nodes[node]
        if one.kind is Kind.DIRECTORY:
            raise IsADirectory(one.path)
        if one.path in self.sparse:
            return bytes(min(size, max(self.sparse[one.path] - offset, 0)))
        return one.data[offset : offset + size]

    def _target(self, node: int) -> bytes:
        if self._nodes[node].kind is not Kind.SYMLINK:
            raise Unsupported(f"{self._nodes[node].path} is no symbolic link")
        return self._nodes[node].data

    def _size(self, node: _Node) -> int:
        return self.sparse.get(node.path, len(node.data))


class MemoryDirectory:
    """A listing of MemoryFs, in the order of the names."""

    def __init__(self, fs: MemoryFs, node: int, parent: int, rows: list[tuple[bytes, int, Kind]]) -> None:
        self.node = node
        self.inode = INODE_BASE + node
        self.parent_inode = INODE_BASE + parent
        self._fs = fs
        self._rows = rows

    @property
    def sizes_known(self) -> bool:
        return self._fs.sizes_known

    @sizes_known.setter
    def sizes_known(self, known: bool) -> None:
        self._fs.sizes_known = known

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, start: int, count: int) -> Sequence[tuple[bytes, int, Kind]]:
        return [(name, INODE_BASE + node, kind) for name, node, kind in self._rows[start : start + count]]

    def attributes(self, position: int) -> Attributes | None:
        return self._fs.listed(self._rows[position][1])


def _join(path: str, name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return f"{path}/{text}" if path else text
