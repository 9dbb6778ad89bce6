"""A file system over a hub in memory, put together as the daemon does, for tests of the rooms tree to vfs.

The cache is a simple one, or with `real_cache` the real one over a store in memory and the real fetcher.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TypeVar

from dagfs.answers import then, wait
from dagfs.cache import Cache
from dagfs.errors import DagfsError
from dagfs.fetch.fetcher import Fetcher
from dagfs.fetch.renewal import Renewal
from dagfs.fetch.versions import Places, Versions
from dagfs.hub.memory import MemorySource
from dagfs.hub.source import BodyHead
from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Kind, Span, Urgency, Versioning
from dagfs.prefetch.annotations import AnnotationSource
from dagfs.prefetch.neighbours import NeighbourSource
from dagfs.prefetch.prefetcher import Planner, Prefetcher
from dagfs.store.memory import MemoryStore
from dagfs.store.seam import Store
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers
from dagfs.vfs.catalogue import OpeningWatcher, TreeCatalogue
from dagfs.vfs.core import Vfs
from dagfs.vfs.seam import ROOT, Attributes

T = TypeVar("T")

DEADLINE = 20  # seconds; far more than any test needs

POND = ".dagshub/storage/s3/pond"


class Values(dict):
    """The store's values, in a dict."""

    def get_value(self, name):
        return self.get(name)

    def set_value(self, name, value):
        self[name] = bytes(value)


class _Whole:
    """Collects one body."""

    def __init__(self, sized: Future, whole: Future) -> None:
        self.parts: list[bytes] = []
        self.sized = sized
        self.whole = whole

    def head(self, head: BodyHead) -> None:
        if head.total is not None:
            self.sized.set_result(head.total)

    def data(self, chunk: bytes) -> None:
        self.parts.append(chunk)

    def done(self, error: DagfsError | None) -> None:
        data = b"".join(self.parts)
        for promise, value in ((self.whole, data), (self.sized, len(data))):
            if error is not None and not promise.done():
                promise.set_exception(error)
            elif not promise.done():
                promise.set_result(value)


class WholeFileCache:
    """The four methods of the cache, over whole files: one download for each content, kept for ever."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._flights: dict[ContentId, tuple[Future, Future]] = {}
        self.prepared: list[str] = []
        self.reads: Counter[str] = Counter()

    def stored(self, content: Content) -> int | None:
        return len(self._flights[content.key][1].result()) if self.cached(content) else None

    def awaken(self, content: Content) -> None:
        pass

    def file(self, content: Content) -> None:
        return None

    def cached(self, content: Content) -> bool:
        flight = self._flights.get(content.key)
        return flight is not None and flight[1].done() and flight[1].exception() is None

    def size(self, content: Content, urgency: Urgency):
        return self._fetch(content)[0]

    def read(self, content: Content, span: Span, urgency: Urgency):
        self.reads[content.entry.path] += 1
        whole = self._fetch(content)[1]
        return then(whole, lambda data: data[span.start : span.end])

    def prepare(self, content: Content, span: Span | None, urgency: Urgency) -> None:
        self.prepared.append(content.entry.path)
        self._fetch(content)

    def _fetch(self, content: Content):
        with self._lock:
            flight = self._flights.get(content.key)
            if flight is not None and not (flight[1].done() and flight[1].exception()):
                return flight
            flight = self._flights[content.key] = (Future(), Future())
        self._source.open(self._source.commit, content.entry, None, _Whole(*flight))
        return flight


def placed(files: Mapping[str, T], versioning: Versioning) -> dict[str, T]:
    """Give a random tree where content of its kind can be: objects lie in a bucket."""
    return {f"{POND}/{path}" if versioning is Versioning.BUCKET else path: value for path, value in files.items()}


class World:
    """One mount over `source`. Leave it with `with`; `restart` is a new process on the same store."""

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        source: MemorySource | None = None,
        versioning: Versioning = Versioning.DVC,
        root_path: str = "",
        values: Values | None = None,
        prefetch: bool = False,
        real_cache: bool = False,
        store: Store | None = None,
    ) -> None:
        """`store`: what the real cache keeps its bytes in, instead of memory; the caller closes it."""
        self.source = source or MemorySource(files or {}, versioning=versioning)
        self.values = Values() if values is None else values
        self.root_path = root_path
        self.prefetch = prefetch
        self.store = store or (MemoryStore() if real_cache else None)
        self._start()

    def _start(self) -> None:
        self.metrics = Metrics()
        self.workers = Workers()
        if self.store is None:
            self.fetcher = None
            self.cache = WholeFileCache(self.source)
        else:
            places = Places(self.source.repo, "mount", self.store, self.store)
            versions = Versions(places, lambda job: self.workers.submit(job, background=True))
            self.fetcher = Fetcher(self.source, self.source.commit, self.metrics, hold=versions.hold)
            self.cache = Cache(self.store, Renewal(self.fetcher, self.store, versions, self.metrics), self.metrics)
        pinned = Pinned(self.source.repo, self.source.commit, self.root_path, snapshot="mount")
        self.tree = Tree(self.source, pinned, self.values, self.workers, self.metrics)
        watcher = OpeningWatcher(self._prefetcher()) if self.prefetch else None
        stored = self.cache.stored if self.store is None else self.store.size
        self.vfs = Vfs(self.tree, self.cache, stored, self.metrics, watcher)

    def _prefetcher(self) -> Prefetcher:
        catalogue = TreeCatalogue(self.tree)
        sources = [AnnotationSource(catalogue, self.cache), NeighbourSource(catalogue)]
        planner = Planner(sources, self.cache.cached, self.metrics)
        return Prefetcher(planner, self.cache, lambda job: self.workers.submit(job, background=True))

    def __enter__(self) -> World:
        self.tree.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.source.close()

    def stop(self, *, killed: bool = False) -> None:
        if not killed:
            self.tree.close()
        self.workers.close()
        if self.fetcher is not None:
            self.fetcher.close()
            self.cache.close()

    def restart(self, *, killed: bool = False) -> None:
        """End the process and start another on the same store; one that is killed stores nothing at its end."""
        self.stop(killed=killed)
        self._start()

    @property
    def calls(self) -> dict[str, int]:
        return dict(self.source.calls)

    def walk_to(self, path: str) -> Attributes:
        """Look a path up from the root, name by name, as the kernel does."""
        found = self.wait(self.vfs.getattr(ROOT))
        for name in path.split("/") if path else ():
            found = self.wait(self.vfs.lookup(found.node, name.encode()))
        return found

    def names(self, path: str = "") -> list[bytes]:
        return [name for name, _, _ in self.list(path).rows(0, 1 << 30)]

    def list(self, path: str = ""):
        return self.wait(self.vfs.readdir(self.walk_to(path).node))

    def read(self, path: str) -> bytes:
        found = self.walk_to(path)
        return self.wait(self.vfs.read(found.node, 0, found.size))

    def kinds(self, path: str = "") -> dict[bytes, Kind]:
        return {name: kind for name, _, kind in self.list(path).rows(0, 1 << 30)}

    @staticmethod
    def wait(answer):
        return wait(answer, DEADLINE)
