"""Where the store's files lie, who may own them, and what a process that died has left."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dagfs import system
from dagfs.config import private_directory, write_new
from dagfs.errors import CacheRefused

FORMAT = "1"
"""Version of the layout. Another one is refused, never guessed at."""

_TEMP_NAME = re.compile(r"(\d+)-(\d+)-[0-9a-f]{8}-\d+")


class Layout:
    """The paths below a store's root. Raises CacheRefused when the root cannot be used safely."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._texts = (str(self.files), str(self.checksums), str(self.tmp))  # a Path costs 10 us
        # One process may hold several stores on one root: while a mount changes its commit, for example.
        self._me = f"{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(4)}"
        self._ticket = itertools.count()
        try:
            _refuse_place_of_others(root.parent)
            private_directory(root)
            self._check_format()
            for path in (self.files, self.tmp, self.partial, self.checksums):
                private_directory(path)
        except OSError as error:
            if error.errno is None:  # our own refusal, which says why
                raise CacheRefused(str(error)) from error
            if isinstance(error, PermissionError) or not self.files.is_dir():
                raise CacheRefused(f"{root} cannot be used as a cache: {error.strerror}") from error
            # A disk that became read-only still serves what it has.
        self._remove_leftovers()

    @property
    def files(self) -> Path:
        return self.root / "files" / "md5"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    @property
    def checksums(self) -> Path:
        return self.root / "checksums"

    @property
    def damaged_mark(self) -> Path:
        """Exists iff the index was found damaged, and is to be made anew at the next start."""
        return self.root / "index-damaged"

    def file(self, md5: str) -> str:
        return f"{self._texts[0]}/{md5[:2]}/{md5[2:]}"

    def checksum(self, md5: str) -> str:
        return f"{self._texts[1]}/{md5}"

    def write_temp(self, data: bytes) -> str:
        """Write a new read-only file and give its path; leaves nothing behind when it raises OSError."""
        path = f"{self._texts[2]}/{self._me}-{next(self._ticket)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.OURS, 0o444)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def publish(self, temp: str, path: str) -> None:
        """Move a file to its place; the directory is made when it is the first of its kind."""
        try:
            os.replace(temp, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.replace(temp, path)

    def stored(self) -> Iterator[tuple[str, int]]:
        """Go over the whole files on disk: MD5 and size in bytes."""
        for directory in _entries(self.files):
            if len(directory.name) == 2 and directory.is_dir(follow_symlinks=False):
                for file in _entries(Path(directory.path)):
                    if len(file.name) == 30 and file.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                            yield directory.name + file.name, file.stat(follow_symlinks=False).st_size

    def _check_format(self) -> None:
        path = self.root / "format"
        try:
            found = path.read_bytes()[:20].decode(errors="replace")
        except FileNotFoundError:
            names = os.listdir(self.root)
            if "format" in names:  # another process has made it just now
                self._check_format()
                return
            if any(not name.startswith("format") for name in names):
                raise CacheRefused(
                    f"{self.root} holds something else than a cache; choose another --cache-dir"
                ) from None
            temp = self.root / f"format-{self._me}"
            write_new(temp, FORMAT)
            temp.rename(path)
            return
        if found.strip() != FORMAT:
            raise CacheRefused(
                f"{self.root} was written by another version of dagfs (format {found.strip()!r}, not {FORMAT!r});"
                " remove it or choose another --cache-dir"
            )

    def _remove_leftovers(self) -> None:
        for entry in _entries(self.tmp):
            owner = _TEMP_NAME.fullmatch(entry.name)
            if owner is None or _started(int(owner[1])) != int(owner[2]):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


class Stamp(NamedTuple):
    """Tells whether a file was written since it was looked at: `size` in bytes, `modified` in ns since the epoch."""

    size: int
    modified: int


def stamp(file: str | int) -> Stamp:
    """Look at a file by path or descriptor. Raises OSError."""
    status = os.stat(file)
    return Stamp(status.st_size, status.st_mtime_ns)


def boot_id() -> str:
    """Name this run of the machine: data written without fsync is trusted only until it ends."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Elsewhere the clocks tell, to ten minutes: an adjusted clock costs a verification, nothing else.
        return f"t{int(time.time() - time.monotonic()) // 600}"


def _refuse_place_of_others(parent: Path) -> None:
    """Raise PermissionError when a directory belongs to somebody who could replace what we make in it."""
    try:
        status = parent.stat()
    except FileNotFoundError:
        return
    if status.st_uid not in (system.user() or 0, 0) and not status.st_mode & stat.S_ISVTX:
        raise PermissionError(f"{parent} belongs to user {status.st_uid}; choose another --cache-dir")


def unlink_quietly(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            yield from found
    except OSError:
        return


def _started(pid: int) -> int:
    """Give when a process started, in clock ticks since boot; 0 where that is unknown, -1 when there is no process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        pass
    return -1 if system.is_process(pid) is False else 0
