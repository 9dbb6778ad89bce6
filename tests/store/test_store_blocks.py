"""The blocks of large files on a real disk: what is missing, hashed along, published, and left alone."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from support.contents import claimed, dvc, noise
from support.stores import LARGE, MiB, Opener, another_boot, keep, partial_of, path_of, read, rewrite, spoil
from support.waiting import until

from dagfs.errors import IntegrityError
from dagfs.model import Span
from dagfs.proofs import Prover
from dagfs.store import lookup as lookup_module
from dagfs.store.disk import DiskStore
from dagfs.store.handles import BLOCK
from dagfs.store.partials import KEPT_OPEN


def test_blocks_survive_a_restart_and_a_damaged_one_is_missing_again(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data[: 4 * BLOCK])
    partial.write(9 * BLOCK, data[9 * BLOCK :])
    partial.close()
    store.close()
    spoil(partial_of(store), 2 * BLOCK + 7)
    again = opened()
    assert again.size(dvc(data, sized=False)) == LARGE
    partial = again.partial(dvc(data), LARGE)
    assert partial.missing(Span(0, LARGE)) == [Span(4 * BLOCK, 9 * BLOCK)]
    assert partial.read(0, BLOCK) == data[:BLOCK]
    assert partial.read(2 * BLOCK, 10) is None
    assert partial.missing(Span(0, LARGE)) == [Span(2 * BLOCK, 3 * BLOCK), Span(4 * BLOCK, 9 * BLOCK)]
    assert partial.read(9 * BLOCK, BLOCK + 500) == data[9 * BLOCK :]
    partial.close()


def test_pieces_of_any_size_make_blocks(opened: Opener) -> None:
    data = noise(LARGE)
    partial = opened().partial(dvc(data), LARGE)
    for start in range(0, LARGE, 10_007):
        assert partial.read(start, 1) is None
        partial.write(start, data[start : start + 10_007])
    assert partial.missing(Span(0, LARGE)) == []
    assert partial.read(12_345, 2 * BLOCK) == data[12_345 : 12_345 + 2 * BLOCK]
    partial.close()


@pytest.mark.parametrize("change", [-100, 100])
def test_blocks_whose_file_has_another_length_are_none(opened: Opener, change: int) -> None:
    """What lies behind the end would become a part of the whole file."""
    store, data = opened(), noise(LARGE)
    part = store.partial(dvc(data), LARGE)
    part.write(0, data[: 2 * BLOCK])
    part.close()
    store.close()
    path = partial_of(store)
    os.truncate(path, LARGE + change)
    part = opened().partial(dvc(data), LARGE)
    assert part.missing(Span(0, LARGE)) == [Span(0, LARGE)]
    assert path.stat().st_size == LARGE
    part.close()


def test_a_whole_large_file_is_published_and_its_blocks_are_gone(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data[:-1])
    assert not partial.publish()
    partial.write(LARGE - 1, data[-1:])
    assert partial.publish()
    assert partial.read(5, 100) == data[5:105]
    partial.close()
    assert read(store, dvc(data)) == data
    assert stat.S_IMODE(path_of(store, data).stat().st_mode) == 0o444
    assert os.listdir(store.root / "partial") == []
    assert store.info().bytes == LARGE


def test_wrong_blocks_are_not_published_and_forgotten(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        partial.publish()
    assert partial.missing(Span(0, LARGE)) == [Span(0, LARGE)]
    partial.write(0, data)
    assert partial.publish()
    partial.close()
    assert read(store, dvc(data)) == data


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the chunks that are hashed, in order."""
    sizes: list[int] = []
    update = Prover.update

    def count(prover: Prover, chunk: bytes) -> None:
        sizes.append(len(chunk))
        update(prover, chunk)

    monkeypatch.setattr(Prover, "update", count)
    return sizes


def test_blocks_that_come_in_order_are_hashed_along_and_each_byte_once(opened: Opener, hashed: list[int]) -> None:
    data = noise(LARGE)
    partial = opened().partial(dvc(data), LARGE)
    for start in range(0, LARGE, BLOCK):
        partial.write(start, data[start : start + BLOCK])
        assert partial.advance()
        assert sum(hashed) == min(start + BLOCK, LARGE)
        assert not partial.advance()
    assert partial.completing == Span(10 * BLOCK, LARGE)
    assert partial.publish()
    assert sum(hashed) == LARGE
    partial.close()


