"""The ledger: what a mount must not forget is on its disk, or in memory that its workers share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.disks import fill, needs_root, remount, small_disk

from dagfs.model import Entry, Kind, Versioning
from dagfs.store.ledger import Ledger, forget
from dagfs.store.spare import HALF, Spare
from dagfs.tree.numbers import PAGE, NumberBook

MiB = 1 << 20


def worker(work: Callable[[], None], *, killed: bool) -> None:
    """Run `work` in a process of its own, which is then killed, or ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if killed else 0)


def write(directory: Path, spare: Spare, values: dict[str, bytes], *, close: bool) -> None:
    ledger = Ledger(directory, spare)
    for name, value in values.items():
        ledger.set_value(name, value)
    if close:
        ledger.close()


def held(directory: Path, spare: Spare, names: range) -> dict[str, bytes | None]:
    ledger = Ledger(directory, spare)
    try:
        return {f"n{n}": ledger.get_value(f"n{n}") for n in names}
    finally:
        ledger.close()


def values_of(names: range, size: int = 2000) -> dict[str, bytes]:
    return {f"n{n}": bytes([n % 251]) * size for n in names}


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
def test_what_a_worker_wrote_its_successor_has(tmp_path, killed):
    spare = Spare()
    for begin in (0, 50):
        rows = values_of(range(begin, begin + 50))
        worker(lambda rows=rows: write(tmp_path / "l", spare, rows, close=not killed), killed=killed)
    assert held(tmp_path / "l", spare, range(100)) == values_of(range(100))
    assert len(spare) == 0
    forget(tmp_path / "l")
    assert held(tmp_path / "l", spare, range(1)) == {"n0": None}


@needs_root
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
def test_a_disk_that_is_full_takes_nothing_from_any_worker(tmp_path, killed, caplog):
    """Neither what was written before it was full nor what came after, through three workers, until there is room."""
    spare = Spare()
    with small_disk(tmp_path / "disk", 2 * MiB) as disk:
        worker(lambda: write(disk / "l", spare, values_of(range(50)), close=not killed), killed=killed)
        fill(disk)
        for begin in (50, 100, 150):
            rows = values_of(range(begin, begin + 50)) | {"n3": b"%d" % begin}
            worker(lambda rows=rows: write(disk / "l", spare, rows, close=not killed), killed=killed)
        expected = values_of(range(200)) | {"n3": b"150"}
        assert held(disk / "l", spare, range(200)) == expected
        assert caplog.text.count("kept in memory") == 1
        (disk / "fill").unlink()
        assert held(disk / "l", spare, range(200)) == expected
        assert len(spare) == 0
        assert held(disk / "l", Spare(), range(200)) == expected


@needs_root
def test_a_disk_that_gets_room_is_used_by_the_worker_that_serves(tmp_path):
    spare = Spare()
    with small_disk(tmp_path / "disk", 2 * MiB) as disk:
        fill(disk)
        ledger = Ledger(disk / "l", spare)
        ledger.set_value("old", b"1")
        (disk / "fill").unlink()
        ledger.set_value("new", b"2")
        assert list(spare.items()) == [("old", b"1")]
        ledger.set_value("old", b"3")  # not on the disk, where the older value in memory would hide it
        assert [ledger.get_value(name) for name in ("old", "new")] == [b"3", b"2"]
        ledger.close()
        again = Ledger(disk / "l", spare)
        assert [again.get_value(name) for name in ("old", "new")] == [b"3", b"2"]
        assert len(spare) == 0
        again.close()


@needs_root
def test_a_disk_that_has_become_read_only_is_as_good_as_a_full_one(tmp_path):
    spare = Spare()
    with small_disk(tmp_path / "disk", 2 * MiB) as disk:
        write(disk / "l", spare, values_of(range(20)), close=True)
        remount(disk, "ro")
        write(disk / "l", spare, values_of(range(20, 40)), close=True)
        assert held(disk / "l", spare, range(40)) == values_of(range(40))


