"""The store on a real disk: what is found, what is damage, and what survives."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.contents import claimed, dvc, git, noise
from support.stores import MiB, Opener, another_boot, keep, path_of, read, rewrite
from support.waiting import until

from dagfs import system
from dagfs.errors import CacheRefused
from dagfs.model import Content, ContentId
from dagfs.store import backlog as backlog_module
from dagfs.store import lookup as lookup_module
from dagfs.store.ledger import Ledger
from dagfs.store.spare import Spare


def test_a_file_lies_where_dvc_3_looks_for_it_and_cannot_be_written(opened: Opener) -> None:
    store, data = opened(), b"picture"
    keep(store, dvc(data), data)
    path = path_of(store, data)
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    for directory in (store.root, path.parent, store.root / "tmp"):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0


def test_a_file_can_be_read_before_it_is_on_disk(opened: Opener) -> None:
    store = opened()
    files = [noise(1000, seed) for seed in range(200)]
    for data in files:
        keep(store, dvc(data), data, flush=False)
        assert read(store, dvc(data)) == data
    store.flush(20)
    assert [read(store, dvc(data)) for data in files] == files
    assert store.info().files == 200
    assert store.info().bytes == 200_000


def test_equal_bytes_are_kept_once_and_found_by_every_name(opened: Opener) -> None:
    store, data = opened(), b"labels"
    keep(store, git(data, "a"), data)
    keep(store, git(data, "b"), data)
    assert store.info().files == 1
    assert (
        read(store, git(data, "a")) == read(store, git(data, "b", commit="another")) == read(store, dvc(data)) == data
    )


def test_an_unproved_git_hash_finds_nothing(opened: Opener) -> None:
    store, data = opened(), b"labels"
    keep(store, git(data, "a", claim="0" * 40), data)
    assert read(store, git(data, "a", claim="0" * 40)) == data
    assert read(store, git(b"others", "b", claim="0" * 40)) is None


def test_a_text_of_dvc_2_lies_under_its_own_md5_and_is_found_by_the_claimed_one(opened: Opener) -> None:
    store, data = opened(), b"name\tscore\r\nsquirrel\t5\r\n"
    content = claimed(hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest(), size=len(data))
    keep(store, content, data)
    assert path_of(store, data).exists()
    assert not path_of(store, data.replace(b"\r\n", b"\n")).exists()
    assert read(store, content) == data
    assert read(store, claimed(content.key.digest)) == data


def test_a_text_of_dvc_2_is_not_given_for_another_size(opened: Opener) -> None:
    store, data = opened(), b"name\tscore\r\nsquirrel\t5\r\n"
    unix = data.replace(b"\r\n", b"\n")
    keep(store, claimed(hashlib.md5(unix).hexdigest(), size=len(data)), data)
    assert read(store, dvc(unix)) is None
    keep(store, dvc(unix), unix)
    assert read(store, dvc(unix)) == unix
    assert read(store, claimed(hashlib.md5(unix).hexdigest(), size=len(data))) == data


def test_files_and_names_survive_a_restart(opened: Opener) -> None:
    store, data = opened(), noise(5000)
    keep(store, git(data, "a"), data)
    store.set_value("listing", b"columns")
    store.close()
    again = opened()
    assert read(again, git(data, "a")) == data
    assert again.size(git(data, "a", sized=False)) == 5000
    assert again.get_value("listing") == b"columns"
    assert again.get_value("other") is None


def test_a_file_of_another_size_is_a_miss_and_removed(opened: Opener) -> None:
    store, data = opened(), noise(5000)
    keep(store, dvc(data), data)
    rewrite(path_of(store, data), data[:-1])
    store.close()
    again = opened()
    assert read(again, dvc(data)) is None
    assert not path_of(store, data).exists()
    assert again.info().files == 0
    assert again.info().bytes == 0


def test_zeros_left_by_a_power_loss_are_found_at_the_first_use_after_the_boot(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    good, bad = noise(5000, 1), noise(5000, 2)
    keep(store, dvc(good), good)
    keep(store, dvc(bad), bad)
    rewrite(path_of(store, bad), bytes(5000))
    store.close()
    another_boot(monkeypatch)
    again = opened()
    assert read(again, dvc(bad)) is None
    assert not path_of(store, bad).exists()
    assert read(again, dvc(good)) == good


def test_a_file_is_verified_once_after_a_boot(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store, data = opened(), noise(5000)
    keep(store, dvc(data), data)
    store.close()
    another_boot(monkeypatch)
    hashed: list[str] = []
    md5_of = lookup_module.md5_of
    monkeypatch.setattr(lookup_module, "md5_of", lambda path: hashed.append(path) or md5_of(path))
    for _ in range(2):
        again = opened()
        assert read(again, dvc(data)) == data
        again.flush(20)
        again.close()
    assert len(hashed) == 1


def test_a_lost_index_is_made_anew_and_the_files_count_again(opened: Opener) -> None:
    store = opened()
    files = [noise(1000, seed) for seed in range(20)]
    for data in files:
        keep(store, dvc(data), data, flush=False)
    store.close()
    for path in (store.root / "index").iterdir():
        path.unlink()
    again = opened()
    assert again.flush(20)
    assert again.info().files == 20
    rewrite(path_of(store, files[0]), bytes(1000))
    assert [read(again, dvc(data)) for data in files] == [None, *files[1:]]


def test_an_index_that_is_no_data_base_is_made_anew(opened: Opener) -> None:
    store, data = opened(), noise(1000)
    keep(store, dvc(data), data)
    store.close()
    for path in (store.root / "index").iterdir():
        path.write_bytes(b"not a data base" * 1000)
    again = opened()
    assert read(again, dvc(data)) == data
    assert again.flush(20)
    assert again.info().files == 1


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("base", ["index", "values"])
def test_an_index_with_zeros_in_it_is_made_anew(opened: Opener, tmp_path: Path, base: str) -> None:
    """What a power loss leaves: each page of the data base in turn. diskcache alone fails in its own words."""
    data = noise(5000)
    store = opened()
    keep(store, dvc(data), data)
    store.set_value("v", b"x" * 100)
    store.close()
    path = tmp_path / "cache" / base / "cache.db"
    whole = path.read_bytes()
    for start in range(0, len(whole), 1000):
        path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        again = opened()
        found = again.find(dvc(data))
        assert found is None or found.read(0, 5000) == data
        assert again.get_value("v") in (None, b"x" * 100)
        again.close()


@pytest.mark.parametrize("table", ["index", "values"])
def test_a_planted_pickle_is_a_miss(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    store, data = opened(), noise(1000)
    keep(store, git(data), data)
    store.set_value("listing", b"columns")
    store.close()
    with sqlite3.connect(store.root / table / "cache.db") as base:
        assert base.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb()),)).rowcount > 0
    base.close()
    again = opened()
    assert again.get_value("listing") == (None if table == "values" else b"columns")
    assert read(again, git(data)) == (None if table == "index" else data)
    assert not (tmp_path / "bomb").exists()


def test_a_row_that_names_a_file_elsewhere_is_a_miss(opened: Opener, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store = opened()
    store.set_value("listing", b"x" * 100_000)
    store.close()
    with sqlite3.connect(store.root / "values" / "cache.db") as base:
        base.execute("UPDATE Cache SET filename = ?", ("../../secret",))
    base.close()
    again = opened()
    assert again.get_value("listing") is None
    again.set_value("listing", b"y")
    assert secret.read_bytes() == b"secret"


def test_a_value_that_changed_on_disk_is_a_miss(opened: Opener) -> None:
    store = opened()
    store.set_value("listing", b"x" * 100_000)
    (path,) = (store.root / "values").rglob("*.val")
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    assert store.get_value("listing") is None


def test_a_root_of_another_format_is_refused(opened: Opener, tmp_path: Path) -> None:
    opened().close()
    (tmp_path / "cache" / "format").write_text("999")
    with pytest.raises(CacheRefused, match="another version"):
        opened()


def test_a_directory_with_other_things_is_refused(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("work")
    with pytest.raises(CacheRefused):
        opened(root=tmp_path / "home")


def test_a_root_of_somebody_else_is_refused(opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "cache").stat().st_uid + 1)
    with pytest.raises(CacheRefused, match="belongs to"):
        opened()


def test_a_root_that_cannot_be_made_is_refused_in_words(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("dagfs.store.layout.private_directory", refuse)
    with pytest.raises(CacheRefused, match=r"^/.*/cache cannot be used as a cache: Permission denied$"):
        opened()


def test_listings_have_a_bound_of_their_own(opened: Opener) -> None:
    store = opened(80 * MiB)
    for number in range(200):
        store.set_value(f"listing {number}", noise(100_000, number))
    assert store.get_value("listing 199") == noise(100_000, 199)
    held = sum(path.stat().st_size for path in (store.root / "values").rglob("*.val"))
    assert 5 * MiB < held <= 10 * MiB


def test_a_root_open_to_others_is_closed_to_them(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o777)
    opened()
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_verify_finds_every_flipped_bit_and_removes_the_file(opened: Opener) -> None:
    store = opened()
    files = [noise(3000, seed) for seed in range(10)]
    for data in files:
        keep(store, dvc(data), data, flush=False)
    store.flush(20)
    for number, data in enumerate(files[:3]):
        damaged = bytearray(data)
        damaged[number * 1000] ^= 1 << number
        rewrite(path_of(store, data), bytes(damaged))
    checked: list[int] = []
    assert sorted(store.verify(checked.append)) == sorted(path_of(store, data) for data in files[:3])
    assert sum(checked) == 30_000
    assert [read(store, dvc(data)) for data in files] == [None] * 3 + files[3:]
    assert list(store.verify()) == []


def test_clear_leaves_what_is_in_use(opened: Opener) -> None:
    store = opened()
    files = [noise(3000, seed) for seed in range(5)]
    for data in files:
        keep(store, dvc(data), data, flush=False)
    store.flush(20)
    used = store.find(dvc(files[0]))
    assert used is not None
    assert store.clear() == 4 * 3000
    assert used.read(0, 3000) == files[0]
    used.close()
    assert [read(store, dvc(data)) is not None for data in files] == [True, False, False, False, False]
    assert store.clear() == 3000
    assert store.info().files == 0


def test_the_limit_holds_under_parallel_puts(opened: Opener) -> None:
    store = opened(2 * MiB)
    peaks: list[int] = []

    def put(first: int) -> None:
        for seed in range(first, first + 50):
            keep(store, dvc(noise(40_000, seed)), noise(40_000, seed), flush=False)
            peaks.append(sum(size for _, size in store._layout.stored()))

    threads = [threading.Thread(target=put, args=(number * 50,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush(30)
    assert max(peaks) <= 2 * MiB + 4 * 40_000  # a walk is no snapshot: while it goes, one file leaves and another comes
    on_disk = sum(size for _, size in store._layout.stored())
    assert MiB < on_disk <= 2 * MiB
    assert store.info().bytes == on_disk


def test_an_epoch_of_twice_the_limit_hits_on_the_part_that_fits(opened: Opener) -> None:
    store = opened(40 * 10_000 + 1000)
    files = [noise(10_000, seed) for seed in range(80)]
    hits = []
    for _ in range(3):
        hits.append(0)
        for data in files:
            if read(store, dvc(data)) is None:
                keep(store, dvc(data), data)
            else:
                hits[-1] += 1
    assert min(hits[1:]) >= 0.9 * 40, hits


def test_nothing_in_use_is_evicted(opened: Opener) -> None:
    store = opened(10 * 10_000)
    first = noise(10_000, 999)
    keep(store, dvc(first), first)
    used = store.find(dvc(first))
    assert used is not None
    for seed in range(50):
        keep(store, dvc(noise(10_000, seed)), noise(10_000, seed))
    assert path_of(store, first).exists()
    used.close()


def test_a_limit_smaller_than_a_file_does_not_fail_the_read(opened: Opener) -> None:
    store, data = opened(1000), noise(50_000)
    keep(store, dvc(data), data)
    assert read(store, dvc(data)) == data
    assert store.info().bytes == 0


def test_the_disk_keeps_its_free_share(opened: Opener) -> None:
    store = opened()
    store._room.free = lambda: (10 * MiB - store.info().bytes, 100 * MiB)  # 5 MiB have to stay free
    for seed in range(100):
        keep(store, dvc(noise(100_000, seed)), noise(100_000, seed))
    assert 4 * MiB < store.info().bytes <= 5 * MiB


def test_a_full_disk_drops_puts_with_one_line_and_reads_go_on(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, kept = opened(), noise(1000, 1)
    keep(store, dvc(kept), kept)

    def fail(data: bytes) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(store._layout, "write_temp", fail)
        for seed in range(2, 12):
            keep(store, dvc(noise(1000, seed)), noise(1000, seed))
        assert read(store, dvc(noise(1000, 11))) == noise(1000, 11), "from memory"
    assert read(store, dvc(kept)) == kept
    assert len(caplog.records) == 1
    assert store.info().files == 1
    keep(store, dvc(noise(1000, 2)), noise(1000, 2))
    assert store.info().files == 2


def test_no_file_is_left_that_the_index_could_not_count(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the disk without a row would never be evicted."""
    store = opened()

    def fail(files: object) -> list[str]:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store._index, "record", fail)
    keep(store, dvc(noise(1000, 1)), noise(1000, 1))
    assert list(store._layout.stored()) == []
    assert os.listdir(store.root / "tmp") == []
    assert read(store, dvc(noise(1000, 1))) == noise(1000, 1), "from memory"


