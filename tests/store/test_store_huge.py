"""A store of very many files: nobody waits while they are gone over, and what they cost does not grow with them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from support.contents import dvc, noise, proof
from support.waiting import until

from dagfs.metrics import Metrics
from dagfs.store import writer as writer_module
from dagfs.store.disk import DiskStore
from dagfs.store.index import Index
from dagfs.store.layout import Layout

FILES = 300_000
SIZE = 1000
STEPS = 20
"""Of SQLite's virtual machine, between two calls of the counter."""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose index knows FILES files. They are not there: whoever went over them would find that out."""
    root = tmp_path_factory.mktemp("huge") / "cache"
    DiskStore(root, 1 << 40, Metrics()).close()
    value = json.dumps([SIZE, "an earlier run"]).encode()
    rows = ((f"md5:{hashlib.md5(b'%d' % n).hexdigest()}", value) for n in range(FILES))
    with sqlite3.connect(root / "index/cache.db") as data_base:
        triggers = data_base.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            data_base.execute(f"DROP TRIGGER {name}")
        write = "INSERT OR REPLACE INTO Cache (key, raw, mode, value) VALUES (?, 1, 1, ?)"
        data_base.executemany(write, rows)
        data_base.execute(write, ("total", json.dumps([SIZE * FILES, FILES]).encode()))
        for _, made_by in triggers:
            data_base.execute(made_by)
    data_base.close()
    return root


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What SQLite does for each thread, by its name: counts of STEPS instructions, in connections made from now on."""
    counted: Counter[str] = Counter()
    connect = sqlite3.connect

    def counting(*args: object, **options: object) -> sqlite3.Connection:
        made = connect(*args, **options)  # type: ignore[call-overload]
        made.set_progress_handler(lambda: counted.update([threading.current_thread().name]), STEPS)
        return made

    monkeypatch.setattr(sqlite3, "connect", counting)
    return counted


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that are listed from now on."""
    found: list[str] = []
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda path: found.append(str(path)) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path: found.append(str(path)) or listdir(path))
    return found


def use(store: DiskStore) -> None:
    """What a mount does first."""
    data = noise(SIZE)
    assert store.find(dvc(data)) is None
    assert store.size(dvc(data)) is None
    store.put(dvc(data), data, proof(dvc(data), data))
    found = store.find(dvc(data))
    assert found is not None
    found.close()
    assert store.flush(20)
    assert store.info().files
    store.close()


def test_a_store_of_300_000_files_is_opened_and_used_for_what_an_empty_one_costs(
    huge: Path, tmp_path: Path, steps: Counter[str], listed: list[str]
) -> None:
    small = DiskStore(tmp_path / "small", 1 << 40, Metrics())
    assert small.flush(20)
    small.close()
    costs = []
    for root in (tmp_path / "small", huge):
        steps.clear()
        listed.clear()
        use(DiskStore(root, 1 << 40, Metrics()))
        costs.append(sum(steps.values()))
    assert costs[0] > 10
    assert costs[1] < 2 * costs[0]
    assert [path for path in listed if path.startswith(f"{huge}/files")] == []


def test_files_leave_a_full_store_of_300_000_at_a_cost_that_does_not_grow_with_it(
    huge: Path, steps: Counter[str]
) -> None:
    """In the writer's thread; the index is read where the last look ended."""
    store = DiskStore(huge, SIZE * FILES, Metrics())
    steps.clear()
    for number in range(200):
        data = noise(SIZE, number)
        store.put(dvc(data), data, proof(dvc(data), data))
    assert store.flush(60)
    assert store.info().bytes <= SIZE * FILES
    by_thread = dict(steps)
    store.close()
    assert by_thread.pop("store-writer") < 200 * 1000 / STEPS
    assert sum(by_thread.values()) < 50


def test_the_files_at_the_end_of_the_index_are_reached_as_cheaply_as_those_at_its_beginning(
    huge: Path, steps: Counter[str]
) -> None:
    index = Index(huge / "index")
    files = index.walk()
    costs = []
    for _ in range(10):
        steps.clear()
        assert len(list(islice(files, 2000))) == 2000
        costs.append(sum(steps.values()))
    index.close()
    assert max(costs) < 1.2 * min(costs)


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A store of 40 files whose index was lost."""
    store = DiskStore(tmp_path / "lost", 1 << 30, Metrics())
    for number in range(40):
        data = noise(SIZE, number)
        store.put(dvc(data), data, proof(dvc(data), data))
    store.close()
    for path in (store.root / "index").iterdir():
        path.unlink()
    return store.root


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets so many of the files on the disk be seen by who goes over them."""
    seen = threading.Semaphore(0)
    stored = Layout.stored

    def slow(layout: Layout) -> Iterator[tuple[str, int]]:
        for found in stored(layout):
            seen.acquire()
            yield found

    monkeypatch.setattr(Layout, "stored", slow)
    yield seen
    seen.release(1000)


def test_while_the_files_of_a_lost_index_are_counted_the_store_serves_and_keeps_others(
    lost: Path, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "REBUILD_BATCH", 8)
    store = DiskStore(lost, 1 << 30, Metrics())
    found = store.find(dvc(noise(SIZE, 7)))
    assert found is not None
    assert found.read(0, SIZE) == noise(SIZE, 7)
    found.close()
    gate.release(4)
    until(lambda: not gate._value, seconds=20)
    data = noise(SIZE, 1000)
    store.put(dvc(data), data, proof(dvc(data), data))
    path = Path(store._layout.file(proof(dvc(data), data).md5))
    gate.release(8)
    until(path.exists)
    assert store.info().files < 40
    gate.release(100)
    assert store.flush(20)
    assert store.info().files == 41
    store.close()


def test_a_store_that_is_closed_while_it_counts_goes_on_with_it_at_the_next_start(
    lost: Path, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "REBUILD_BATCH", 8)
    store = DiskStore(lost, 1 << 30, Metrics())
    closing = threading.Thread(target=store.close)
    gate.release(12)
    until(lambda: store.info().files == 8)
    closing.start()
    until(lambda: store._backlog._closed)
    gate.release(4)
    closing.join(20)
    assert not closing.is_alive()
    gate.release(100)
    again = DiskStore(lost, 1 << 30, Metrics())
    assert again.flush(20)
    assert (again.info().files, again.info().bytes) == (40, 40 * SIZE)
    assert not again._index.counting
    again.close()