def test_a_directory_that_is_none_costs_no_value_while_there_is_memory(tmp_path):
    (tmp_path / "file").write_text("in the way")
    spare = Spare()
    write(tmp_path / "file/l", spare, values_of(range(20)), close=True)
    assert held(tmp_path / "file/l", spare, range(20)) == values_of(range(20))


def test_the_numbers_of_many_paths_fit_into_the_memory_of_a_full_disk(tmp_path):
    (tmp_path / "file").write_text("in the way")
    count = 40 * PAGE
    spare = Spare(half=HALF * count // 80_000 // 8 * 8)  # the same share of it
    ledger = Ledger(tmp_path / "file/l", spare)
    book = NumberBook(ledger, "tree/owner/name/" + "0" * 40 + "/numbers/" + "m" * 20)
    given = {}
    for n in range(count):
        entry = Entry(f"data/train/images/{n:06d}.jpg", Kind.FILE, Versioning.DVC, f"{n:032x}", 100_000)
        given[entry.path] = book.give(entry, early=True)
    again = NumberBook(Ledger(tmp_path / "file/l", spare), "tree/owner/name/" + "0" * 40 + "/numbers/" + "m" * 20, 4)
    assert {path: again.find(path) for path in given} == given


def test_memory_that_is_full_says_so_and_keeps_what_it_has(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    ledger = Ledger(tmp_path / "file/l", Spare(half=1 << 16))
    for n in range(100):
        ledger.set_value(f"n{n}", bytes([n]) * 1000)
    kept = [n for n in range(100) if ledger.get_value(f"n{n}") == bytes([n]) * 1000]
    assert kept == list(range(len(kept)))
    assert len(kept) > 50
    assert "there is no room" in caplog.text


def test_a_worker_killed_anywhere_in_a_write_leaves_each_value_old_or_new():
    """Seen through every prefix of the stores that a write, and a change of halves, is made of."""
    spare = Spare(half=512)
    for n in range(200):
        name, value = f"n{n % 4}", bytes([n]) * (40 + n % 50)
        before = dict(spare.items())
        stores = Stores(spare._memory)
        spare._memory = stores
        assert spare.set(name, value)
        for state in stores.states:
            seen = Spare(half=512)
            seen._memory[:] = state
            seen.reload()
            assert dict(seen.items()) in (before, before | {name: value})
            os.close(seen.fd)
        spare._memory = stores.memory


class Stores:
    """A memory that remembers what it was like before each store."""

    def __init__(self, memory) -> None:
        self.memory = memory
        self.states: list[bytes] = []

    def __setitem__(self, where: slice, value: bytes) -> None:
        self.states.append(bytes(self.memory[:]))
        self.memory[where] = value

    def __getitem__(self, where):
        return self.memory[where]


def test_threads_that_write_while_the_disk_comes_and_goes_lose_nothing(tmp_path, monkeypatch):
    import sqlite3

    from dagfs.store.values import Values

    real, count = Values.set, iter(range(1 << 30))

    def sometimes(self: Values, name: str, value: bytes) -> None:
        if next(count) % 3:
            raise sqlite3.OperationalError("database or disk is full")
        real(self, name, value)

    spare = Spare()
    ledger = Ledger(tmp_path / "l", spare)
    monkeypatch.setattr(Values, "set", sometimes)

    def write_many(thread: int) -> None:
        for n in range(100):
            ledger.set_value(f"{thread}-{n % 20}", b"%d" % n)

    threads = [threading.Thread(target=write_many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{thread}-{n}": b"%d" % (80 + n) for thread in range(4) for n in range(20)}
    assert {name: ledger.get_value(name) for name in expected} == expected
    ledger.close()
    monkeypatch.undo()
    again = Ledger(tmp_path / "l", spare)
    assert {name: again.get_value(name) for name in expected} == expected
    again.close()