def test_memory_for_files_that_the_disk_refuses_is_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(1000)
    for seed in range(12):
        keep(store, dvc(noise(4 * MiB, seed)), noise(4 * MiB, seed))
    assert read(store, dvc(noise(4 * MiB, 0))) is None
    assert read(store, dvc(noise(4 * MiB, 11))) is not None
    assert len(store._backlog._named) <= 8


def test_memory_for_files_that_wait_for_a_disk_that_hangs_is_bounded(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "WAITING_MAX", MiB)
    monkeypatch.setattr(backlog_module, "UNWRITTEN_MAX", MiB)
    store, hangs = opened(), threading.Event()
    write = store._layout.write_temp
    monkeypatch.setattr(store._layout, "write_temp", lambda data: hangs.wait(60) and write(data))
    try:
        for seed in range(60):
            keep(store, dvc(noise(100_000, seed)), noise(100_000, seed), flush=False)
        held = {id(file): len(file.data) for file in store._backlog._named.values()}
        assert sum(held.values()) <= 2 * MiB
        assert read(store, dvc(noise(100_000, 59))) == noise(100_000, 59)
    finally:
        hangs.set()
    assert store.flush(20)
    assert MiB - 100_000 <= store.info().bytes <= MiB


def test_open_descriptors_are_bounded(opened: Opener) -> None:
    store = opened()
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(400):
        keep(store, dvc(noise(100, seed)), noise(100, seed), flush=False)
    store.flush(30)
    for seed in range(400):
        assert read(store, dvc(noise(100, seed))) == noise(100, seed)
    assert len(os.listdir("/proc/self/fd")) - before < 150


