"""The store on disk: whole files under their MD5, as DVC 3's cache has them, beside the blocks of incomplete ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dagfs import system
from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Proof
from dagfs.store.backlog import WAITING_MAX, Backlog, Waiting
from dagfs.store.complaint import Complaint
from dagfs.store.dvc_cache import DvcCache
from dagfs.store.handles import Handles
from dagfs.store.index import INDEX_ERRORS, Index
from dagfs.store.layout import Layout
from dagfs.store.lent import Lent
from dagfs.store.lookup import Lookup
from dagfs.store.partials import Partials
from dagfs.store.room import Room, Shelf
from dagfs.store.scrub import drop_checksums, drop_damaged_partials, hashes
from dagfs.store.seam import PartialFile, StoredFile
from dagfs.store.values import Values
from dagfs.store.writer import Writer

T = TypeVar("T")

AWAKENED_MAX = 8 << 20
"""Bytes of a file that the disk is asked to bring into memory ahead of its reader."""


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

    def __init__(self, root: Path, limit_bytes: int, metrics: Metrics, dvc_cache: Path | None = None) -> None:
        """`dvc_cache`: of DVC's own, read and given what comes. Raises CacheRefused when the root cannot be used
        safely."""
        self.root = root
        self._metrics = metrics
        self._layout = Layout(root)
        self._fallback: str | None = None  # where index and values lie when the disk cannot be written
        self._index = self._open("index", Index)
        self._values = self._open("values", lambda path: Values(path, limit_bytes))
        self._handles = Handles()
        self._complaint = Complaint()
        self._partials = Partials(self._layout, limit_bytes, self._adopt, self._grown, self._complaint)
        self.dvc_cache = DvcCache(dvc_cache, metrics) if dvc_cache is not None else None
        lent = Lent(self.dvc_cache, self._handles, self._values) if self.dvc_cache is not None else None
        shelf = Shelf(self._layout, self._index, self._handles, metrics, self.dvc_cache)
        self._room = Room(limit_bytes, shelf, self._partials)
        self._backlog = Backlog()
        self._writer = Writer(shelf, self._room, self._backlog, self._complaint)
        self._lookup = Lookup(shelf, self._room, self._backlog, self._writer, lent)
        self._writer.start()
        if self._writer.guarded(lambda: self._index.counting, False):
            self._writer.rebuild()

    def find(self, content: Content) -> StoredFile | None:
        """Open the whole file, by the content's key or by its claim. Damage is None, never an error."""
        return self._lookup.find(content)

    def has(self, content: Content) -> bool:
        """Say whether a whole file seems to be there: neither opened nor looked up, as guesses ask for thousands."""
        return self._lookup.has(content)

    def awaken(self, content: Content) -> None:
        """Have the disk bring a whole file into memory, or the beginning of a large one, without waiting for it."""
        path = self._lookup.path(content)
        if path is None or not hasattr(os, "posix_fadvise"):
            return
        try:
            fd = os.open(path, os.O_RDONLY | system.OURS)
        except OSError:
            return
        try:
            os.posix_fadvise(fd, 0, AWAKENED_MAX, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)

    def also_called(self, content: Content, name: ContentId) -> bool:
        """Let a whole file be found by another name as well; False when it is not there."""
        return self._lookup.also_called(content, name)

    def size(self, content: Content) -> int | None:
        """Give the size of a whole or partial file, in bytes, without opening it."""
        size = self._lookup.size(content)
        return size if size is not None else self._partials.size(content.key)

    def lends(self, md5: str) -> bool:
        """Say whether DVC's cache has a file of that name, whatever it holds."""
        return self.dvc_cache is not None and self.dvc_cache.path(md5) is not None

    def prove_lent(self, md5: str, cancelled: Callable[[], bool]) -> bool:
        """Have a file of DVC's cache trusted from now on: hash it, 1.5 s for each GiB, unless that was done. False when
        there is none, or its bytes are others."""
        return self._lookup.prove_lent(md5, cancelled)

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

    @property
    def refusal(self) -> str | None:
        """What the disk has last said instead of taking what was to be kept; None when it takes it."""
        return self._complaint.text

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

    def set_values(self, values: Mapping[str, bytes]) -> None:
        """Keep several values at once, as `set_value` does."""
        try:
            self._values.set_all(values.items())
        except INDEX_ERRORS as error:
            self._writer.complain(error)

    def info(self) -> Info:
        """Tell what is held."""
        total = self._writer.guarded(self._index.total, None)
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
                self._lookup.remove(md5)
                yield Path(path)
            elif doubtful is not None:
                yield Path(doubtful)
        self._partials.release_unused()
        yield from map(Path, drop_damaged_partials(self._layout))
        nothing: list[Path] = []
        yield from self._writer.guarded(self._drop_damaged_values, nothing)

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
                freed += self._writer.guarded(lambda md5=md5: self._room.remove(md5), 0)  # type: ignore[misc]  # bound now
        self._writer.guarded(self._values.clear, None)
        return freed

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put is on disk; `timeout` in seconds."""
        return self._backlog.flush(timeout)

    def close(self) -> None:
        """Write what waits, and close."""
        self._backlog.close()
        self._writer.join()
        if self.dvc_cache is not None:
            self.dvc_cache.close()
        self._handles.forget()
        self._partials.close()
        self._index.close()
        self._values.close()
        if self._fallback is not None:
            shutil.rmtree(self._fallback, ignore_errors=True)

    def _adopt(self, content: Content, path: str, proof: Proof, checksums: bytes) -> None:
        """Move the blocks of a file that became whole to the whole files. Raises OSError."""
        self._layout.publish(self._layout.write_temp(checksums), self._layout.checksum(proof.md5))
        names = (*_own_key(content, proof), *proof.proved)
        self._writer.record(proof.md5, path, names)
        self._handles.note_coming(names)

    def _grown(self) -> None:
        self._writer.make_room()

    def _drop_damaged_values(self) -> list[Path]:
        return [self.root / "values" / name for name in self._values.drop_damaged()]

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


def _own_key(content: Content, proof: Proof) -> tuple[ContentId, ...]:
    """Give the content's key, unless it is an MD5 that its bytes only have as a text of DVC 2."""
    if content.key.scheme == "md5" and content.key.digest != proof.md5:
        return ()
    return (content.key,)
