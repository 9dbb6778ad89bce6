"""The cache over the real store and fetcher, and a scripted hub."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from support.caches import CacheRooms, builder
from support.contents import claimed, dvc, git, noise
from support.waiting import until

from dagfs.answers import wait
from dagfs.cache import core as cache_core
from dagfs.errors import DamagedBody, IntegrityError, RemoteUnavailable
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.model import Content, Span, Urgency, Versioning
from dagfs.proofs import Prover
from dagfs.store.handles import BLOCK
from dagfs.store.shared import SharedPartial

READER = Urgency.READER
MiB = 1 << 20
LARGE = noise(WHOLE_MAX + 3 * MiB + 5)


class Rooms(CacheRooms):
    def read(self, content: Content, start: int = 0, end: int = 1 << 40) -> bytes:
        return wait(self.cache.read(content, Span(start, end), READER), 30)

    def received(self) -> int:
        return self.metrics.snapshot().get("fetch.received_bytes", 0)


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rooms]]:
    with builder(Rooms, tmp_path / "cache", monkeypatch) as build:
        yield build


def test_a_file_is_downloaded_once_in_two_lives(rooms: Callable[..., Rooms]) -> None:
    files = {"a": noise(50_000, 1), "b": LARGE, "c": b""}
    one = rooms(files)
    for path, data in files.items():
        assert one.read(dvc(data, path)) == data
        assert one.read(dvc(data, path)) == data
    assert one.received() == sum(map(len, files.values()))
    until(lambda: one.cache.in_flight().large == 0)
    one.close()
    again = rooms(files)
    for path, data in files.items():
        assert again.read(dvc(data, path), 7, 1000) == data[7:1000]
    assert not again.source.spans


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("versioning", [Versioning.GIT, Versioning.DVC])
def test_every_server_gives_every_byte(
    rooms: Callable[..., Rooms], versioning: Versioning, ranged: bool, announced: bool, sized: bool
) -> None:
    files = {"empty": b"", "small": noise(70_000), "large": LARGE}
    built = rooms(files, ranged=ranged, announce_length=announced, versioning=versioning)
    name = git if versioning is Versioning.GIT else dvc
    for path, data in files.items():
        content = name(data, path, sized=sized)
        assert wait(built.cache.size(content, READER), 30) == len(data)
        assert built.read(content, len(data) // 2, len(data) // 2 + 5000) == data[len(data) // 2 :][:5000]
        assert built.read(content, 0, 5000) == data[:5000]
        assert built.read(content) == data


def test_random_reads_of_many_threads_equal_the_truth(rooms: Callable[..., Rooms]) -> None:
    files = {f"f{number}": noise(20_000 * number, number) for number in range(10)} | {"large": LARGE}
    built = rooms(files)
    built.source.fail("open:large", RemoteUnavailable("cut"), times=3, after=300_000)
    errors: list[str] = []

    def reader(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            path = rng.choice([*files, "large", "large"])
            data = files[path]
            start = rng.randrange(len(data) + 1)
            end = min(len(data), start + rng.choice([1, 4096, 131_072, MiB]))
            if built.read(dvc(data, path), start, end) != data[start:end]:
                errors.append(f"{path} [{start}, {end})")

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert built.received() <= sum(map(len, files.values())) + 3 * 300_000
    assert all(built.source.calls[f"open:f{number}"] == 1 for number in range(10))


def test_stalled_loads_do_not_delay_hits(rooms: Callable[..., Rooms]) -> None:
    stalled = {f"s{number}": noise(1000, number) for number in range(100)}
    built = rooms(stalled | {"hit": b"cached"})
    assert built.read(dvc(b"cached", "hit")) == b"cached"
    for path, data in stalled.items():
        built.source.hold(path)
        built.cache.read(dvc(data, path), Span(0, 10), READER)
    assert built.cache.in_flight().whole == 100
    assert built.cache.read(dvc(b"cached", "hit"), Span(0, 6), READER) == b"cached"


def test_an_interrupted_large_file_goes_on_where_it_was(rooms: Callable[..., Rooms]) -> None:
    one = rooms({"large": LARGE})
    assert one.read(dvc(LARGE, "large"), 0, 4 * MiB) == LARGE[: 4 * MiB]
    one.close()
    again = rooms({"large": LARGE})
    assert again.read(dvc(LARGE, "large")) == LARGE
    assert again.received() == len(LARGE) - 4 * MiB
    until(lambda: again.cache.cached(dvc(LARGE, "large")))


def test_a_file_read_in_order_is_hashed_along_and_each_byte_once(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    update = Prover.update
    built = rooms({"large": LARGE})

    def count(prover: Prover, chunk: bytes) -> None:
        hashed.append(len(chunk))
        update(prover, chunk)

    monkeypatch.setattr(Prover, "update", count)
    content, last = dvc(LARGE, "large"), len(LARGE) - 5
    for start in range(0, last, MiB):
        assert built.read(content, start, start + MiB) == LARGE[start : start + MiB]
        until(lambda start=start: sum(hashed) >= start - MiB)  # type: ignore[misc]
    left = len(LARGE) - sum(hashed)
    assert built.read(content, last) == LARGE[last:]
    assert built.cache.cached(content), "proved before its last byte was given"
    assert left <= 3 * MiB
    assert sum(hashed) == len(LARGE)


def test_what_comes_while_the_prover_is_about_to_stop_is_hashed_along_too(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    update, advance, left = Prover.update, SharedPartial.advance, [MiB, 2 * MiB]
    built, content = rooms({"large": LARGE}), dvc(LARGE, "large")

    def late(partial: SharedPartial) -> bool:
        found = advance(partial)
        if not found and left:
            start = left.pop(0)
            built.read(content, start, start + MiB)
        return found

    monkeypatch.setattr(Prover, "update", lambda prover, chunk: hashed.append(len(chunk)) or update(prover, chunk))
    monkeypatch.setattr(SharedPartial, "advance", late)
    built.read(content, 0, MiB)
    until(lambda: sum(hashed) == 3 * MiB)


def test_only_the_block_that_completes_a_file_waits_for_the_proof(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = rooms({"large": LARGE})
    content, go, advance = dvc(LARGE, "large"), threading.Event(), SharedPartial.advance
    monkeypatch.setattr(SharedPartial, "advance", lambda partial: go.wait(30) and advance(partial))
    built.read(content, 0, 5 * BLOCK)
    built.read(content, 6 * BLOCK)
    last = built.cache.read(content, Span(5 * BLOCK + 3, 5 * BLOCK + 9), READER)
    partial = built.store.partial(content, len(LARGE))
    until(lambda: partial.completing == Span(5 * BLOCK, 6 * BLOCK))
    partial.close()
    assert built.read(content, 0, 5 * BLOCK) == LARGE[: 5 * BLOCK]
    assert built.read(content, 6 * BLOCK) == LARGE[6 * BLOCK :]
    assert isinstance(last, Future)
    assert not last.done()
    again = built.cache.read(content, Span(5 * BLOCK - 1, 5 * BLOCK + 1), READER)
    assert isinstance(again, Future)
    go.set()
    assert wait(last, 20) == LARGE[5 * BLOCK + 3 : 5 * BLOCK + 9]
    assert wait(again, 20) == LARGE[5 * BLOCK - 1 : 5 * BLOCK + 1]


def test_a_wrong_file_fails_at_its_end_whatever_the_order(rooms: Callable[..., Rooms]) -> None:
    wrong = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    spans = [(start, min(start + MiB, len(LARGE))) for start in range(0, len(LARGE), MiB)]
    for number, order in enumerate((spans, spans[::-1], spans[5:] + spans[:5])):
        built = rooms({f"large{number}": wrong})
        content = dvc(LARGE, f"large{number}")
        for start, end in order[:-1]:
            assert built.read(content, start, end) == wrong[start:end]
        with pytest.raises(IntegrityError):
            built.read(content, *order[-1])
        with pytest.raises(IntegrityError):
            built.read(content, *order[0])
        built.close()


@pytest.mark.parametrize("limit", [100 * MiB, MiB], ids=["on disk", "in memory"])
@pytest.mark.parametrize("after", [6 * MiB, len(LARGE)])
def test_blocks_of_a_damaged_body_are_gone_where_no_hash_could_find_them(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch, after: int, limit: int
) -> None:
    """They were served while they came; who reads to the end is told, and the next reader gets none of them."""
    monkeypatch.setattr(cache_core, "WRONG_SECONDS", 0.0)
    built = rooms({"large": LARGE}, limit, versioning=Versioning.GIT, compressed=True)
    built.fetcher.patience = 0.3
    content, told = git(LARGE, "large", claim=""), []
    built.cache._disproved = told.append
    files = built.source._snapshots[built.source.commit.sha].files
    files["large"] = LARGE[:100] + bytes([LARGE[100] ^ 1]) + LARGE[101:]
    built.source.fail("open:large", DamagedBody("its checksum does not fit"), times=1_000, after=after)
    with pytest.raises(IntegrityError):
        built.read(content)
    assert told == [content]
    built.source._failures.clear()
    files["large"] = LARGE
    until(lambda: built.cache.in_flight().large == 0)
    assert built.read(content) == LARGE
    until(lambda: built.cache.cached(content) or limit < len(LARGE))


def test_a_file_without_a_hash_is_not_published_before_the_body_that_completes_it_has_ended_well(
    rooms: Callable[..., Rooms],
) -> None:
    """Its end was there already, so nothing of the body is missing when its checksum turns out not to fit."""
    built, content = rooms({"large": LARGE}, versioning=Versioning.GIT, compressed=True), git(LARGE, "large", claim="")
    built.fetcher.patience = 0.3
    part, last = built.store.partial(content, len(LARGE)), len(LARGE) // BLOCK * BLOCK - BLOCK
    part.write(last, LARGE[last:])
    part.close()
    built.source.fail("open:large", DamagedBody("its checksum does not fit"), times=1_000, after=len(LARGE))
    built.cache.prepare(content, Span(0, len(LARGE)), READER)
    until(lambda: built.cache.in_flight().large == 0)
    assert not built.cache.cached(content)
    assert built.store.partial(content, len(LARGE)).missing(Span(0, len(LARGE))) == [Span(0, len(LARGE))]


def test_of_two_threads_that_begin_with_one_file_the_later_one_leaves_its_blocks_closed(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, content, other = rooms({"large": LARGE}), dvc(LARGE, "large"), [True]
    partial = built.store.partial

    def later(content: Content, size: int) -> SharedPartial:
        if other.pop() if other else False:
            built.cache.read(content, Span(0, 10), READER)
        return partial(content, size)

    built.source.hold("large")
    monkeypatch.setattr(built.store, "partial", later)
    answer = built.cache.read(content, Span(5, 20), READER)
    built.source.release("large")
    assert wait(answer, 20) == LARGE[5:20]
    until(lambda: built.cache.in_flight().large == 0)
    until(lambda: [found.users for found in built.store._partials._open.values()] == [0])


def test_few_files_are_remembered_as_wrong_or_as_not_to_be_kept(
    rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_core, "BROKEN_MAX", 3)
    built = rooms({"large": LARGE})
    for number in range(9):
        content = claimed(f"{number:032x}", size=len(LARGE))
        flight = built.cache._blocks_flight(content, len(LARGE), built.cache._ends)
        assert flight is not None
        built.cache.proved(flight, right=False)
        built.cache.unpublished(flight)
        built.cache.settle(flight)
    assert [int(key.digest, 16) for key in built.cache._broken] == [6, 7, 8]
    assert [int(key.digest, 16) for key in built.cache._unpublished] == [6, 7, 8]


def test_blocks_left_complete_by_a_killed_process_are_published(rooms: Callable[..., Rooms]) -> None:
    one = rooms({"large": LARGE})
    partial = one.store.partial(dvc(LARGE, "large"), len(LARGE))
    partial.write(0, LARGE)
    partial.close()
    one.close()
    again = rooms({"large": LARGE})
    assert again.read(dvc(LARGE, "large"), 5, 10) == LARGE[5:10]
    until(lambda: again.cache.cached(dvc(LARGE, "large")))
    assert not again.source.spans


def test_a_damaged_block_is_fetched_again(rooms: Callable[..., Rooms]) -> None:
    one = rooms({"large": LARGE})
    one.read(dvc(LARGE, "large"), 0, 4 * MiB)
    one.close()
    (path,) = (path for path in (one.store.root / "partial").iterdir() if path.suffix != ".log")
    with path.open("r+b") as file:
        file.seek(5 * BLOCK)
        file.write(bytes(100))
    again = rooms({"large": LARGE})
    assert again.read(dvc(LARGE, "large"), 0, 4 * MiB) == LARGE[: 4 * MiB]
    assert BLOCK <= again.received() < 4 * MiB


@pytest.mark.parametrize("limit", [1000, 100_000, 9 * MiB])
def test_a_store_smaller_than_a_file_still_reads_everything(rooms: Callable[..., Rooms], limit: int) -> None:
    files = {"small": noise(150_000), "large": LARGE}
    built = rooms(files, limit=limit)
    for path, data in files.items():
        for start in range(0, len(data), 2 * MiB):
            assert built.read(dvc(data, path), start, start + 2 * MiB) == data[start : start + 2 * MiB]
    built.store.flush(20)
    assert built.store.info().bytes <= limit


def test_a_disk_that_fails_costs_no_read(rooms: Callable[..., Rooms], monkeypatch: pytest.MonkeyPatch) -> None:
    built = rooms({"small": noise(150_000), "large": LARGE})

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(built.store._layout, "write_temp", fail)
    monkeypatch.setattr("dagfs.store.partial.os.pwrite", fail)
    assert built.read(dvc(noise(150_000), "small")) == noise(150_000)
    assert built.read(dvc(LARGE, "large"), 0, 3 * MiB) == LARGE[: 3 * MiB]
    assert built.read(dvc(LARGE, "large"), 3 * MiB) == LARGE[3 * MiB :]


def test_a_file_that_vanished_from_the_cache_is_fetched_again(rooms: Callable[..., Rooms]) -> None:
    built = rooms({"a": b"bytes" * 1000})
    built.read(dvc(b"bytes" * 1000, "a"))
    built.store.flush(20)
    built.store.clear()
    assert built.read(dvc(b"bytes" * 1000, "a")) == b"bytes" * 1000
    assert built.source.calls["open:a"] == 2


def test_a_large_file_of_a_hub_without_ranges_is_not_downloaded_once_for_each_span(rooms: Callable[..., Rooms]) -> None:
    built = rooms({"large": LARGE}, ranged=False)
    content = dvc(LARGE, "large")
    for start in range(0, len(LARGE), MiB):
        built.cache.prepare(content, Span(start, start + MiB), Urgency.READ_AHEAD)
    assert built.read(content) == LARGE
    until(lambda: built.fetcher.in_flight() == (0, 0))
    assert built.received() <= 3 * len(LARGE)  # not 11: what starts before the first answer has come may be in vain
