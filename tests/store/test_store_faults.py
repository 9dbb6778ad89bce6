"""A disk that fails, fills up, loses bits or is shared: a read is right, or a miss, and the limit holds."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.caches import CacheRooms, builder
from support.contents import dvc, git, noise, proof
from support.waiting import until

from dagfs.answers import wait
from dagfs.errors import CacheRefused
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.metrics import Metrics
from dagfs.model import Span, Urgency
from dagfs.store.disk import DiskStore
from dagfs.store.handles import BLOCK

MiB = 1 << 20
LARGE = WHOLE_MAX + 3 * BLOCK + 77
SLACK = 6 * MiB
"""Bytes over the limit for a moment: blocks of large files are counted every 4 MiB, and a batch of the writer's is on
its way to its place."""


class Rooms(CacheRooms):
    """`contents` by path."""

    def __init__(self, root: Path, files: dict[str, bytes], limit: int) -> None:
        super().__init__(root, files, limit)
        self.files = files
        self.contents = {
            path: dvc(data, path) if seed % 2 else git(data, path) for seed, (path, data) in enumerate(files.items())
        }

    def read_wrongly(self, rng: random.Random, reads: int) -> list[str]:
        """Read random spans of random files; name what was not right."""
        wrong = []
        for _ in range(reads):
            path = rng.choice(list(self.files))
            data = self.files[path]
            start = rng.randrange(len(data) + 1)
            end = min(len(data), start + rng.choice([1, 4096, 131_072, MiB]))
            try:
                found = wait(self.cache.read(self.contents[path], Span(start, end), Urgency.READER), 60)
            except Exception as error:  # noqa: BLE001 -- any error of a disk that reaches a reader
                wrong.append(f"{path} {start}-{end}: {error!r}")
                continue
            if found != data[start:end]:
                wrong.append(f"{path} {start}-{end}")
        return wrong

    def read_in_threads(self, threads: int, reads: int, seed: int = 0) -> list[str]:
        wrong: list[str] = []
        running = [
            threading.Thread(target=lambda n=n: wrong.extend(self.read_wrongly(random.Random(n), reads)))  # type: ignore[misc]
            for n in range(seed, seed + threads)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return wrong


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rooms]]:
    with builder(Rooms, tmp_path / "cache", monkeypatch) as build:
        yield build


FILES = {f"f{n}": noise(30_000 + 7 * n, n) for n in range(20)} | {"large": noise(LARGE, 99), "empty": b""}


class FlakyOs:
    """The module `os`, some of whose functions fail at random."""

    def __init__(self, failing: dict[str, int], rate: float, seed: int) -> None:
        self._failing = failing
        self._rate = rate
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.failed = 0

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in self._failing:
            return real

        def perhaps(*words: object, **options: object) -> object:
            with self._lock:
                fails = self._random.random() < self._rate
                self.failed += fails
            if fails:
                raise OSError(self._failing[name], os.strerror(self._failing[name]))
            return real(*words, **options)

        return perhaps


ON_READ = dict.fromkeys(("open", "pread", "stat", "fstat", "scandir", "listdir", "statvfs"), errno.EIO)
ON_WRITE = dict.fromkeys(("write", "pwrite", "replace", "ftruncate", "makedirs", "fchmod", "unlink"), errno.ENOSPC)
MODULES = ("store.layout", "store.handles", "store.partial", "store.partials", "store.disk", "store.lookup", "system")


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("failing", [ON_READ, ON_WRITE, ON_READ | ON_WRITE], ids=["read", "write", "both"])
def test_a_disk_that_fails_at_random_costs_no_read(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch, failing: dict[str, int], rate: float
) -> None:
    built = rooms(FILES)
    assert built.read_in_threads(2, 10) == []
    flaky = FlakyOs(failing, rate, seed=1)
    with monkeypatch.context() as failing_disk:
        for module in MODULES:
            failing_disk.setattr(f"dagfs.{module}.os", flaky)
        assert built.read_in_threads(4, 40, seed=10) == []
        assert flaky.failed > 0
    assert built.read_in_threads(2, 40, seed=20) == []
    assert built.store.flush(20)
    assert list(built.store.verify()) == []


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_an_index_that_fails_at_random_costs_no_read(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    built = rooms(FILES)
    index, rng = built.store._index, random.Random(3)
    for name in ("_read", "_write"):
        real = getattr(index, name)

        def perhaps(*words: object, real: Callable[..., object] = real) -> object:
            if rng.random() < rate:
                raise sqlite3.OperationalError("disk I/O error")
            return real(*words)

        monkeypatch.setattr(index, name, perhaps)
    assert built.read_in_threads(4, 40) == []
    monkeypatch.undo()
    assert built.read_in_threads(2, 40) == []


def test_a_disk_that_hangs_while_it_writes_holds_up_no_reader_of_small_files(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from memory, and of guesses none are fetched meanwhile."""
    files = {f"f{n}": noise(100_000, n) for n in range(400)}
    built = rooms(files)
    layout, hangs = built.store._layout, threading.Event()
    write = layout.write_temp

    def slowly(data: bytes) -> str:
        hangs.wait(60)
        return write(data)

    monkeypatch.setattr(layout, "write_temp", slowly)
    try:
        assert built.read_in_threads(4, 200) == []
        assert built.store.info().files == 0
        assert built.store.congested
    finally:
        hangs.set()
    assert built.store.flush(30)
    assert built.store.info().files > 300
    assert built.read_in_threads(2, 50) == []