PUTTER = """
import sys
from pathlib import Path
from support.contents import dvc, noise, proof
from support.waiting import until
from dagfs.metrics import Metrics
from dagfs.store.disk import DiskStore
store = DiskStore(Path(sys.argv[1]), 100 << 20, Metrics())
print("ready", flush=True)
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    data = noise(20_000, seed)
    store.put(dvc(data), data, proof(dvc(data), data))
    if seed % 10 == 9:
        store.flush()
        print(seed, flush=True)
store.close()
"""


def putter(root: Path, first: int, last: int) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, "-c", PUTTER, str(root), str(first), str(last)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_process_killed_in_mid_put_leaves_nothing_wrong_and_nothing_behind(opened: Opener, tmp_path: Path) -> None:
    child = putter(tmp_path / "cache", 0, 10_000)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "99":
            break
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    (tmp_path / "cache" / "tmp" / f"{child.pid}-1-0123abcd-0").write_bytes(b"half of a fi")
    store = opened()
    assert os.listdir(store.root / "tmp") == []
    assert list(store.verify()) == []
    assert all(read(store, dvc(noise(20_000, seed))) == noise(20_000, seed) for seed in range(100))
    on_disk = list(store._layout.stored())
    assert store.info().bytes >= sum(size for _, size in on_disk)


