"""The rooms of one repository, built from the bottom up: for a mount and for fsspec alike."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dagfs.cache import Cache
from dagfs.fetch.fetcher import Fetcher
from dagfs.fetch.renewal import Renewal
from dagfs.fetch.versions import Notes, Places, Versions
from dagfs.hub.api import HubSource, connect
from dagfs.hub.auth import Token
from dagfs.hub.offline import OfflineSource
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import Commit, Content, RepoRef
from dagfs.origins.connect import Access, Asked, with_ways
from dagfs.origins.source import WaysSource
from dagfs.prefetch.annotations import AnnotationSource
from dagfs.prefetch.neighbours import NeighbourSource
from dagfs.prefetch.prefetcher import Planner, Prefetcher
from dagfs.prefetch.scatter import ScatterSource
from dagfs.prefetch.seam import GuessSource
from dagfs.repository.borrowing import BorrowingSource
from dagfs.store.disk import DiskStore
from dagfs.tree.numbers import Values
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers
from dagfs.vfs.catalogue import OpeningWatcher, TreeCatalogue
from dagfs.vfs.core import Vfs

RESTING_BYTES = 8 << 20
"""Of listings of an earlier commit, held in memory for who is still in it."""


class Scope(Protocol):
    """What is served, and how: the user's words, decided once. `id` names who serves it on this machine; `store_root`:
    the directory of the hub's store."""

    @property
    def id(self) -> str: ...
    @property
    def repo(self) -> RepoRef: ...
    @property
    def subdir(self) -> str: ...
    @property
    def store_root(self) -> Path: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def prefetch(self) -> bool: ...
    @property
    def offline(self) -> bool: ...
    @property
    def dvc_cache(self) -> Path | None: ...
    @property
    def dvc_remote(self) -> str | None: ...
    @property
    def shared_cache(self) -> str | None: ...


class Memory(Values, Notes, Protocol):
    """What lives as long as who is served remembers anything: node ids, versions of objects."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What there is once for each commit (`vfs.generations.Generation`)."""

    tree: Tree
    prefetcher: Prefetcher
    vfs: Vfs

    @property
    def fs(self) -> Vfs:
        return self.vfs

    @property
    def lost(self) -> bool:
        return self.tree.unnumbered

    def rest(self) -> None:
        self.prefetcher.enabled = False
        self.tree.rest(RESTING_BYTES)

    def close(self) -> None:
        self.prefetcher.enabled = False
        self.tree.close()


class Repository:
    """What all commits of a repository share: store, connections, cache and threads. `close` ends the network first;
    promises still open then end with an error."""

    def __init__(self, scope: Scope, commit: Commit, token: Token, ledger: Memory, session: str | None = None) -> None:
        """`session` names the life of what is served, over all of its processes and commits. Raises UsageError."""
        self._scope = scope
        self._notes = ledger
        self._session = session or secrets.token_hex(8)
        self.metrics = Metrics()
        self.store = DiskStore(scope.store_root, scope.cache_bytes, self.metrics, scope.dvc_cache)
        self.ways: WaysSource | None = None
        try:
            self.source: HubSource | WaysSource | OfflineSource = self._connect(commit, token)
        except BaseException:
            self.store.close()
            raise
        self._bytes: Source = BorrowingSource(self.source, self.store) if scope.dvc_cache else self.source
        self.workers = Workers()
        versions = Versions(Places(scope.repo, self._session, ledger, self.store), self._later)
        self.fetcher = Fetcher(
            self._bytes, commit, self.metrics, congested=lambda: self.store.congested, hold=versions.hold
        )
        loader = self.fetcher if scope.offline else Renewal(self.fetcher, self.store, versions, self.metrics)
        self.cache = Cache(self.store, loader, self.metrics, self.disproved, self._kept)

    def make_tree(self, commit: Commit, mount: str, ordinal: int = 0) -> Tree:
        """Make the tree of a commit; the ledger keeps its node ids, under the name `mount`."""
        scope = self._scope
        pinned = Pinned(scope.repo, commit, scope.subdir, mount, ordinal, self._session, scope.offline)
        tree = Tree(self.source, pinned, self.store, self.workers, self.metrics, self._notes)
        if self.store.dvc_cache is not None:
            tree.keep_manifests(self.store.dvc_cache.keep_manifest)
        return tree

    def make_rooms(self, tree: Tree) -> Rooms:
        """Build what there is once for each commit."""
        prefetcher = self._prefetcher(tree)
        vfs = Vfs(tree, self.cache, self.store.size, self.metrics, OpeningWatcher(prefetcher))
        return Rooms(tree, prefetcher, vfs)

    def disproved(self, content: Content) -> None:
        """Bytes of a file that were given already turned out wrong: whoever keeps them must forget them."""
        if self.ways is not None:
            self.ways.disproved(content)

    def disconnect(self) -> None:
        """End the network: threads may be waiting for it, and the end has a deadline."""
        self.fetcher.close()
        self._bytes.close()

    def close(self) -> None:
        """To be called after `disconnect`, and when the rooms are closed."""
        self.workers.close()
        self.cache.close()
        self.store.close()

    def _connect(self, commit: Commit, token: Token) -> HubSource | WaysSource | OfflineSource:
        scope = self._scope
        if scope.offline:
            return OfflineSource()
        hub = connect(scope.repo, token, self.metrics, os.environ)
        if scope.shared_cache is None and scope.dvc_remote is None:
            return hub
        asked = Asked(scope.shared_cache, scope.dvc_remote, scope.id)
        self.ways = with_ways(hub, commit, asked, Access(token, os.environ), self.store.find)
        return self.ways

    def _prefetcher(self, tree: Tree) -> Prefetcher:
        catalogue = TreeCatalogue(tree)
        sources: list[GuessSource] = [
            AnnotationSource(catalogue, self.cache),
            NeighbourSource(catalogue),
            ScatterSource(catalogue, self.cache.here),
        ]
        prefetcher = Prefetcher(Planner(sources, self.cache.here, self.metrics), self.cache, self._later)
        prefetcher.enabled = self._scope.prefetch and not self._scope.offline
        return prefetcher

    def _later(self, job: Callable[[], None]) -> None:
        self.workers.submit(job, background=True)

    def _kept(self, content: Content) -> None:
        if self.ways is not None:
            self.ways.kept(content)
