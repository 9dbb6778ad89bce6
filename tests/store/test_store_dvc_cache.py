"""A store beside a cache of DVC's: what is taken from it, what is left in it, and what is never done to it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.contents import claimed, dvc, git, noise
from support.disks import needs_root, remount, small_disk
from support.repos import dos2unix_md5
from support.stores import Opener, keep, read
from support.waiting import until

from dagfs.metrics import Metrics
from dagfs.proofs import Prover, chunks
from dagfs.store.disk import DiskStore
from dagfs.store.lent import INLINE_MAX

LARGE = noise(INLINE_MAX + 1)


@pytest.fixture
def lender(tmp_path: Path) -> Path:
    root = tmp_path / "dvc-cache"
    root.mkdir(mode=0o755)
    return root


@pytest.fixture
def opened(tmp_path: Path, lender: Path) -> Iterator[Opener]:
    stores: list[DiskStore] = []

    def start(cache: Path | None = lender) -> DiskStore:
        stores.append(DiskStore(tmp_path / "cache", 100 << 20, Metrics(), cache))
        return stores[-1]

    yield start
    for store in stores:
        store.close()


def place(root: Path, data: bytes, layout: str = "files/md5", md5: str | None = None) -> Path:
    """Put a file where DVC has it."""
    digest = md5 or hashlib.md5(data).hexdigest()
    path = root / layout / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return path


@pytest.mark.parametrize("layout", ["files/md5", ""])
def test_a_file_of_dvcs_cache_is_read_there_and_not_copied(opened: Opener, lender: Path, layout: str) -> None:
    data = noise(100_000)
    place(lender, data, layout)
    store = opened()
    assert store.has(dvc(data))
    assert store.size(dvc(data, sized=False)) == len(data)
    assert read(store, dvc(data)) == data
    assert store.flush(20)
    assert store.info().files == 0


def test_a_text_named_by_dvc_2_is_found_by_its_lf_form(opened: Opener, lender: Path) -> None:
    text = b"a line\r\n" * 1000
    place(lender, text, "", dos2unix_md5(text))
    assert read(opened(), claimed(dos2unix_md5(text))) == text


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_file_of_dvcs_cache_is_a_miss_and_stays_there(opened: Opener, lender: Path, damage) -> None:
    data = noise(50_000)
    path = place(lender, damage(data), md5=hashlib.md5(data).hexdigest())
    store = opened()
    assert store.size(dvc(data, sized=False)) is None
    assert read(store, dvc(data)) is None
    keep(store, dvc(data), data)
    assert read(store, dvc(data)) == data
    assert path.read_bytes() == damage(data)


def test_a_file_written_into_while_it_is_known_is_hashed_again(opened: Opener, lender: Path) -> None:
    data = noise(50_000)
    path = place(lender, data)
    store = opened()
    assert read(store, dvc(data)) == data
    path.chmod(0o644)
    path.write_bytes(b"y" + data[1:])
    assert read(store, dvc(data)) is None


def test_what_comes_is_left_in_both_of_dvcs_places_without_costing_a_byte(opened: Opener, lender: Path) -> None:
    data = noise(70_000)
    keep(opened(), dvc(data), data)
    digest = hashlib.md5(data).hexdigest()
    places = [lender / layout / digest[:2] / digest[2:] for layout in ("files/md5", ".")]
    assert [path.read_bytes() for path in places] == [data, data]
    assert {path.stat().st_ino for path in places} == {os.stat(places[0]).st_ino}
    assert places[0].stat().st_nlink == 3
    assert stat.S_IMODE(places[0].stat().st_mode) == 0o444
    assert stat.S_IMODE(places[0].parent.stat().st_mode) == 0o755, "who shares the cache must be able to enter"


def test_a_text_is_left_under_the_name_that_dvc_2_gave_it(opened: Opener, lender: Path) -> None:
    text = b"a line\r\n" * 1000
    keep(opened(), claimed(dos2unix_md5(text)), text)
    files = [path for path in lender.rglob("*") if path.is_file()]
    assert [str(path.relative_to(lender)).replace("/", "") for path in files] == [dos2unix_md5(text)]


def test_a_large_file_is_left_there_when_its_last_block_has_come(opened: Opener, lender: Path) -> None:
    store = opened()
    partial = store.partial(dvc(LARGE), len(LARGE))
    partial.write(0, LARGE)
    assert partial.publish()
    partial.close()
    digest = hashlib.md5(LARGE).hexdigest()
    assert (lender / "files/md5" / digest[:2] / digest[2:]).read_bytes() == LARGE


def test_what_git_holds_is_none_of_dvcs_business(opened: Opener, lender: Path) -> None:
    data = noise(1000)
    keep(opened(), git(data), data)
    assert not any(lender.iterdir())


def test_what_was_kept_before_there_was_a_dvc_cache_is_left_there_at_its_first_read(
    opened: Opener, lender: Path
) -> None:
    data = noise(30_000)
    before = opened(None)
    keep(before, dvc(data), data)
    before.close()
    assert read(opened(), dvc(data)) == data
    digest = hashlib.md5(data).hexdigest()
    assert (lender / "files/md5" / digest[:2] / digest[2:]).read_bytes() == data


def test_a_file_that_dvc_has_already_is_left_as_it_is(opened: Opener, lender: Path) -> None:
    data = noise(30_000)
    path = place(lender, data)
    seen = path.stat()
    keep(opened(), dvc(data), data)
    assert path.stat().st_ino == seen.st_ino
    assert path.stat().st_mtime_ns == seen.st_mtime_ns


def test_on_another_disk_a_copy_is_left(opened: Opener, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        other = Path(name)
        assert other.stat().st_dev != tmp_path.stat().st_dev
        data = noise(30_000)
        store = opened(other)
        keep(store, dvc(data), data)
        digest = hashlib.md5(data).hexdigest()
        copy = other / "files/md5" / digest[:2] / digest[2:]
        until((other / digest[:2] / digest[2:]).exists)
        assert copy.read_bytes() == data
        store.close()
        assert not list(other.rglob(".dagfs-*"))


@needs_root
def test_a_dvc_cache_that_cannot_be_written_is_read_all_the_same(opened: Opener, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        data, other = noise(30_000), noise(30_000, seed=1)
        place(disk, data)
        remount(disk, "ro")
        store = opened(disk)
        assert read(store, dvc(data)) == data
        keep(store, dvc(other), other)
        assert read(store, dvc(other)) == other
        store.close()
        assert not store.dvc_cache.writable


@needs_root
def test_a_dvc_cache_whose_disk_is_full_costs_no_read(opened: Opener, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        store = opened(disk)
        for seed in range(5):
            data = noise(30_000, seed)
            keep(store, dvc(data), data)
            assert read(store, dvc(data)) == data
        store.close()
        assert not list(disk.rglob(".dagfs-*"))


def test_a_large_file_is_not_trusted_before_it_was_hashed_and_then_for_good(
    opened: Opener, lender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(lender, LARGE)
    digest = hashlib.md5(LARGE).hexdigest()
    store = opened()
    assert store.lends(digest)
    assert store.find(dvc(LARGE)) is None
    assert store.prove_lent(digest, lambda: False)
    assert read(store, dvc(LARGE)) == LARGE
    store.close()
    hashed = []
    monkeypatch.setattr(Prover, "update", lambda self, chunk: hashed.append(chunk))
    assert read(opened(), dvc(LARGE)) == LARGE
    assert not hashed


def test_the_proof_of_a_large_file_can_be_given_up(opened: Opener, lender: Path) -> None:
    place(lender, LARGE)
    store = opened()
    assert not store.prove_lent(hashlib.md5(LARGE).hexdigest(), lambda: True)
    assert store.find(dvc(LARGE)) is None


def test_nothing_of_dvcs_is_evicted_or_cleared(opened: Opener, lender: Path) -> None:
    data = noise(30_000)
    path = place(lender, data)
    store = opened()
    assert read(store, dvc(data)) == data
    store.clear()
    assert list(store.verify()) == []
    assert path.read_bytes() == data
    assert b"".join(chunks(data)) == read(store, dvc(data))