def test_temporary_files_of_a_living_process_stay(opened: Opener) -> None:
    store = opened()
    temp = store._layout.write_temp(b"half")
    opened()
    assert Path(temp).exists()


def test_a_file_is_moved_to_its_place_and_never_seen_there_in_part(opened: Opener) -> None:
    layout = opened()._layout
    temp, path = layout.write_temp(b"whole"), layout.file("ab" + "0" * 30)
    written = os.stat(temp).st_ino
    layout.publish(temp, path)
    assert os.stat(path).st_ino == written


def test_two_stores_of_one_process_never_use_one_temporary_name(opened: Opener) -> None:
    stores = [opened(), opened()]
    temps = [store._layout.write_temp(b"half") for store in stores]
    assert len(set(temps)) == 2


def test_two_processes_share_one_store(opened: Opener, tmp_path: Path) -> None:
    store = opened()
    children = [putter(tmp_path / "cache", 0, 150), putter(tmp_path / "cache", 50, 200)]
    for seed in range(200, 250):
        keep(store, dvc(noise(20_000, seed)), noise(20_000, seed), flush=False)
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    store.flush(20)
    assert all(read(store, dvc(noise(20_000, seed))) == noise(20_000, seed) for seed in range(250))
    assert store.info().files == 250
    assert store.info().bytes == 250 * 20_000


