"""The store on disk: whole files under their MD5, as DVC 3's cache has them, beside the blocks of incomplete ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Proof
from dagfs.proofs import CHUNK
from dagfs.store.backlog import WAITING_MAX, Backlog, Waiting
from dagfs.store.handles import BLOCK, Checker, DiskFile, Handle, Handles, MemoryFile
from dagfs.store.index import INDEX_ERRORS, TEXT_SCHEME, Index
from dagfs.store.layout import Layout, Stamp, boot_id, stamp, unlink_quietly
from dagfs.store.partials import Partials
from dagfs.store.room import Room, Shelf
from dagfs.store.scrub import drop_checksums, drop_damaged_partials, hashes
from dagfs.store.seam import PartialFile, StoredFile
from dagfs.store.values import Values
from dagfs.store.writer import Writer

T = TypeVar("T")

AWAKENED_MAX = 8 << 20
"""Bytes of a file that the disk is asked to bring into memory ahead of its reader."""

INLINE_MAX = 8 << 20
"""Bytes of a file that is verified while its reader waits: 15 ms. Larger ones are checked block by block."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the store holds; `bytes` are those of whole and incomplete files on disk, `hits` those of this process."""

    bytes: int
    limit: int
    files: int
    partials: int
    hits: int


class DiskStore:
    """Implements `seam.Store`. The objects it joins have leaf locks of their own; it holds none itself."""

    def __init__(self, root: Path, limit_bytes: int, metrics: Metrics) -> None:
        """Raises CacheRefused when the root cannot be used safely."""
        self.root = root
        self._metrics = metrics
        self._layout = Layout(root)
        self._boot = boot_id()
        self._born = time.time_ns()
        self._fallback: str | None = None  # where index and values lie when the disk cannot be written
        self._index = self._open("index", Index)
        self._values = self._open("values", lambda path: Values(path, limit_bytes))
        self._handles = Handles()
        self._partials = Partials(self._layout, limit_bytes, self._adopt, self._grown)
        shelf = Shelf(self._layout, self._index, self._handles, metrics)
        self._room = Room(limit_bytes, shelf, self._partials)
        self._backlog = Backlog()
        self._writer = Writer(shelf, self._room, self._backlog)
        self._writer.start()
        if self._guarded(lambda: not self._index.total().files, False):
            self._writer.rebuild()

    def find(self, content: Content) -> StoredFile | None:
        """Open the whole file, by the content's key or by its claim. Damage is None, never an error."""
        for name in _names(content):
            found = self._find(name, content.size)
            if found is not None:
                self._metrics.add("store.hits")
                return found
        return None

    def has(self, content: Content) -> bool:
        """Say whether a whole file seems to be there: neither opened nor looked up, as guesses ask for thousands."""
        return any(self._backlog.get(name) or self._path(name, content.size) for name in _names(content))

    def awaken(self, content: Content) -> None:
        """Have the disk bring a whole file into memory, or the beginning of a large one, without waiting for it."""
        path = next(filter(None, (self._path(name, content.size) for name in _names(content))), None)
        if path is None or not hasattr(os, "posix_fadvise"):
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.posix_fadvise(fd, 0, AWAKENED_MAX, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)

    def size(self, content: Content) -> int | None:
        """Give the size of a whole or partial file, in bytes, without opening it."""
        for name in _names(content):
            data = self._backlog.get(name)
            if data is not None:
                return len(data)
            size = self._size(name)
            if size is not None:
                return size
        return self._partials.size(content.key)

    def put(self, content: Content, data: bytes, proof: Proof) -> None:
        """Take a whole file: it can be read at once, and is on disk soon. Never blocks, never raises."""
        names = tuple(dict.fromkeys((*_own_key(content, proof), *proof.proved)))
        self._handles.note_coming(names)
        if not self._backlog.put(Waiting(proof.md5, data, names)):
            self._metrics.add("store.unwritten")

    @property
    def congested(self) -> bool:
        """True while so much waits for the disk that guesses had better not be fetched."""
        return self._backlog.waiting_bytes > WAITING_MAX // 4

    def partial(self, content: Content, size: int) -> PartialFile:
        """Give the blocks of a large file; in memory when they do not fit or the disk fails."""
        return self._partials.open(content, size)

    def get_value(self, name: str) -> bytes | None:
        """Give a value kept beside the files."""
        return self._values.get(name)

    def set_value(self, name: str, value: bytes) -> None:
        """Keep a value; a disk that fails is logged, not raised."""
        try:
            self._values.set(name, value)
        except INDEX_ERRORS as error:
            self._writer.complain(error)

    def info(self) -> Info:
        """Tell what is held."""
        total = self._guarded(self._index.total, None)
        held = (total.bytes if total else 0) + self._partials.usage()
        hits = self._metrics.snapshot().get("store.hits", 0)
        return Info(held, self._room.limit, total.files if total else 0, self._partials.count(), hits)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> Iterator[Path]:
        """Compare all that is stored with its hashes, remove what is damaged and give its paths; `progress` gets the
        bytes of whole files read."""
        self.flush()
        for md5, size in self._layout.stored():
            path = self._layout.file(md5)
            try:
                found, checksums = hashes(path)
                doubtful = drop_checksums(self._layout, md5, checksums) if found == md5 else None
            except FileNotFoundError:
                continue
            except OSError:
                found, doubtful = "", None
            progress(size)
            if found != md5:
                self._remove(md5)
                yield Path(path)
            elif doubtful is not None:
                yield Path(doubtful)
        self._partials.release_unused()
        yield from map(Path, drop_damaged_partials(self._layout))

    def clear(self) -> int:
        """Remove all files and values but what is in use here; give the bytes freed."""
        self.flush()
        self._handles.forget()
        before = self._partials.usage()
        while self._partials.remove_unused():
            pass
        freed = before - self._partials.usage()
        in_use = self._handles.in_use()
        for md5, _ in list(self._layout.stored()):
            if md5 not in in_use:
                freed += self._guarded(lambda md5=md5: self._room.remove(md5), 0)  # type: ignore[misc]  # bound now
        self._guarded(self._values.clear, None)
        return freed

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put is on disk; `timeout` in seconds."""
        return self._backlog.flush(timeout)

    def close(self) -> None:
        """Write what waits, and close."""
        self._backlog.close()
        self._writer.join()
        self._handles.forget()
        self._partials.close()
        self._index.close()
        self._values.close()
        if self._fallback is not None:
            shutil.rmtree(self._fallback, ignore_errors=True)

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
            handle = self._open_file(name, size)
            if handle is None:
                self._handles.note_absent(name, arrivals)
                return None
            self._handles.add(name, handle)
        if size not in (None, handle.size):
            self._handles.release(handle)
            return None
        self._room.touch(handle.md5, handle.size)
        return DiskFile(handle, self._handles.release, self._remove)

    def _path(self, name: ContentId, size: int | None) -> str | None:
        """Give where a file of this name lies, if it is there."""
        arrivals = self._handles.arrivals
        if self._handles.absent(name):
            return None
        md5 = self._md5(name, size)
        path = self._layout.file(md5) if md5 is not None else None
        if path is not None and os.path.exists(path):
            return path
        self._handles.note_absent(name, arrivals)
        return None

    def _open_file(self, name: ContentId, size: int | None) -> Handle | None:
        md5 = self._md5(name, size)
        if md5 is None:
            return None
        try:
            fd = os.open(self._layout.file(md5), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
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
        if name.scheme == TEXT_SCHEME and not self._guarded(self._index.has_texts, False):
            return None
        return self._guarded(lambda: self._index.alias(name, size), None)

    def _trust(self, handle: Handle) -> bool:
        """Say whether a file may be read now, after making sure where that takes no long."""
        if self._guarded(lambda: self._index.verified(handle.md5, handle.seen, self._boot), False):
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
        if _md5_of(self._layout.file(md5)) == md5:
            self._writer.verified(md5, seen)
            return True
        self._remove(md5)
        return False

    def _remove(self, md5: str) -> None:
        """A damaged file is a miss."""
        self._metrics.add("store.damaged")
        self._handles.forget(md5)
        if self._guarded(lambda: self._room.remove(md5), None) is None:
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
            size = self._guarded(lambda: self._index.alias_size(name), None)
            there = size is not None
        else:
            there = os.path.exists(self._layout.file(name.digest))  # 2 us, where a look into the index costs 40
            row = self._guarded(lambda: self._index.row(name.digest), None) if there else None
            size = row.size if row is not None else None
        if not there:
            self._handles.note_absent(name, arrivals)
        return size

    def _adopt(self, content: Content, path: str, proof: Proof, checksums: bytes) -> None:
        """Move the blocks of a file that became whole to the whole files. Raises OSError."""
        self._layout.publish(self._layout.write_temp(checksums), self._layout.checksum(proof.md5))
        names = (*_own_key(content, proof), *proof.proved)
        self._writer.record(proof.md5, path, names)
        self._handles.note_coming(names)

    def _grown(self) -> None:
        self._writer.make_room()

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        """Ask the index; when it fails, what it would have said is unknown."""
        try:
            return work()
        except INDEX_ERRORS as error:
            self._writer.complain(error)
            return otherwise

    def _open(self, name: str, opener: Callable[[Path], T]) -> T:
        """Open a data base of diskcache's; a damaged one is made anew, one that cannot be written lies elsewhere."""
        path = self.root / name
        if name == "index" and self._layout.damaged_mark.exists():
            with contextlib.suppress(OSError):  # another process may do the same, and the disk may be read-only
                self._layout.damaged_mark.unlink()
            shutil.rmtree(path, ignore_errors=True)
        try:
            return opener(path)
        except sqlite3.OperationalError:
            pass  # read-only, full, or locked for long
        except sqlite3.DatabaseError:
            shutil.rmtree(path, ignore_errors=True)
            return opener(path)
        except OSError:
            pass
        self._fallback = self._fallback or tempfile.mkdtemp(prefix="dagfs-")
        elsewhere = Path(self._fallback) / name
        if name == "index" and not os.access(path, os.W_OK):  # then nobody changes it, and a copy tells what is there
            with contextlib.suppress(OSError):
                shutil.copytree(path, elsewhere)
        return opener(elsewhere)


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


def _own_key(content: Content, proof: Proof) -> tuple[ContentId, ...]:
    """Give the content's key, unless it is an MD5 that its bytes only have as a text of DVC 2."""
    if content.key.scheme == "md5" and content.key.digest != proof.md5:
        return ()
    return (content.key,)


def _md5_of(path: str) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
