"""What a repository looks like as a file system: the one place where tree, reader and prefetch meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from dagfs.answers import then
from dagfs.errors import (
    DagfsError,
    IntegrityError,
    IsADirectory,
    NotFound,
    Offline,
    UnsafeLink,
    Unsupported,
)
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.metrics import Metrics
from dagfs.model import Answer, Content, Kind, printable
from dagfs.reader import Bytes, Reader
from dagfs.store.seam import StoredFile
from dagfs.tree.listing import Listing, Place
from dagfs.tree.numbers import Recent
from dagfs.tree.tree import Tree
from dagfs.vfs import links
from dagfs.vfs.marks import PREFIX, Marks
from dagfs.vfs.missing import Missing
from dagfs.vfs.seam import ROOT, Attributes, Directory, Figures
from dagfs.vfs.sizing import SizePolicy, Sizer, never_pushed, recover
from dagfs.vfs.view import DirectoryView, attributes_of

_OPENED_KEPT = 16_384
"""Files whose identity is kept from one read to the next; computing it again costs some microseconds."""

_BLOCK_BYTES = 4096
_BLOCKS_MAX = 1 << 50
"""Of statfs: a hub may say of each of a million files that it has four exabytes, and the kernel counts in 64 bits."""


class Watcher(Protocol):
    """Told of each file when its first read comes."""

    def opened(self, place: Place, content: Content) -> None: ...


@dataclass(slots=True)
class _Opened:
    """A file that is being read. `proved`: its announced size is that of its bytes."""

    content: Content
    proved: bool = False


class Vfs:
    """The file system of one commit (`seam.FileSystem`). Thread-safe; lock order: `_lock` is a leaf."""

    def __init__(
        self,
        tree: Tree,
        cache: Bytes,
        stored: Callable[[Content], int | None],
        metrics: Metrics,
        watcher: Watcher | None = None,
    ) -> None:
        self._tree = tree
        self._cache = cache
        self._stored = stored
        self._metrics = metrics
        self._watcher = watcher
        self._reader = Reader(cache, metrics)
        self._policy = SizePolicy()
        self._sizer = Sizer(tree, cache, stored, self._policy)
        self.missing = Missing()
        self._marks = Marks(tree.pinned.commit.sha, self._is_here)
        self._mtime = tree.pinned.commit.time
        self._lock = threading.Lock()
        self._opened: Recent[int, _Opened] = Recent(_OPENED_KEPT)

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        try:
            answer = then(self._tree.lookup(parent, name), self._attributes)
        except DagfsError as error:
            self._marks.not_found(parent, name, error)
            raise
        if isinstance(answer, Future):
            answer.add_done_callback(lambda done: self._marks.not_found(parent, name, done.exception()))
        return answer

    def getattr(self, node: int) -> Answer[Attributes]:
        return then(self._tree.place(node), self._attributes)

    def readdir(self, node: int, *, sized: bool = False) -> Answer[Directory]:
        """`sized`: with the sizes that the hub knows, for one more request where the listing is here without them."""
        return then(self._tree.place(node), lambda place: self._list(place, wanted=sized))

    def read(self, node: int, offset: int, size: int) -> Answer[bytes]:
        with self._lock:
            opened = self._opened.get(node)
        if opened is not None:
            return self._read(opened, offset, size)
        return then(
            self._tree.place(node), lambda place: then(self._open(place), lambda o: self._read(o, offset, size))
        )

    def whole(self, node: int) -> Answer[StoredFile | None]:
        return then(self._tree.place(node), self._whole)

    def readlink(self, node: int) -> Answer[bytes]:
        def step(place: Place) -> Answer[bytes]:
            if place.kind is not Kind.SYMLINK:
                raise Unsupported(f"{place.entry.path}: not a symbolic link")
            target = then(self._open(place), lambda opened: self._read(opened, 0, _readable(opened.content.size)))
            return then(target, lambda target: self._followed(place, target))

        return then(self._tree.place(node), step)

    def getxattr(self, node: int, name: bytes) -> Answer[bytes | None]:
        if not name.startswith(PREFIX):
            return None
        return then(self._tree.place(node), lambda place: self._marks.get(place, name))

    def listxattr(self, node: int) -> Sequence[bytes]:
        return self._marks.names(node)

    def statfs(self) -> Figures:
        files, size = self._tree.figures()
        return Figures(_BLOCK_BYTES, min(-(-size // _BLOCK_BYTES), _BLOCKS_MAX), files)

    def path(self, node: int) -> str:
        return printable(self._tree.path(node))

    def failed(self, node: int, operation: str, error: BaseException) -> None:
        self._metrics.add(f"vfs.failed.{operation}")
        if isinstance(error, Offline):
            self.missing.note(error)
        text, path = str(error) or type(error).__name__, self._tree.path(node)
        where = "" if path in text else f" of {path}"
        self._marks.failures.put(node, f"{operation}{where}: {text}")

    def nodes_of(self, content: Content) -> set[int]:
        """Give the nodes by which a content was read lately, and that of its own path: a worker before this one may
        have given its bytes."""
        place = self._tree.known(content.entry.path)
        with self._lock:
            read = {node for node, opened in self._opened.items() if opened.content.key == content.key}
        return read if place is None else read | {place.node}

    def _attributes(self, place: Place) -> Answer[Attributes]:
        known = self._known_attributes(place)
        if known is not None:
            return known

        def ask() -> Answer[Attributes]:
            return then(self._sizer.size(place, self._tree.content(place)), lambda _: self._settled(place))

        return recover(ask, DagfsError, lambda error: self._unsized(place, error))

    def _unsized(self, place: Place, error: DagfsError) -> Attributes:
        """Note for the file itself what the adapter, who has a name only, notes for its directory."""
        self._marks.failures.put(place.node, f"size: {error}")
        raise error

    def _settled(self, place: Place) -> Attributes:
        known = self._known_attributes(place)
        if known is None:
            raise never_pushed(self._tree.content(place))
        return known

    def _known_attributes(self, place: Place) -> Attributes | None:
        return attributes_of(place.rows, place.position, self._mtime)

    def _list(self, place: Place, *, wanted: bool) -> Answer[Directory]:
        sized = wanted or (self._policy.stat_mode and self._tree.listed(place) is None)
        answer = self._tree.listing(place, sized=sized)
        self._tree.walked(place.entry, sized=self._policy.stat_mode)
        return then(answer, lambda listing: self._view(place, listing))

    def _view(self, place: Place, listing: Listing) -> Directory:
        rows, position = place
        parent = ROOT if place.node == ROOT else self._tree.parent_inode(place)
        return DirectoryView(listing, place.node, rows.inode(position), parent, self._mtime)

    def _open(self, place: Place) -> Answer[_Opened]:
        """Give what reads need of a file; its size is known by then."""
        entry = place.entry
        if entry.kind is Kind.DIRECTORY:
            raise IsADirectory(entry.path)
        content = self._tree.content(place)
        if content.size is not None:
            return self._remember(place, content)
        size = self._sizer.size(place, content)
        return then(size, lambda size: self._remember(place, content._replace(entry=place.entry, size=size)))

    def _remember(self, place: Place, content: Content) -> _Opened:
        if place.kind is Kind.DIRECTORY:
            raise IsADirectory(content.entry.path)
        opened = _Opened(content)
        with self._lock:
            self._opened.put(place.node, opened)
        if isinstance(place.rows, Listing):
            self._policy.was_read(place.rows.number, place.node)
        if self._watcher is not None:
            self._watcher.opened(place, content)
        return opened

    def _followed(self, place: Place, target: bytes) -> bytes:
        path = place.entry.path
        try:
            links.check(target, path.removeprefix(self._tree.pinned.root_path).strip("/").count("/"))
        except UnsafeLink as error:
            self._tree.refused.note(place.node, f"{path}: {error}")
            raise UnsafeLink(f"{path}: {error}") from None
        return target

    def _whole(self, place: Place) -> StoredFile | None:
        if place.kind is not Kind.FILE:
            return None
        content = self._tree.content(place)
        size = content.size if content.size is not None else self._stored(content)
        return self._cache.file(content) if size is not None and size > WHOLE_MAX else None

    def _read(self, opened: _Opened, offset: int, size: int) -> Answer[bytes]:
        content = opened.content
        end = min(offset + size, content.size or 0)
        if end <= offset:
            return b""
        answer = recover(
            lambda: self._reader.read(content, offset, end - offset), NotFound, lambda _: _refuse(never_pushed(content))
        )
        return then(answer, lambda data: self._checked(opened, data, end - offset))

    def _checked(self, opened: _Opened, data: bytes, size: int) -> bytes:
        """Hold the bytes against the size that stat has shown: the kernel cuts or pads by it."""
        if not opened.proved:
            real = self._stored(opened.content)
            if real is not None and real != opened.content.size:
                text = (
                    f"{opened.content.entry.path}: the hub announced {opened.content.size} bytes, the file has {real}"
                )
                raise IntegrityError(text)
            opened.proved = real is not None
        if len(data) != size:
            raise IntegrityError(f"{opened.content.entry.path}: {len(data)} bytes came where {size} were announced")
        return data

    def _is_here(self, place: Place) -> bool:
        if place.kind is Kind.DIRECTORY:
            return self._tree.listed(place) is not None
        return self._cache.cached(self._tree.content(place))


def _readable(size: int | None) -> int:
    """Of a link's target is read as much as shows that it is too long."""
    return min(size or 0, links.TARGET_MAX + 1)


def _refuse(error: Exception) -> bytes:
    raise error
