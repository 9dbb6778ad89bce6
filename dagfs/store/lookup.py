"""Finds whole files by the names that their content has, and says which may be trusted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from array import array
from collections.abc import Callable, Iterator

from dagfs import system
from dagfs.model import Content, ContentId
from dagfs.proofs import CHUNK
from dagfs.store.backlog import Backlog
from dagfs.store.handles import BLOCK, Checker, DiskFile, Handle, MemoryFile
from dagfs.store.index import DVC_SCHEMES, TEXT_SCHEME
from dagfs.store.layout import Stamp, boot_id, stamp, unlink_quietly
from dagfs.store.lent import INLINE_MAX, Lent
from dagfs.store.room import Room, Shelf
from dagfs.store.seam import StoredFile
from dagfs.store.writer import Writer


class Lookup:
    """The files on a shelf and those on their way to it. Holds no lock; what it joins has leaf locks."""

    def __init__(self, shelf: Shelf, room: Room, backlog: Backlog, writer: Writer, lent: Lent | None = None) -> None:
        self._layout = shelf.layout
        self._index = shelf.index
        self._handles = shelf.handles
        self._metrics = shelf.metrics
        self._room = room
        self._backlog = backlog
        self._writer = writer
        self._lent = lent
        self._boot = boot_id()
        self._born = time.time_ns()

    def find(self, content: Content) -> StoredFile | None:
        """Open the whole file, by the content's key or by its claim. Damage is None, never an error."""
        for name in _names(content):
            found = self._find(name, content.size)
            if found is not None:
                self._metrics.add("store.hits")
                return found
        return None

    def has(self, content: Content) -> bool:
        """Say whether a whole file seems to be there."""
        return any(self._backlog.get(name) or self._path(name, content.size) for name in _names(content))

    def path(self, content: Content) -> str | None:
        """Give where the whole file lies, if it is there."""
        return next(filter(None, (self._path(name, content.size) for name in _names(content))), None)

    def also_called(self, content: Content, name: ContentId) -> bool:
        """Let a whole file be found by another name as well; False when it is not there."""
        md5 = self._md5(content.key, content.size)
        row = self._writer.guarded(lambda: self._index.row(md5), None) if md5 is not None else None
        if md5 is None or row is None:
            return False
        self._writer.named(md5, row, name)
        self._handles.note_name(name, md5)
        return True

    def size(self, content: Content) -> int | None:
        """Give the size of the whole file in bytes, without opening it."""
        for name in _names(content):
            data = self._backlog.get(name)
            size = len(data) if data is not None else self._size(name)
            if size is not None:
                return size
        return None

    def _find(self, name: ContentId, size: int | None) -> StoredFile | None:
        arrivals = self._handles.arrivals
        data = self._backlog.get(name)
        if data is not None and size in (None, len(data)):
            return MemoryFile(data)
        handle = self._handles.get(name)
        if handle is not None and handle.changed():
            self._handles.release(handle)
            self._handles.forget(handle.md5)
            handle = None
        if handle is None:
            if self._handles.absent(name):
                return None
            handle = self._open_file(name, size) or self._borrow(name)
            if handle is None:
                self._handles.note_absent(name, arrivals)
                return None
            self._handles.add(name, handle)
            self._give(name, handle)
        if size not in (None, handle.size):
            self._handles.release(handle)
            return None
        if handle.lent:
            return DiskFile(handle, self._handles.release, self._handles.forget)
        self._room.touch(handle.md5, handle.size)
        return DiskFile(handle, self._handles.release, self.remove)

    def _borrow(self, name: ContentId) -> Handle | None:
        """Open the file of DVC's cache, if it has one that may be trusted already."""
        if self._lent is None or name.scheme != "md5":
            return None
        handle = self._lent.open(name.digest)
        if handle is not None:
            self._note_lent(name, handle)
        return handle

    def _note_lent(self, name: ContentId, handle: Handle) -> None:
        if not self._handles.is_good(handle.md5, handle.seen):
            self._metrics.add("dvc_cache.hits")
        self._handles.note(name, handle.md5, handle.seen)

    def _give(self, name: ContentId, handle: Handle) -> None:
        if self._lent is not None and not handle.lent and name.scheme in DVC_SCHEMES:
            self._lent.cache.give(self._layout.file(handle.md5), name)

    def prove_lent(self, md5: str, cancelled: Callable[[], bool]) -> bool:
        """Hash the file of DVC's cache, unless that was done; False when there is none, or its bytes are others."""
        handle = self._lent.open(md5, cancelled) if self._lent is not None else None
        if handle is None:
            return False
        name = ContentId("md5", md5)
        self._note_lent(name, handle)
        self._keep(name, handle)
        return True

    def _keep(self, name: ContentId, handle: Handle) -> None:
        """Leave a file open for its first reader, who comes soon."""
        self._handles.add(name, handle)
        self._handles.release(handle)

    def _path(self, name: ContentId, size: int | None) -> str | None:
        """Give where a file of this name lies, if it is there."""
        arrivals = self._handles.arrivals
        if self._handles.absent(name):
            return None
        md5 = self._md5(name, size)
        path = self._layout.file(md5) if md5 is not None else None
        if path is not None and os.path.exists(path):
            return path
        if self._lent is not None and name.scheme == "md5":
            path = self._lent.cache.path(name.digest)
            if path is not None:
                return path
        self._handles.note_absent(name, arrivals)
        return None

    def _open_file(self, name: ContentId, size: int | None) -> Handle | None:
        md5 = self._md5(name, size)
        if md5 is None:
            return None
        try:
            fd = os.open(self._layout.file(md5), os.O_RDONLY | system.OURS)
        except OSError:
            return None
        try:
            seen = stamp(fd)
            handle = Handle(fd, seen, md5, settled=seen.modified < self._born)
            if self._handles.is_good(md5, seen):
                return handle
            if self._trust(handle):
                if handle.checker is None:
                    self._handles.note(name, md5, handle.seen)
                return handle
        except OSError:
            pass
        os.close(fd)
        return None

    def _md5(self, name: ContentId, size: int | None) -> str | None:
        """Give what the bytes of this name are called on disk."""
        if name.scheme == "md5":
            return name.digest
        known = self._handles.md5_of(name)
        if known is not None:
            return known
        if name.scheme == TEXT_SCHEME and not self._writer.guarded(self._index.has_texts, False):
            return None
        return self._writer.guarded(lambda: self._index.alias(name, size), None)

    def _trust(self, handle: Handle) -> bool:
        """Say whether a file may be read now, after making sure where that takes no long."""
        if self._writer.guarded(lambda: self._index.verified(handle.md5, handle.seen, self._boot), False):
            return True
        if handle.size > INLINE_MAX:
            return self._trust_blocks(handle)
        return self._verify(handle.md5, handle.seen)

    def _trust_blocks(self, handle: Handle) -> bool:
        checksums = array("I")
        try:
            with open(self._layout.checksum(handle.md5), "rb") as file:
                checksums.frombytes(file.read())
        except (OSError, ValueError):
            pass
        if len(checksums) == -(-handle.size // BLOCK):
            handle.checker = Checker(checksums)
            return True
        self._backlog.chore(f"verify {handle.md5}", lambda: self._verify_later(handle.md5))
        return False

    def _verify_later(self, md5: str) -> None:
        seen = stamp(self._layout.file(md5))
        if not self._index.verified(md5, seen, self._boot):
            self._verify(md5, seen)

    def _verify(self, md5: str, seen: Stamp) -> bool:
        """Hash a file; `seen` is from before, so that who writes into it meanwhile is noticed."""
        if md5_of(self._layout.file(md5)) == md5:
            self._writer.verified(md5, seen)
            return True
        self.remove(md5)
        return False

    def remove(self, md5: str) -> None:
        """A damaged file is a miss."""
        self._metrics.add("store.damaged")
        self._handles.forget(md5)
        if self._writer.guarded(lambda: self._room.remove(md5), None) is None:
            with contextlib.suppress(OSError):
                unlink_quietly(self._layout.file(md5))

    def _size(self, name: ContentId) -> int | None:
        arrivals = self._handles.arrivals
        known = self._handles.size_of(name)
        if known is not None:
            return known
        if self._handles.absent(name):
            return None
        if name.scheme != "md5":
            size = self._writer.guarded(lambda: self._index.alias_size(name), None)
            there = size is not None
        else:
            there = os.path.exists(self._layout.file(name.digest))  # 2 us, where a look into the index costs 40
            row = self._writer.guarded(lambda: self._index.row(name.digest), None) if there else None
            size = row.size if row is not None else None
            if not there:
                size = self._lent_size(name)
                there = size is not None
        if not there:
            self._handles.note_absent(name, arrivals)
        return size

    def _lent_size(self, name: ContentId) -> int | None:
        handle = self._borrow(name)
        if handle is None:
            return None
        self._keep(name, handle)
        return handle.size


def _names(content: Content) -> Iterator[ContentId]:
    """Give the ids that the bytes may be stored by, the surest first."""
    yield content.key
    claim = content.claim
    if claim is None:
        return
    if claim != content.key:
        yield claim
    if claim.scheme == "md5":
        yield ContentId(TEXT_SCHEME, claim.digest)


def md5_of(path: str) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