def test_blocks_that_come_in_no_order_are_hashed_once_when_the_gap_is_closed(
    opened: Opener, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagfs.store.partial.STEP", 4 * BLOCK)
    data = noise(LARGE)
    partial = opened().partial(dvc(data), LARGE)
    for block in (10, 3, 1, 9, 2, 8, 7, 6, 5, 4):
        partial.write(block * BLOCK, data[block * BLOCK : (block + 1) * BLOCK])
        assert not partial.advance()
    assert hashed == []
    partial.write(0, data[:BLOCK])
    assert partial.completing == Span(0, BLOCK)
    assert partial.advance()
    assert sum(hashed) == 4 * BLOCK
    assert partial.publish()
    assert sum(hashed) == LARGE
    partial.close()


def test_a_block_that_was_hashed_and_turns_out_damaged_is_hashed_anew_with_what_replaces_it(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)
    spoil(partial_of(store), 2 * BLOCK + 7)
    while partial.advance():
        pass
    partial._blocks._drop([2])  # as a read finds it that comes when the block's pages were dropped
    assert partial.completing is None
    assert not partial.publish()
    partial.write(2 * BLOCK, data[2 * BLOCK : 3 * BLOCK])
    assert partial.completing == Span(0, LARGE), "somebody may have been given the block before"
    assert partial.publish()
    partial.close()
    assert read(store, dvc(data)) == data
    assert path_of(store, data).exists()


def test_blocks_of_an_earlier_run_are_hashed_from_the_disk_once_and_a_damaged_one_is_fetched_again(
    opened: Opener, hashed: list[int]
) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data[: 6 * BLOCK])
    partial.advance()
    partial.close()
    store.close()
    spoil(partial_of(store), 4 * BLOCK + 9)
    hashed.clear()
    partial = opened().partial(dvc(data), LARGE)
    partial.write(6 * BLOCK, data[6 * BLOCK :])
    while partial.advance():
        pass
    assert partial.missing(Span(0, LARGE)) == [Span(4 * BLOCK, 5 * BLOCK)]
    assert sum(hashed) == 4 * BLOCK
    partial.write(4 * BLOCK, data[4 * BLOCK : 5 * BLOCK])
    assert partial.publish()
    assert sum(hashed) == LARGE
    partial.close()


def test_a_disk_that_fails_while_it_is_hashed_costs_the_hash_and_no_block(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(LARGE)
    partial = opened().partial(dvc(data), LARGE)
    partial.write(0, data)
    pread, calls = os.pread, iter(range(100))

    def fail(fd: int, size: int, offset: int) -> bytes:
        if next(calls) == 1:
            raise OSError(5, "Input/output error")
        return pread(fd, size, offset)

    with monkeypatch.context() as failing:
        failing.setattr("dagfs.store.partial.os.pread", fail)
        with pytest.raises(OSError, match="Input/output"):
            partial.advance()
    assert partial.publish()
    partial.close()


def test_a_large_file_is_checked_block_by_block_after_a_boot(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_module, "INLINE_MAX", BLOCK)
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)
    partial.publish()
    partial.close()
    rewrite(path_of(store, data), data[: 5 * BLOCK] + bytes(BLOCK) + data[6 * BLOCK :])
    store.close()
    another_boot(monkeypatch)
    again = opened()
    found = again.find(dvc(data))
    assert found is not None
    assert found.read(0, 5 * BLOCK) == data[: 5 * BLOCK]
    with pytest.raises(OSError, match="damaged"):
        found.read(5 * BLOCK - 1, 2)
    found.close()
    assert again.find(dvc(data)) is None
    assert not path_of(store, data).exists()


def test_a_large_file_without_checksums_is_verified_in_the_background(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_module, "INLINE_MAX", 1000)
    store, data = opened(), noise(50_000)
    path_of(store, data).parent.mkdir()
    path_of(store, data).write_bytes(data)  # as DVC puts it there
    assert store.find(dvc(data)) is None
    until(lambda: read(store, dvc(data)) == data)


@pytest.mark.parametrize("inline_max", [1000, 100_000])
def test_a_file_that_was_counted_while_it_was_written_is_not_damage(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, inline_max: int
) -> None:
    monkeypatch.setattr(lookup_module, "INLINE_MAX", inline_max)
    data, half_written = noise(50_000), noise(50_000)[:10_000]
    before = opened()
    path_of(before, data).parent.mkdir()
    path_of(before, data).write_bytes(half_written)
    store = opened()  # its index is empty, so it counts what lies there
    assert store.flush(20)
    path_of(store, data).write_bytes(data)
    until(lambda: read(store, dvc(data)) == data)


def test_two_processes_fetch_one_large_file_into_blocks_of_their_own(opened: Opener) -> None:
    data = noise(LARGE)
    one, other = opened(), opened()  # the lock is on the open file, so two stores stand for two processes
    first, second = one.partial(dvc(data), LARGE), other.partial(dvc(data), LARGE)
    first.write(0, data[:BLOCK])
    assert second.missing(Span(0, BLOCK)) == [Span(0, BLOCK)]
    second.write(0, data)
    assert second.publish()
    first.write(BLOCK, data[BLOCK:])
    assert first.publish()
    assert first.read(0, LARGE) == second.read(0, LARGE) == data
    first.close()
    second.close()
    assert one.info().files == other.info().files == 1


