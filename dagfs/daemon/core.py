"""The rooms of one mount, built from the bottom up: the only place that knows all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagfs.cache import Cache
from dagfs.daemon.commits import CommitTable
from dagfs.daemon.generation import Rooms, Trees
from dagfs.daemon.plan import MountPlan, ledger_path
from dagfs.fetch.fetcher import Fetcher
from dagfs.hub.api import HubSource, connect
from dagfs.hub.auth import Token
from dagfs.hub.offline import OfflineSource
from dagfs.metrics import Metrics
from dagfs.model import Commit, Content
from dagfs.origins.connect import Access, Asked, with_ways
from dagfs.origins.source import WaysSource
from dagfs.prefetch.annotations import AnnotationSource
from dagfs.prefetch.neighbours import NeighbourSource
from dagfs.prefetch.prefetcher import Planner, Prefetcher
from dagfs.prefetch.scatter import ScatterSource
from dagfs.prefetch.seam import GuessSource
from dagfs.store.disk import DiskStore
from dagfs.store.ledger import Ledger
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers
from dagfs.vfs.catalogue import OpeningWatcher, TreeCatalogue
from dagfs.vfs.core import Vfs
from dagfs.vfs.generations import Generations
from dagfs.vfs.seam import FileSystem

NO_LIMIT = 1 << 62

HIDDEN_TOLD = 100
"""Names of each kind that a report has."""


@dataclass(frozen=True, slots=True)
class Followed:
    """For a mount that changes its commit: those it has shown, and whether another worker has served it."""

    shown: CommitTable
    takes_over: bool


class Core:
    """One mount's rooms. `close` ends the network first; promises still open then end with an error."""

    def __init__(self, plan: MountPlan, commit: Commit, token: Token, followed: Followed | None = None) -> None:
        self._plan = plan
        self.metrics = Metrics()
        self._figures: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.store = DiskStore(plan.store_root, plan.cache_bytes, self.metrics)
        self.ways: WaysSource | None = None
        self.source: HubSource | WaysSource | OfflineSource = self._source(commit, token)
        self.fetcher = Fetcher(self.source, commit, self.metrics, congested=lambda: self.store.congested)
        self.cache = Cache(self.store, self.fetcher, self.metrics, self._disproved, self._kept)
        self.workers = Workers()
        self.ledger = Ledger(ledger_path(plan.places, plan.id))
        self.followed = followed
        self.generations = None if followed is None else self._generations(followed)
        self._only = self._rooms(self._tree(commit, plan.id)) if followed is None else None
        self.drop_pages: Callable[[int], None] = lambda _node: None  # the adapter's
        self.told: Callable[[], dict[str, Any]] = dict  # more for `dagfs status`

    @property
    def rooms(self) -> Rooms:
        """The rooms of the commit that the mount shows."""
        rooms = self._only if self.generations is None else self.generations.current
        assert rooms is not None  # noqa: S101 -- one of the two is there  # nosec B101
        return rooms

    @property
    def fs(self) -> FileSystem:
        """What the adapters serve."""
        return self.rooms.vfs if self.generations is None else self.generations

    @property
    def tree(self) -> Tree:
        """The tree of the commit that the mount shows."""
        return self.rooms.tree

    def _generations(self, followed: Followed) -> Generations[Rooms]:
        shown, trees = followed.shown, Trees()

        def build(commit: Commit, ordinal: int) -> Rooms:
            mount = f"{self._plan.id}-{shown.session}-{ordinal}"
            return self._rooms(trees.get(ordinal, lambda: self._tree(commit, mount, ordinal)))

        return Generations(shown, build, self.workers.submit, takes_over=followed.takes_over)

    def _tree(self, commit: Commit, mount: str, ordinal: int = 0) -> Tree:
        pinned = Pinned(self._plan.repo, commit, self._plan.subdir, mount, ordinal)
        return Tree(self.source, pinned, self.store, self.workers, self.metrics, self.ledger)

    def _rooms(self, tree: Tree) -> Rooms:
        """Build what there is once for each commit; content, connections and threads serve all of them."""
        prefetcher = self._prefetcher(tree)
        vfs = Vfs(tree, self.cache, self.store.size, self.metrics, OpeningWatcher(prefetcher))
        return Rooms(tree, prefetcher, vfs)

    def _prefetcher(self, tree: Tree) -> Prefetcher:
        catalogue = TreeCatalogue(tree)
        sources: list[GuessSource] = [
            AnnotationSource(catalogue, self.cache),
            NeighbourSource(catalogue),
            ScatterSource(catalogue, self.cache.here),
        ]
        planner = Planner(sources, self.cache.here, self.metrics)
        prefetcher = Prefetcher(planner, self.cache, lambda job: self.workers.submit(job, background=True))
        prefetcher.enabled = self._plan.prefetch and not self._plan.offline
        return prefetcher

    def _source(self, commit: Commit, token: Token) -> HubSource | WaysSource | OfflineSource:
        plan = self._plan
        if plan.offline:
            return OfflineSource()
        hub = connect(plan.repo, token, self.metrics, os.environ)
        if plan.shared_cache is None and plan.dvc_remote is None:
            return hub
        asked = Asked(plan.shared_cache, plan.dvc_remote, plan.id)
        self.ways = with_ways(hub, commit, asked, Access(token, os.environ), self.store.find)
        return self.ways

    def _kept(self, content: Content) -> None:
        if self.ways is not None:
            self.ways.kept(content)

    def _disproved(self, content: Content) -> None:
        """Bytes of a file that were given already turned out wrong: whoever keeps them must forget them."""
        if self.ways is not None:
            self.ways.disproved(content)
        at_hand = self.generations.at_hand() if self.generations is not None else [self.rooms]
        for node in [node for rooms in at_hand for node in rooms.vfs.nodes_of(content)]:
            self.drop_pages(node)

    def observe(self, room: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a room's own counters to the figures, as `room.NAME`."""
        self._figures[room] = counts

    def figures(self) -> dict[str, int]:
        """Give all counters of this worker."""
        more = {f"{room}.{name}": n for room, counts in self._figures.items() for name, n in counts().items()}
        return self.metrics.snapshot() | more

    def hub_state(self) -> dict[str, Any]:
        """Tell whether the hub answers: "state", "error" and for how many "seconds"."""
        return self.source.standing()

    def way_reports(self) -> list[dict[str, Any]]:
        """Tell of each way to the bytes before the hub's API whether it is in use, and what it has brought."""
        return [] if self.ways is None else self.ways.report()

    def hidden(self) -> dict[str, int | list[str]]:
        """Count and name what is not shown: names that no file system can show, in the listings at hand, and links
        that lead out of the mount. Of each at most HIDDEN_TOLD names."""
        hidden, names = self.tree.hidden()
        refused, links = self.tree.refused.told(HIDDEN_TOLD)
        return {
            "hidden": hidden,
            "hidden_names": names[:HIDDEN_TOLD],
            "refused_links": refused,
            "refused_link_names": links,
        }

    def close(self) -> None:
        self.rooms.prefetcher.enabled = False
        self.fetcher.close()
        self.source.close()  # before the threads that may be waiting for it: the end has a deadline
        (self.rooms if self.generations is None else self.generations).close()
        self.workers.close()
        self.cache.close()
        self.store.close()
        self.ledger.close()


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
