"""The rooms of one mount, built from the bottom up: the only place that knows all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dagfs.cache import Cache
from dagfs.daemon.plan import MountPlan
from dagfs.errors import (
    AccessDenied,
    BadToken,
    HubUnreachable,
    NoAccess,
    NotADirectory,
    NotFound,
    RemoteError,
    UnknownRepository,
    UnknownRevision,
)
from dagfs.fetch.fetcher import Fetcher
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.metrics import Metrics
from dagfs.model import Commit, ContentId
from dagfs.prefetch.annotations import AnnotationSource
from dagfs.prefetch.neighbours import NeighbourSource
from dagfs.prefetch.prefetcher import Planner, Prefetcher
from dagfs.prefetch.scatter import ScatterSource
from dagfs.prefetch.seam import GuessSource
from dagfs.store.disk import DiskStore
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers
from dagfs.vfs.catalogue import OpeningWatcher, TreeCatalogue
from dagfs.vfs.core import Vfs

NO_LIMIT = 1 << 62


def resolve(plan: MountPlan, token: Token) -> Commit:
    """Find the commit and list the mount's root into the cache, so that every failure comes before the mount.

    Everything that is opened for it is closed again: who calls this forks afterwards. Raises UsageError.
    """
    source = connect(plan.repo, token, Metrics(), os.environ)
    try:
        commit = source.resolve(plan.revision, plan.revision_kind)
    except (UnknownRepository, BadToken) as error:
        raise type(error)(f"{error}{token.unused and f' ({token.unused})'}") from error
    finally:
        source.close()
    core = Core(plan, commit, token)
    try:
        core.tree.prepare()
    except (NotFound, NotADirectory):
        raise UnknownRevision(f"{plan.repo.slug} has no directory {plan.subdir!r} at {commit.sha[:12]}") from None
    except AccessDenied as error:
        raise NoAccess(f"{plan.repo} does not let this token list {plan.subdir or 'its files'}") from error
    except RemoteError as error:
        raise HubUnreachable(f"{plan.repo.host} gave no listing of {plan.repo.slug}: {error}") from error
    finally:
        core.close()
    return commit


class Core:
    """One mount's rooms. `close` ends the network first; promises still open then end with an error."""

    def __init__(self, plan: MountPlan, commit: Commit, token: Token) -> None:
        self.metrics = Metrics()
        self._figures: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.store = DiskStore(plan.store_root, plan.cache_bytes, self.metrics)
        self.source = connect(plan.repo, token, self.metrics, os.environ)
        self.fetcher = Fetcher(self.source, commit, self.metrics, congested=lambda: self.store.congested)
        self.cache = Cache(self.store, self.fetcher, self.metrics, self._disproved)
        self.workers = Workers()
        pinned = Pinned(plan.repo, commit, plan.subdir, plan.id)
        self.tree = Tree(self.source, pinned, self.store, self.workers, self.metrics)
        self.prefetcher = self._prefetcher(plan.prefetch)
        self.vfs = Vfs(self.tree, self.cache, self.store.size, self.metrics, OpeningWatcher(self.prefetcher))

    def _prefetcher(self, enabled: bool) -> Prefetcher:
        catalogue = TreeCatalogue(self.tree)
        sources: list[GuessSource] = [
            AnnotationSource(catalogue, self.cache),
            NeighbourSource(catalogue),
            ScatterSource(catalogue, self.cache.here),
        ]
        planner = Planner(sources, self.cache.here, self.metrics)
        prefetcher = Prefetcher(planner, self.cache, lambda job: self.workers.submit(job, background=True))
        prefetcher.enabled = enabled
        return prefetcher

    def _disproved(self, key: ContentId) -> None:
        self.vfs.disproved(key)  # built after the cache that tells it

    def observe(self, room: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a room's own counters to the figures, as `room.NAME`."""
        self._figures[room] = counts

    def figures(self) -> dict[str, int]:
        """Give all counters of this worker."""
        more = {f"{room}.{name}": n for room, counts in self._figures.items() for name, n in counts().items()}
        return self.metrics.snapshot() | more

    def hidden_names(self) -> int:
        """Count the names that no file system can show, in the listings at hand."""
        return self.tree.hidden()[0]

    def close(self) -> None:
        self.prefetcher.enabled = False
        self.fetcher.close()
        self.source.close()  # before the threads that may be waiting for it: the end has a deadline
        self.tree.close()
        self.workers.close()
        self.cache.close()
        self.store.close()


def open_stores(cache: Path) -> Iterator[DiskStore]:
    """Open the store of each hub under a cache directory in turn, without a limit: nothing is evicted by looking.

    What is no store is left alone: opening it would make it one, and change its mode.
    """
    for root in sorted(mark.parent for mark in cache.glob("*/format")):
        store = DiskStore(root, NO_LIMIT, Metrics())
        try:
            yield store
        finally:
            store.close()