def test_a_file_that_too_many_processes_fetch_is_no_fault_of_the_disk(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagfs.store.partial._COPIES", 0)
    store, data = opened(), noise(LARGE)
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)
    assert partial.read(100, BLOCK) == data[100 : 100 + BLOCK]
    assert store.refusal is None
    partial.close()


def test_a_file_larger_than_the_store_is_read_through_memory(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened(MiB)
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)
    assert partial.read(100, BLOCK) == data[100 : 100 + BLOCK]
    assert not partial.publish()
    partial.close()
    assert store.info().bytes <= MiB


def test_blocks_whose_disk_fails_go_through_memory(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(LARGE)
    partial = opened().partial(dvc(data), LARGE)

    def fail(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("dagfs.store.partial.os.pwrite", fail)
        partial.write(0, data)
    assert partial.read(0, LARGE) == data
    partial.close()


def test_a_disk_that_takes_a_part_of_a_block_has_no_block(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end would be zeros."""
    store, data = opened(), noise(LARGE)
    part, write = store.partial(dvc(data), LARGE), os.pwrite
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda fd, piece, at: write(fd, piece[: len(piece) // 2], at))
        part.write(0, data[:BLOCK])
        assert part.read(0, BLOCK) in (None, data[:BLOCK])
    part.close()
    part = store.partial(dvc(data), LARGE)
    assert part.read(0, BLOCK) is None
    part.write(0, data)
    assert part.read(0, LARGE) == data
    part.close()


def test_idle_blocks_leave_before_whole_files(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened(6 * MiB)
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data[: 8 * BLOCK])
    partial.close()
    files = [noise(MiB, seed) for seed in range(1, 6)]
    for file in files:
        keep(store, dvc(file), file)
    assert store.info().partials == 0
    assert [read(store, dvc(file)) == file for file in files] == [True] * 5


def test_what_a_process_leaves_that_is_killed_while_it_publishes_can_be_written(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)

    def killed(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(store._layout, "publish", killed)
    with pytest.raises(OSError, match="killed"):
        partial.publish()
    partial.close()
    path = partial_of(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_block_of_a_complete_file_costs_itself_only(opened: Opener) -> None:
    data = noise(LARGE)
    store = opened()
    partial = store.partial(dvc(data), LARGE)
    partial.write(0, data)
    partial.close()
    store.close()
    path = partial_of(store)
    with path.open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(bytes(100))
    partial = opened().partial(dvc(data), LARGE)
    assert not partial.publish()
    assert partial.missing(Span(0, LARGE)) == [Span(3 * BLOCK, 4 * BLOCK)]
    partial.write(3 * BLOCK, data[3 * BLOCK : 4 * BLOCK])
    assert partial.publish()
    partial.close()


def test_a_piece_that_comes_after_the_blocks_were_closed_goes_into_no_other_file(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened()
    partial = store.partial(dvc(noise(LARGE)), LARGE)
    blocks = partial._blocks
    partial.close()
    store.close()
    others = [(tmp_path / f"other{number}").open("w+b") for number in range(8)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        blocks.write(0, noise(BLOCK))
    partial.write(0, noise(BLOCK))
    assert store.refusal is None, "nor is it a fault of the disk"
    assert [os.fstat(other.fileno()).st_size for other in others] == [0] * 8
    for other in others:
        other.close()


def test_an_incomplete_file_that_somebody_fetches_is_left_alone_by_other_processes(opened: Opener) -> None:
    """Neither looked at by `verify`, which would see it half written, nor removed to make room."""
    mine, other, data = opened(), opened(), noise(2 * MiB, 1)
    part = mine.partial(dvc(data), len(data))
    part.write(0, data[:MiB])
    path = partial_of(mine)
    with path.open("r+b") as file:
        file.write(b"half of a block, as it seems")
    assert list(other.verify()) == []
    other.clear()
    assert path.exists()
    part.close()
    mine.close()
    assert list(other.verify()) == [path]


def test_incomplete_files_that_nobody_reads_keep_few_descriptors_open(opened: Opener) -> None:
    store = opened()
    for seed in range(40):
        part = store.partial(claimed(f"{seed:032x}", size=MiB), MiB)
        part.write(0, noise(BLOCK, seed))
        part.close()
    assert descriptors(store) <= 2 * (KEPT_OPEN + 1), "blocks and log of each, and the last"
    again = store.partial(claimed(f"{0:032x}", size=MiB), MiB)
    assert again.read(0, BLOCK) == noise(BLOCK, 0)
    again.close()


def descriptors(store: DiskStore) -> int:
    """Count the open descriptors of incomplete files, and no data base's: threads open those when they like."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith(str(store.root / "partial"))
    return count


def test_blocks_of_another_size_leave_no_descriptor_open(opened: Opener) -> None:
    store, content = opened(), dvc(noise(LARGE))
    for size in range(LARGE, LARGE + 6):
        store.partial(content, size).close()
    assert descriptors(store) == 2