def test_a_descriptor_that_became_stale_is_a_miss(rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache on NFS: the file was removed elsewhere."""
    built = rooms(FILES)
    assert built.read_in_threads(1, 60) == []
    assert built.store.flush(20)
    assert built.read_in_threads(1, 60) == []

    def stale(_file: object) -> object:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as nfs:
        nfs.setattr("dagfs.store.handles.stamp", stale)
        assert built.read_in_threads(2, 40) == []


def bytes_on_disk(root: Path) -> int:
    """Give what whole files, blocks and temporary files use."""
    used = 0
    for place in ("files", "partial", "tmp"):
        for directory, _, names in os.walk(root / place):
            for name in names:
                try:
                    used += os.lstat(f"{directory}/{name}").st_blocks * 512
                except FileNotFoundError:
                    continue
    return used


@pytest.mark.parametrize("limit", [16 * MiB, 1 * MiB, 10_000])
def test_the_limit_holds_at_every_moment_of_parallel_misses(rooms: Callable[..., Rooms], limit: int) -> None:
    """Also one that is smaller than a file."""
    files = {f"f{n}": noise(100_000, n) for n in range(200)}
    files |= {f"large{n}": noise(LARGE, 1000 + n) for n in range(3)}
    built = rooms(files, limit)
    peaks, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            peaks.append(bytes_on_disk(built.store.root))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert built.read_in_threads(8, 60) == []
        assert built.store.flush(30)
    finally:
        over.set()
        watcher.join()
    assert max(peaks) <= limit + SLACK
    until(lambda: bytes_on_disk(built.store.root) <= limit + 200 * 4096)  # a file's last page is counted whole
    assert limit < MiB or max(peaks) > limit // 2, "the test filled nothing"


@pytest.mark.parametrize("text", [b"2", b"", b"\xff\xfe", b"1" * 100_000])
def test_a_format_that_is_not_ours_is_refused_in_words(tmp_path: Path, text: bytes) -> None:
    DiskStore(tmp_path / "cache", MiB, Metrics()).close()
    (tmp_path / "cache/format").write_bytes(text)
    with pytest.raises(CacheRefused, match="another version of dagfs"):
        DiskStore(tmp_path / "cache", MiB, Metrics())
    assert (tmp_path / "cache/format").read_bytes() == text


LONG = 5 * BLOCK + 77
KEPT = FILES | {"large": noise(LONG, 98)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with small files, a large one with its checksums, and one that is incomplete."""
    root = tmp_path_factory.mktemp("kept") / "cache"
    store = DiskStore(root, 100 * MiB, Metrics())
    for path, data in KEPT.items():
        if path != "large":
            store.put(dvc(data), data, proof(dvc(data), data))
    assert store.flush(20)
    whole = store.partial(dvc(KEPT["large"]), LONG)
    whole.write(0, KEPT["large"])
    assert whole.publish()
    whole.close()
    half = store.partial(dvc(HALF), LONG)
    half.write(0, HALF[: 3 * BLOCK])
    half.write(LONG // BLOCK * BLOCK, HALF[LONG // BLOCK * BLOCK :])
    half.close()
    store.close()
    return root


HALF = noise(LONG, 55)
SPANS = [Span(0, 3 * BLOCK), Span(LONG // BLOCK * BLOCK, LONG)]


def flippable(root: Path) -> list[tuple[Path, list[Span]]]:
    """Give each file whose bits matter, with the spans of it that were written."""
    places = [
        path for place in ("files", "checksums", "partial") for path in (root / place).rglob("*") if path.is_file()
    ]
    return [
        (path, SPANS if path.parent.name == "partial" and path.suffix != ".log" else [Span(0, path.stat().st_size)])
        for path in sorted(places)
        if path.stat().st_size
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_verify_finds_any_flipped_bit(kept: Path, tmp_path: Path, data: st.DataObject) -> None:
    """In a whole file, in the checksums of a large one, in the blocks of an incomplete one, or in their log."""
    root = tmp_path / "cache"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(kept, root)
    path, spans = data.draw(st.sampled_from(flippable(root)))
    span = data.draw(st.sampled_from(spans))
    offset, bit = data.draw(st.integers(span.start, span.end - 1)), data.draw(st.integers(0, 7))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    store = DiskStore(root, 100 * MiB, Metrics())
    try:
        assert list(store.verify()) == [path.with_suffix("") if path.suffix == ".log" else path]
        assert list(store.verify()) == []
        for name, truth in KEPT.items():
            found = store.find(dvc(truth))
            assert found is not None or path.parent.parent.parent == root / "files", name
            assert found is None or found.read(0, len(truth)) == truth
            if found is not None:
                found.close()
    finally:
        store.close()


@pytest.mark.parametrize("kind", ["link", "directory"])
@pytest.mark.parametrize("part", ["", ".log"], ids=["blocks", "log"])
def test_verify_removes_what_stands_in_place_of_an_incomplete_file(
    kept: Path, tmp_path: Path, kind: str, part: str
) -> None:
    root = tmp_path / "cache"
    shutil.copytree(kept, root)
    (blocks,) = (root / "partial").glob("*.0")
    place = blocks.with_name(blocks.name + part)
    place.unlink()
    if kind == "link":
        place.symlink_to("/etc/passwd")
    else:
        place.mkdir()
    store = DiskStore(root, 100 * MiB, Metrics())
    try:
        assert list(store.verify()) == [blocks]
        assert list((root / "partial").iterdir()) == []
    finally:
        store.close()


@pytest.mark.parametrize("size", [100, 200_000], ids=["in a row", "in a file"])
def test_verify_finds_a_flipped_bit_of_a_listing(tmp_path: Path, size: int) -> None:
    """diskcache keeps small values in its data base and large ones in files beside it."""
    store, truth = DiskStore(tmp_path / "cache", 100 * MiB, Metrics()), noise(size, 3)
    try:
        store.set_values({f"listing/{number}": b"%d" % number for number in range(250)})
        store.set_value("listing/it's one", truth)
        assert list(store.verify()) == []
        store.close()
        (holder,) = (path for path in (tmp_path / "cache/values").rglob("*") if path.is_file() and has(path, truth))
        at = holder.read_bytes().index(truth[50:100])
        with holder.open("r+b") as file:
            file.seek(at)
            file.write(bytes([truth[50] ^ 4]))
        store = DiskStore(tmp_path / "cache", 100 * MiB, Metrics())
        assert list(store.verify()) == [tmp_path / "cache/values/listing/it's one"]
        assert list(store.verify()) == []
        assert store.get_value("listing/it's one") is None
        assert store.get_value("listing/249") == b"249"
    finally:
        store.close()


def has(path: Path, data: bytes) -> bool:
    return data[50:100] in path.read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_bits_flipped_behind_a_store_that_is_open_are_a_miss(kept: Path, tmp_path: Path, seed: int) -> None:
    """Whoever reads after somebody wrote into the cache gets the truth or nothing."""
    root, rng = tmp_path / "cache", random.Random(seed)
    shutil.copytree(kept, root)
    store = DiskStore(root, 100 * MiB, Metrics())
    try:
        for path, spans in flippable(root):
            span = rng.choice(spans)
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.seek(rng.randrange(span.start, span.end))
                byte = os.pread(file.fileno(), 1, file.tell())[0]
                file.write(bytes([byte ^ 1 << rng.randrange(8)]))
        for truth in KEPT.values():
            found = store.find(dvc(truth))
            if found is not None and truth:
                with pytest.raises(OSError, match="damaged"):
                    found.read(0, len(truth))
        half = store.partial(dvc(HALF), LONG)
        for span in SPANS:
            assert half.read(span.start, span.size) in (None, HALF[span.start : span.end])
        half.close()
    finally:
        store.close()
