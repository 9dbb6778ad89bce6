"""The bytes behind paths: DVC's cache in both layouts, git's blobs, and open files that can be sent from any offset."""

from __future__ import annotations

import configparser
import os
import re
import stat
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dagfs.devhub.git import GitRepository
from dagfs.errors import NotFound

_OBJECT_KEY = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?\Z")

_SMALL_BLOB_BYTES = 1 << 20
"""Up to here a blob is kept in memory; beyond it in a temporary file: a span of it costs no second read of it all."""

_MEMORY_BYTES = 64 << 20
_SPOOL_BYTES = 1 << 30
"""Bounds of what is kept of git's blobs; the least recently used go first."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A body of `size` bytes: in memory (`data`), or in a file open as `fd` until its context ends."""

    size: int
    tag: str  # what an ETag is made of: equal tags, equal bytes
    data: bytes | None = None
    fd: int = -1

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Give the bytes [start, end) in pieces. Raises OSError when the file has become shorter."""
        if self.data is not None:
            yield self.data[start:end]
            return
        while start < end:
            piece = os.pread(self.fd, min(end - start, 1 << 18), start)
            if not piece:
                raise OSError("the file became shorter while it was sent")
            yield piece
            start += len(piece)


class DvcCache:
    """The objects that DVC keeps beside a git repository; `roots` are the cache directories, looked into in turn."""

    def __init__(self, directory: Path, git_dir: Path) -> None:
        candidates = [_configured_cache(directory), directory / ".dvc/cache", git_dir / ".dvc/cache"]
        self._roots = tuple(dict.fromkeys(str(root) for root in candidates if root is not None))

    def paths(self, name: str, *, legacy: bool) -> list[str]:
        """Give where an object may lie; `name` is an MD5, with ".dir" for a manifest. Its DVC's layout comes first."""
        key = f"{name[:2]}/{name[2:]}"
        keys = (key, f"files/md5/{key}") if legacy else (f"files/md5/{key}", key)
        return [f"{root}/{k}" for k in keys for root in self._roots]

    def remote_paths(self, key: str) -> list[str]:
        """Give where the object of a key of the DVC remote may lie: files/md5/ab/cd... or ab/cd..."""
        return [f"{root}/{key}" for root in self._roots] if _OBJECT_KEY.match(key) else []

    def size(self, name: str, *, legacy: bool) -> int | None:
        """Give an object's size in bytes; None when it is not here."""
        for path in self.paths(name, legacy=legacy):
            try:
                return os.stat(path).st_size
            except OSError:
                continue
        return None


class Blobs:
    """Git's blobs, kept within bounds once read; thread-safe."""

    def __init__(self, git: GitRepository) -> None:
        self._git = git
        self._lock = threading.Lock()
        self._small: OrderedDict[str, bytes] = OrderedDict()  # under the lock; within _MEMORY_BYTES
        self._large: OrderedDict[str, tuple[int, int]] = OrderedDict()  # oid -> (descriptor, size); within _SPOOL_BYTES
        self._bytes = 0
        self._spooled = 0
        self._spooling = threading.Lock()  # one large blob at a time; taken before `_lock`

    @contextmanager
    def open(self, oid: str) -> Iterator[Stored]:
        """Open a blob. Raises NotFound."""
        with self._lock:
            data = self._small.get(oid)
            if data is not None:
                self._small.move_to_end(oid)
        if data is None and self._git.sizes([oid])[0] <= _SMALL_BLOB_BYTES:
            data = self._git.read(oid)
            self._remember(oid, data)
        if data is not None:
            yield Stored(len(data), oid, data)
            return
        fd, size = self._spooled_copy(oid)
        try:
            yield Stored(size, oid, fd=fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        with self._lock:
            large, self._large = list(self._large.values()), OrderedDict()
        for fd, _ in large:
            os.close(fd)

    def _remember(self, oid: str, data: bytes) -> None:
        with self._lock:
            if oid not in self._small:
                self._small[oid] = data
                self._bytes += len(data)
            while self._bytes > _MEMORY_BYTES:
                self._bytes -= len(self._small.popitem(last=False)[1])

    def _spooled_copy(self, oid: str) -> tuple[int, int]:
        """Give a descriptor of the caller's own, and the size."""
        with self._spooling:
            with self._lock:
                if oid in self._large:
                    self._large.move_to_end(oid)
                    fd, size = self._large[oid]
                    return os.dup(fd), size
            with tempfile.TemporaryFile(prefix="dagfs-serve-") as spool:
                size = self._git.copy(oid, spool)
                spool.flush()
                kept, mine = os.dup(spool.fileno()), os.dup(spool.fileno())
            with self._lock:
                self._large[oid] = (kept, size)
                self._spooled += size
                while self._spooled > _SPOOL_BYTES and len(self._large) > 1:
                    old, old_size = self._large.popitem(last=False)[1]
                    self._spooled -= old_size
                    os.close(old)
            return mine, size


@contextmanager
def open_file(paths: Iterable[str], tag: str | None = None) -> Iterator[Stored]:
    """Open the first file there is; without a `tag` of its content, size and time stand for it. Raises NotFound."""
    fd = _open_first(paths)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound("not a file")
        yield Stored(status.st_size, tag or f"{status.st_mtime_ns:x}-{status.st_size:x}", fd=fd)
    finally:
        os.close(fd)


def _open_first(paths: Iterable[str]) -> int:
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
    raise NotFound("the object is not here")


def _configured_cache(directory: Path) -> Path | None:
    """Give the `cache.dir` of DVC's settings; those of this machine win over those that are committed."""
    found = None
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(directory / ".dvc" / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        found = parser.get("cache", "dir", fallback=found)
    return None if found is None else (directory / ".dvc" / found).expanduser()
