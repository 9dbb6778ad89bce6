"""The cache over the real store and fetcher, and a hub in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dagfs.cache import Cache
from dagfs.fetch import retries
from dagfs.fetch.fetcher import Fetcher
from dagfs.hub.memory import MemorySource
from dagfs.metrics import Metrics
from dagfs.store.disk import DiskStore

LIMIT = 200 << 20
"""Bytes of the cache, where a test does not say otherwise."""


class CacheRooms:
    """`options` are those of the hub."""

    def __init__(self, root: Path, files: dict[str, bytes], limit: int = LIMIT, **options: Any) -> None:
        self.source = MemorySource(files, **options)
        self.metrics = Metrics()
        self.store = DiskStore(root, limit, self.metrics)
        self.fetcher = Fetcher(self.source, self.source.commit, self.metrics)
        self.cache = Cache(self.store, self.fetcher, self.metrics)

    def close(self) -> None:
        self.fetcher.close()
        self.cache.close()
        self.source.close()
        self.store.close()


R = TypeVar("R", bound=CacheRooms)


@contextlib.contextmanager
def builder(made_of: Callable[..., R], root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., R]]:
    """Give what builds rooms over the cache at `root`, unless told another; they are closed at the end."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    made: list[R] = []

    def build(files: dict[str, bytes], limit: int = LIMIT, root: Path = root, **options: Any) -> R:
        made.append(made_of(root, files, limit, **options))
        return made[-1]

    yield build
    for built in made:
        built.close()
