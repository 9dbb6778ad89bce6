"""The file system that fsspec knows as `dagshub`: read-only, by path, over the cores of this process."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, NoReturn
from urllib.parse import unquote

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from dagfs.config import DEFAULT_CACHE_BYTES, hub_host, places
from dagfs.errors import BadToken, DagfsError, HubUnreachable, NoAccess, UnknownRepository, UnknownRevision
from dagfs.fsspec_adapter.core import Core, Settings
from dagfs.fsspec_adapter.pool import POOL, Pin, Wanted
from dagfs.hub.urls import parse_repo
from dagfs.model import Commit, Kind
from dagfs.vfs.errnos import ERRNOS
from dagfs.vfs.seam import Attributes

BLOCK = 256 << 10
"""Bytes read ahead of small reads; larger ones are what the rooms below are for."""

PARALLEL = 32
"""Files asked for at a time: what the hub is recommended to be asked at most."""

_AT_OPENING = {
    NoAccess: errno.EACCES,
    BadToken: errno.EACCES,
    UnknownRepository: errno.ENOENT,
    UnknownRevision: errno.ENOENT,
}
_REPOSITORY_PARTS = 2
_TYPES = {Kind.DIRECTORY: "directory", Kind.FILE: "file", Kind.SYMLINK: "link"}

Info = dict[str, Any]


def _read_only(*_args: Any, **_options: Any) -> NoReturn:
    raise OSError(errno.EROFS, "a DagsHub commit is read-only here: push with git and DVC")


class DagsHubFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Paths are `OWNER/NAME[@REVISION]/PATH`; a slash in the revision is written %2F.

    `rev`: for paths without a revision, instead of the default branch. `host`, `cache_dir`, `token_file`, `offline`,
    `shared_cache`: as the options of `dagfs mount`; `cache_size` in bytes. What a revision is is found out once in a
    process, and the same in its children and in those that this object is sent to; `invalidate_cache` asks anew.
    Raises OSError: FileNotFoundError only when the hub said so, PermissionError, TimeoutError.
    """

    protocol = "dagshub"
    root_marker = ""

    def __init__(  # noqa: PLR0913 -- they are options, by keyword
        self,
        *,
        rev: str | None = None,
        host: str | None = None,
        cache_dir: str | None = None,
        cache_size: int = DEFAULT_CACHE_BYTES,
        token_file: str | None = None,
        offline: bool = False,
        prefetch: bool = True,
        shared_cache: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        own = places(os.environ, cache_dir)
        self._rev = rev
        self._host = hub_host(os.environ, host)
        self._settings = Settings(own.cache, cache_size, own.client_tokens, token_file, prefetch, offline, shared_cache)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpickled, (type(self), self.storage_args, self.storage_options, POOL.pins())

    @property
    def fsid(self) -> str:
        return f"dagshub-{self._host}"

    def info(self, path: str, **_options: Any) -> Info:
        """Describe a path, what it leads to if it is a symbolic link."""
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            return _info(path, core.find(inside))

    def ls(self, path: str, detail: bool = True, *, sized: bool | None = None, **_options: Any) -> list[Any]:
        """List a directory. Sizes cost the hub more than names: without `detail`, and with `sized` False, they are not
        asked for and may be None."""
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            found = core.find(inside)
            if found.kind is not Kind.DIRECTORY:
                return [_info(path, found)] if detail else [path]
            sized = detail if sized is None else sized
            rows = list(core.list(found.node, sized=sized))
        if not detail:
            return [f"{path}/{name}" for name, _, _ in rows]
        return [self._row(f"{path}/{name}", kind, known) for name, kind, known in rows]

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = None, **options: Any
    ) -> Any:
        """As fsspec's; but a directory that cannot be listed is an error, not an empty one."""
        options.setdefault("sized", bool(options.get("detail")))
        return super().walk(path, maxdepth, topdown, _unless_missing if on_error is None else on_error, **options)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **options: Any
    ) -> Any:
        options.setdefault("sized", detail)
        return super().find(path, maxdepth, withdirs, detail, **options)

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        options.setdefault("sized", bool(options.get("detail")))
        return super().glob(path, maxdepth, **options)

    def exists(self, path: str, **_options: Any) -> bool:
        """Tell whether there is such a path; raises when that cannot be found out."""
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def isfile(self, path: str) -> bool:
        return self._is(path, "file")

    def isdir(self, path: str) -> bool:
        return self._is(path, "directory")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: Any) -> bytes:
        """Give the bytes [start, end) of a file; negative ones count from its end."""
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            found = core.find(inside)
            if found.kind is Kind.DIRECTORY:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            first, last, _ = slice(start, end).indices(found.size)
            return core.read(found.node, first, last)

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_options: Any,
    ) -> list[Any]:
        """Read parts of files, many at a time."""
        if max_gap is not None:
            raise NotImplementedError("max_gap: nothing is gained by it here")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        found = self._side_by_side(list(zip(paths, starts, ends, strict=True)))
        failed = next((one for one in found if isinstance(one, Exception)), None)
        if failed is not None and on_error == "raise":
            raise failed
        return found

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **options: Any) -> Any:
        """Read whole files, many at a time."""
        if isinstance(path, str) and not recursive and "*" not in path:
            return super().cat(path, recursive, on_error, **options)
        paths = [one for one in self.expand_path(path, recursive=recursive) if self.isfile(one)]
        found = dict(zip(paths, self.cat_ranges(paths, None, None, on_error=on_error), strict=True))
        return {one: body for one, body in found.items() if on_error != "omit" or not isinstance(body, Exception)}

    def ukey(self, path: str) -> str:
        """Give what changes with a file's bytes: the hub's hash of them, else the commit and the path."""
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            return core.hash(core.find(inside).node) or f"{core.commit.sha}:{inside}"

    def checksum(self, path: str) -> int:
        return hash(self.ukey(path))

    def modified(self, path: str) -> datetime:
        """Give the time of the commit."""
        return datetime.fromtimestamp(self.info(path)["mtime"], timezone.utc)

    created = modified

    def commit(self, path: str) -> str:
        """Give the sha of the commit that a path is read from."""
        with self._at(self._strip_protocol(path)) as (core, _):
            return core.commit.sha

    def invalidate_cache(self, path: str | None = None) -> None:
        """Find out anew what every revision is; files that are open are read from the commit that it is then.

        For one path there is nothing to do, as nothing in a commit changes: libraries ask for that in mid-work.
        """
        if path is None:
            POOL.forget()
        super().invalidate_cache(path)

    mkdir = makedirs = rmdir = rm = rm_file = _rm = _read_only
    cp_file = mv = touch = pipe = pipe_file = put = put_file = _read_only

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> DagsHubFile:
        if mode != "rb":
            _read_only()
        options.setdefault("size", None)
        details = self.info(path)
        if details["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        options["size"] = details["size"]
        return DagsHubFile(self, path, mode, block_size or BLOCK, **options)

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[tuple[Core, str]]:
        """Give the core of a path's repository, and the path in it; errors inside become the system's."""
        try:
            wanted, inside = self._split(path)
            with POOL.use(wanted) as core:
                yield core, inside
        except DagfsError as error:
            raise _system_error(error, path) from error

    def _split(self, path: str) -> tuple[Wanted, str]:
        owner, _, rest = path.lstrip("/").partition("/")
        name, _, inside = rest.partition("/")
        if not owner or not name:
            raise FileNotFoundError(errno.ENOENT, "write dagshub://OWNER/NAME/PATH", path)
        name, _, revision = name.partition("@")
        repo, _ = parse_repo(f"{owner}/{name}", self._host)
        return Wanted(repo, unquote(revision) or self._rev, self._settings), inside

    def _row(self, path: str, kind: Kind, known: Attributes | None) -> Info:
        if kind is Kind.SYMLINK:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                target = self.info(path)
                if target["type"] == "file":  # one to a directory would make walks go in circles
                    return target | {"islink": True}
        if known is None:
            return {"name": path, "type": _TYPES[kind], "size": 0 if kind is Kind.DIRECTORY else None}
        return _info(path, known)

    def _is(self, path: str, kind: str) -> bool:
        try:
            return bool(self.info(path)["type"] == kind)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _side_by_side(self, spans: list[tuple[str, int | None, int | None]]) -> list[Any]:
        def read(span: tuple[str, int | None, int | None]) -> bytes | Exception:
            try:
                return self.cat_file(*span)
            except Exception as error:  # noqa: BLE001 -- given to the caller in the file's place
                return error

        if len(spans) < 2:
            return [read(span) for span in spans]
        with ThreadPoolExecutor(min(PARALLEL, len(spans)), thread_name_prefix="dagfs-fsspec") as threads:
            return list(threads.map(read, spans))


class DagsHubFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec ships no types
    """An open file; like others not to be shared by threads. It can be pickled, and outlives a fork."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


def _unpickled(cls: type[DagsHubFileSystem], args: Any, options: Any, pins: Mapping[Pin, Commit]) -> DagsHubFileSystem:
    POOL.pin(pins)
    return cls(*args, **options)


def _info(path: str, found: Attributes) -> Info:
    return {"name": path, "type": _TYPES[found.kind], "size": found.size, "mtime": found.mtime, "ino": found.inode}


def _system_error(error: DagfsError, path: str) -> OSError:
    number = ERRNOS.get(type(error))
    if number is None:
        number = next((code for kind, code in _AT_OPENING.items() if isinstance(error, kind)), None)
    if number is None:
        number = errno.EHOSTUNREACH if isinstance(error, HubUnreachable) else errno.EIO
    return OSError(number, str(error), path)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
