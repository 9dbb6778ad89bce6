"""The rooms of one commit in this process: what the daemon builds for a mount, without kernel and mount."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dagfs.answers import wait
from dagfs.config import store_root
from dagfs.errors import NotInCache, TooLarge
from dagfs.hub.api import connect
from dagfs.hub.auth import Token, find_token
from dagfs.metrics import Metrics
from dagfs.model import Commit, Kind, RefKind, RepoRef
from dagfs.repository.core import Repository
from dagfs.store.disk import DiskStore
from dagfs.tree.known import Known
from dagfs.vfs.seam import ROOT, Attributes, Directory

PIECE = 4 << 20
"""Bytes asked of the rooms at once: what the disk cannot take is held in memory, and there is room for a few."""

LINKS_MAX = 40  # as the kernel's own


@dataclass(frozen=True, slots=True)
class Settings:
    """How a file system reads, whatever it reads; as the options of `dagfs mount`. `cache`: the user's directory."""

    cache: Path
    cache_bytes: int
    client_tokens: Path
    token_file: str | None = None
    prefetch: bool = True
    offline: bool = False
    shared_cache: str | None = None

    def store_root(self, repo: RepoRef) -> Path:
        """The same as a mount's: one store for each hub."""
        return store_root(self.cache, repo.host)


class OwnMemory:
    """Node ids and versions that nobody outside of this process knows (`repository.core.Memory`)."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get_value(self, name: str) -> bytes | None:
        return self._values.get(name)

    def set_value(self, name: str, value: bytes) -> None:
        self._values[name] = value

    def set_values(self, values: Mapping[str, bytes]) -> None:
        self._values.update(values)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What one core serves (`repository.core.Scope`)."""

    repo: RepoRef
    settings: Settings
    subdir: str = ""
    dvc_cache: Path | None = None
    dvc_remote: str | None = None

    @property
    def id(self) -> str:
        return f"fsspec-{os.getpid()}"

    @property
    def store_root(self) -> Path:
        return self.settings.store_root(self.repo)

    @property
    def cache_bytes(self) -> int:
        return self.settings.cache_bytes

    @property
    def prefetch(self) -> bool:
        return self.settings.prefetch

    @property
    def offline(self) -> bool:
        return self.settings.offline

    @property
    def shared_cache(self) -> str | None:
        return self.settings.shared_cache


class Core:
    """One commit of one repository. Thread-safe; for the process that made it only. Methods raise DagfsError."""

    def __init__(self, repo: RepoRef, revision: str | None, settings: Settings, pinned: Commit | None = None) -> None:
        """`pinned`: what the revision was found to be before. Raises UsageError."""
        offline = settings.offline
        token = Token("nowhere", None) if offline else _token(repo, settings)
        self.commit = pinned or (_recall(repo, revision, settings) if offline else _resolve(repo, revision, token))
        self._repository = Repository(_Scope(repo, settings), self.commit, token, OwnMemory())
        if not (pinned or offline):
            Known(self._repository.store, repo).remember(revision, self.commit)
        if self._repository.ways is not None:
            self._repository.ways.begin()
        self._rooms = self._repository.make_rooms(self._repository.make_tree(self.commit, "fsspec"))
        self._vfs = self._rooms.vfs

    def find(self, path: str) -> Attributes:
        """Give what a path is, following symbolic links."""
        nodes = [wait(self._vfs.getattr(ROOT))]
        names = deque(_names(path.encode("utf-8", "surrogateescape")))
        links = 0
        while names:
            name = names.popleft()
            if name == b"..":
                nodes = nodes[:-1] or nodes
                continue
            found = wait(self._vfs.lookup(nodes[-1].node, name))
            if found.kind is not Kind.SYMLINK:
                nodes.append(found)
                continue
            links += 1
            if links > LINKS_MAX:
                raise TooLarge(f"{path}: a circle of symbolic links")
            names.extendleft(reversed(list(_names(wait(self._vfs.readlink(found.node))))))
        return nodes[-1]

    def list(self, node: int, *, sized: bool) -> Iterator[tuple[str, Kind, Attributes | None]]:
        """Go over a directory: name, kind, and what is known of it: all, if `sized`."""
        directory: Directory = wait(self._vfs.readdir(node, sized=sized))
        for position, (name, _, kind) in enumerate(directory.rows(0, len(directory))):
            known = directory.attributes(position)
            if known is None and sized:
                known = wait(self._vfs.lookup(node, name))
            yield name.decode("utf-8", "surrogateescape"), kind, known

    def read(self, node: int, start: int, end: int) -> bytes:
        """Give the bytes [start, end) of a file, fewer only at its end."""
        pieces = []
        while start < end:
            piece = wait(self._vfs.read(node, start, min(PIECE, end - start)))
            if not piece:
                break
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def hash(self, node: int) -> str | None:
        """Give what the hub calls a file's bytes by."""
        value = wait(self._vfs.getxattr(node, b"user.dagfs.hash"))
        return value.decode() if value else None

    def close(self) -> None:
        self._rooms.prefetcher.enabled = False
        self._repository.disconnect()
        self._rooms.close()
        self._repository.close()


def _resolve(repo: RepoRef, revision: str | None, token: Token) -> Commit:
    source = connect(repo, token, Metrics(), os.environ)
    try:
        return source.resolve(revision, RefKind.ANY)
    finally:
        source.close()


def _recall(repo: RepoRef, revision: str | None, settings: Settings) -> Commit:
    store = DiskStore(settings.store_root(repo), settings.cache_bytes, Metrics())
    try:
        found = Known(store, repo).recall(revision, RefKind.ANY)
    finally:
        store.close()
    if found is None:
        raise NotInCache(f"the cache does not know the commit of {revision or 'the default branch'} of {repo}")
    return found


def _token(repo: RepoRef, settings: Settings) -> Token:
    token_file = None if settings.token_file is None else Path(settings.token_file)
    return find_token(token_file, os.environ, settings.client_tokens, repo.host, time.time())


def _names(path: bytes) -> Iterator[bytes]:
    return (name for name in path.split(b"/") if name not in (b"", b"."))