def test_two_processes_may_make_one_cache_at_the_same_time(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes, first = Path.read_bytes, [True]

    def late(path: Path) -> bytes:
        if path.name == "format" and first and first.pop():
            opened()  # the other process, whole, between this one's two looks
            raise FileNotFoundError
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    keep(opened(), dvc(b"x"), b"x")


def test_a_damaged_mark_that_another_process_took_away_stops_nobody(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    store._layout.damaged_mark.touch()

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "unlink", gone)
    keep(opened(), dvc(b"x"), b"x")


def test_the_writer_outlives_an_unexpected_failure(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store, data = opened(), noise(1000)

    def fail(*_: object) -> bool:
        raise ValueError("unexpected")

    with monkeypatch.context() as broken:
        broken.setattr(store._room, "make", fail)
        keep(store, dvc(b"lost"), b"lost")
    keep(store, dvc(data), data)
    assert path_of(store, data).exists()
    assert read(store, dvc(b"lost")) == b"lost", "from memory"


def test_a_file_known_to_be_good_is_opened_again_without_a_look_into_the_index(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagfs.store.handles.KEPT_OPEN", 2)
    store = opened()
    files = [noise(100, seed) for seed in range(10)]
    for number, data in enumerate(files):
        keep(store, git(data, f"f{number}"), data)
    looks: list[str] = []
    monkeypatch.setattr(store._index, "_read", looks.append)
    for number, data in enumerate(files):
        assert read(store, git(data, f"f{number}")) == data
    assert looks == []


def test_missing_files_are_not_looked_for_as_texts_of_dvc_2_where_there_are_none(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = opened(), opened()
    looks: list[str] = []
    monkeypatch.setattr(store._index, "_read", looks.append)
    for seed in range(50):
        assert store.find(dvc(noise(100, seed))) is None
    assert len(looks) <= 2
    monkeypatch.undo()
    text = b"a\r\nb\r\n"
    content = claimed(hashlib.md5(b"a\nb\n").hexdigest(), size=len(text))
    keep(other, content, text)
    until(lambda: read(store, content) == text)


def test_a_text_of_dvc_2_is_found_while_another_thread_looks_whether_there_are_any(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"a\r\nb\r\n"
    content = claimed(hashlib.md5(b"a\nb\n").hexdigest(), size=len(text))
    keep(opened(), content, text)
    store = opened()
    ask = store._index._read
    answers: list[bytes | None] = []

    def asked_twice(key: str) -> list[object] | None:
        if key == "texts" and not answers:
            answers.append(None)  # the second thread comes while the first still waits for the disk
            answers[0] = read(store, content)
        return ask(key)

    monkeypatch.setattr(store._index, "_read", asked_twice)
    assert read(store, content) == text
    assert answers == [text]


def test_damage_is_found_also_in_a_file_that_was_known_to_be_good(opened: Opener) -> None:
    store, data = opened(), noise(1000)
    keep(store, dvc(data), data)
    assert read(store, dvc(data)) == data
    store._handles.forget()
    rewrite(path_of(store, data), data[:500])
    assert read(store, dvc(data)) is None
    assert not path_of(store, data).exists()


@pytest.mark.parametrize("inline_max", [500, 100_000])
@pytest.mark.parametrize("reader", ["the same store", "the same store, which has closed it", "another store"])
def test_a_file_that_somebody_wrote_into_is_damage_though_its_size_is_right(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, inline_max: int, reader: str
) -> None:
    monkeypatch.setattr(lookup_module, "INLINE_MAX", inline_max)
    store, data = opened(), noise(1000)
    keep(store, dvc(data), data)
    assert read(store, dvc(data)) == data
    time.sleep(0.02)  # some kernels' file times have steps of 10 ms
    rewrite(path_of(store, data), data[:-1] + bytes([data[-1] ^ 1]))
    if reader == "another store":
        store = opened()
    elif "closed" in reader:
        store._handles.forget()
    assert read(store, dvc(data)) is None
    until(lambda: not path_of(store, data).exists())


def test_a_file_that_is_cut_while_somebody_has_it_is_an_error_and_never_a_short_read(opened: Opener) -> None:
    store, data = opened(), noise(50_000, 1)
    keep(store, dvc(data), data)
    found, (md5, _) = store.find(dvc(data)), *store._layout.stored()
    assert found is not None
    path = Path(store._layout.file(md5))
    path.chmod(0o600)
    os.truncate(path, 20_000)
    with pytest.raises(OSError, match="shorter than it was"):
        found.read(10_000, 20_000)
    found.close()
    assert store.find(dvc(data)) is None


def test_a_file_with_a_bad_sector_is_removed_and_kept_anew(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be fetched for every read, and found in its place each time."""
    store, data = opened(), noise(50_000, 1)
    keep(store, dvc(data), data)
    found = store.find(dvc(data))
    assert found is not None

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as bad:
        bad.setattr(system, "pread", fail)
        with pytest.raises(OSError, match="Input/output error"):
            found.read(0, 100)
    found.close()
    assert store.find(dvc(data)) is None
    keep(store, dvc(data), data)
    assert read(store, dvc(data)) == data


def test_a_file_that_was_only_touched_is_read_again_and_kept(opened: Opener) -> None:
    store, data = opened(), noise(1000)
    keep(store, dvc(data), data)
    os.utime(path_of(store, data), (1, 1))
    assert read(store, dvc(data)) == data
    assert store.flush(20)
    other = opened()
    assert read(other, dvc(data)) == data
    assert store.info().files == 1


@pytest.mark.parametrize("look", ["find", "size", "has"])
def test_a_look_that_a_file_overtakes_is_not_remembered_as_an_absence(opened: Opener, look: str) -> None:
    store, data = opened(), noise(1000)
    contents = dvc(data, sized=False)
    real, called = store._backlog.get, []

    def overtaken(name: object) -> bytes | None:
        found = real(name)  # type: ignore[arg-type]
        if not called:
            called.append(name)
            keep(store, contents, data, flush=False)
        return found

    store._backlog.get = overtaken  # type: ignore[method-assign]
    getattr(store, look)(contents)
    assert store.flush(20)
    assert read(store, contents) == data
    assert store.has(contents)


def test_an_absence_is_forgotten_soon(opened: Opener, tmp_path: Path) -> None:
    """Another process may bring the file."""
    store, other, data = opened(), opened(), noise(1000)
    assert read(store, dvc(data)) is None
    keep(other, dvc(data), data)
    until(lambda: read(store, dvc(data)) == data)


def renamed(content: Content, word: str) -> Content:
    return content._replace(key=ContentId("object", hashlib.sha256(word.encode()).hexdigest()), claim=None)


@pytest.mark.parametrize("size", [100, 9 * MiB], ids=["small", "large"])
def test_a_file_that_is_also_called_otherwise_is_found_by_both_names_now_and_later(opened: Opener, size: int) -> None:
    data = noise(size)
    first, second = renamed(git(data), "first"), renamed(git(data), "second")
    store = opened()
    keep(store, first, data)
    assert read(store, second) is None
    assert store.also_called(first, second.key)
    assert read(store, second) == data
    assert store.flush(20)
    store.close()
    store = opened()
    assert read(store, first) == read(store, second) == data
    assert store.info().files == 1


def test_what_is_not_there_gets_no_other_name_and_damage_stays_a_miss(opened: Opener) -> None:
    data = noise(5_000)
    first, second = renamed(git(data), "first"), renamed(git(data), "second")
    store = opened()
    assert not store.also_called(first, second.key)
    keep(store, first, data)
    store.close()
    (path,) = store.root.glob("files/md5/*/*")
    path.chmod(0o600)
    path.write_bytes(noise(5_000, 1))
    store = opened()
    store.also_called(first, second.key)
    assert read(store, second) is None


def test_values_that_are_set_together_are_all_there_later(opened: Opener, tmp_path: Path) -> None:
    values = {f"name {i}": b"%d" % i for i in range(50)}
    store, ledger = opened(), Ledger(tmp_path / "ledger", Spare(-1))
    for notes in (store, ledger):
        notes.set_values(values)
        notes.close()
    for notes in (opened(), Ledger(tmp_path / "ledger", Spare(-1))):
        assert {name: notes.get_value(name) for name in values} == values
        notes.close()
