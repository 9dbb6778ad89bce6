"""A store for each test, as often as it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stores import MiB, Opener

from dagfs.metrics import Metrics
from dagfs.store.disk import DiskStore


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    stores: list[DiskStore] = []

    def start(limit: int = 100 * MiB, root: Path | None = None) -> DiskStore:
        stores.append(DiskStore(root or tmp_path / "cache", limit, Metrics()))
        return stores[-1]

    yield start
    for store in stores:
        store.close()
