"""A mount shows another commit from one moment on: what the kernel remembers of the one before. Kernel driver."""

from __future__ import annotations

import mmap
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.generations import generations, sha
from support.mounts import Mounted, mounted

from dagfs.kernel.openings import ROWS, Epoch, Openings, OpenTable
from dagfs.vfs.generations import Generations
from dagfs.vfs.memory import MemoryFs

MANY = {f"n{i:05d}": b"" for i in range(3000)}
FIRST = {"same/a": b"one", "same/deep/b": b"one", "gone": b"one", "turns": b"one", **MANY}
SECOND = {"same/a": b"second", "same/deep/b": b"second", "new": b"second", "turns/into": b"second", "extra": b"second"}
COMMITS = {
    sha(1): lambda: MemoryFs(FIRST, {"link": "same/a"}),
    sha(2): lambda: MemoryFs(SECOND, {"link": "new"}),
}
OLD_MINOR = 43  # Linux 6.15: no INC_EPOCH


def build() -> Generations:
    return generations(COMMITS, sha(1))


@pytest.fixture(params=[None, OLD_MINOR], ids=["this kernel", "an older kernel"])
def minor(request: pytest.FixtureRequest) -> int | None:
    return request.param


@pytest.fixture
def one(minor: int | None) -> Iterator[Mounted]:
    with mounted(build, minor=minor) as running:
        yield running


def look(root: Path) -> tuple[object, ...]:
    """Everything that the two commits have different."""
    return (
        (root / "same/a").read_bytes(),
        (root / "same/deep/b").stat().st_size,
        (root / "gone").exists(),
        (root / "new").exists(),
        (root / "turns").is_dir(),
        os.readlink(root / "link"),
        "extra" in os.listdir(root),
        (root / "link").read_bytes(),
    )


@pytest.mark.mount
def test_everything_that_the_kernel_knew_is_of_the_new_commit_at_once(one: Mounted) -> None:
    for _ in range(2):  # from the daemon, and from what the kernel has kept
        assert look(one.path) == (b"one", 3, True, False, False, "same/a", False, b"one")
    one.show(sha(2))
    assert look(one.path) == (b"second", 6, False, True, True, "new", True, b"second")
    one.show(sha(1))
    assert look(one.path) == (b"one", 3, True, False, False, "same/a", False, b"one")


@pytest.mark.mount
def test_what_is_open_stays_in_its_commit(one: Mounted) -> None:
    file = os.open(one.path / "same/a", os.O_RDONLY)  # nothing of it is read before the change
    with open(one.path / "same/deep/b", "rb") as deep, mmap.mmap(deep.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        folder = os.open(one.path / "same", os.O_RDONLY)
        one.show(sha(2))
        assert os.pread(file, 100, 0) == b"one"
        assert os.fstat(file).st_size == 3
        assert mapped[:] == b"one"
        inside = os.open("deep/b", os.O_RDONLY, dir_fd=folder)
        assert os.read(inside, 100) == b"one"
        assert (one.path / "same/deep/b").read_bytes() == b"second"
        for fd in (file, folder, inside):
            os.close(fd)


@pytest.mark.mount
def test_a_listing_of_the_root_that_has_begun_is_finished_in_its_commit(one: Mounted) -> None:
    with os.scandir(one.path) as entries:
        names = [next(entries).name]
        one.show(sha(2))
        names += [entry.name for entry in entries]
    assert sorted(names) == sorted({"same", "gone", "turns", "link", *MANY})
    assert sorted(os.listdir(one.path)) == ["extra", "link", "new", "same", "turns"]


@pytest.mark.mount
def test_the_root_as_working_directory_shows_the_new_commit_and_a_directory_below_the_old_one(one: Mounted) -> None:
    before = Path.cwd()
    try:
        os.chdir(one.path)
        one.show(sha(2))
        assert Path("same/a").read_bytes() == b"second"
        os.chdir(one.path / "same")
        one.show(sha(1))
        assert (one.path / "same/a").read_bytes() == b"one"
        assert Path("a").read_bytes() == b"second"
        with pytest.raises(FileNotFoundError):  # as of a directory that was replaced
            os.getcwd()
    finally:
        os.chdir(before)


@pytest.mark.mount
def test_the_kernel_keeps_the_listings_of_a_commits_directories_and_none_of_the_root(one: Mounted) -> None:
    """A listing of the root that it keeps may have been put together from two commits."""
    for number in (2, 1):
        one.show(sha(number))
        for folder, asked in ((one.path / "same", False), (one.path, True)):
            names = os.listdir(folder)
            before = one.counts()
            assert os.listdir(folder) == names
            after = sent(one, before)
            assert (after.get("readdir", 0) + after.get("readdirplus", 0) > 0) == asked, (folder, after)


def sent(one: Mounted, before: dict[str, int]) -> dict[str, int]:
    """Give what the kernel has asked; when it forgets nodes is its own affair, and costs it no answer."""
    asked = Counter(one.counts()) - Counter(before)
    return {operation: count for operation, count in asked.items() if "forget" not in operation}


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.mount
def test_a_warm_read_sends_nothing_before_and_after_a_change() -> None:
    with mounted(build) as one:
        for number, text in ((1, b"one"), (2, b"second"), (1, b"one")):
            if number != 1 or one.counts().get("read"):
                one.show(sha(number))
            assert read(one.path / "same/a") == text
            before = one.counts()
            assert [read(one.path / "same/a") for _ in range(10)] == [text] * 10
            assert sent(one, before) == {}


@pytest.mark.mount
def test_an_older_kernel_asks_for_the_name_in_the_root_each_time_and_for_nothing_else() -> None:
    with mounted(build, minor=OLD_MINOR) as one:
        read(one.path / "same/a")
        before = one.counts()
        for _ in range(10):
            assert read(one.path / "same/a") == b"one"
        assert sent(one, before) == {"lookup": 10}


@pytest.mark.mount
def test_a_listing_costs_two_messages_and_that_of_the_root_its_rows() -> None:
    with mounted(build) as one:
        for _ in range(2):
            os.listdir(one.path / "same")
        before = one.counts()
        for _ in range(10):
            os.listdir(one.path / "same")
        told = sent(one, before)
        assert told.pop("opendir") == 10
        assert 9 <= told.pop("releasedir") <= 11  # the last of each loop may be on its way
        assert told == {}


@pytest.mark.mount
def test_openings_are_counted_where_they_hold_the_commit() -> None:
    with mounted(build, counted=True, supervised=True) as one:
        files = [os.open(one.path / "same/a", os.O_RDONLY) for _ in range(3)]
        assert one.counts()["open"] == 3
        for fd in files:
            os.close(fd)
        os.kill(one.workers[-1], signal.SIGKILL)
        one.await_ready(2)
        assert read(one.path / "same/a") == b"one"
        assert one.counts()["open"] == 1


@pytest.mark.mount
def test_an_opening_that_comes_late_is_sent_back_to_look_for_the_new_commit() -> None:
    """Between the look-up of a name and its opening the mount may change."""
    with mounted(build, counted=True) as one:
        folder = os.open(one.path / "same", os.O_RDONLY)
        name = os.open(one.path / "same/a", os.O_PATH)
        one.show(sha(2))
        assert read(one.path / "same/a") == b"second"
        for path in (f"/proc/self/fd/{name}", f"/proc/self/fd/{folder}/a"):  # no way leads to the new commit
            assert read(Path(path)) == b"one"
        assert one.counts()["open"] >= 5  # each of the two was sent back once
        os.close(folder)
        os.close(name)


def test_files_open_over_a_workers_death_are_still_counted() -> None:
    table = OpenTable()
    first = Openings(table)
    handles = [first.opened(number) for number in range(1, 2001)]
    for handle in handles[:1000]:
        first.closed(handle)
    assert first.opened(5000) == 5000
    second = Openings(table)
    assert len(second) == 1001
    assert second.quiet_for() < 0
    assert second.opened(5000 | 1 << 63) == 5000  # sent again: the first worker died before its answer
    assert len(second) == 1001
    for handle in (*handles[1000:], 5000, 5000):
        second.closed(handle)
    assert len(second) == 0
    assert 0 <= second.quiet_for() < 60
    assert len(Openings(table)) == 0


def test_there_is_a_bound_on_open_files() -> None:
    openings = Openings(OpenTable())
    assert all(openings.opened(number) for number in range(1, ROWS + 1))
    assert openings.opened(ROWS + 1) is None
    openings.closed(7)
    assert openings.opened(ROWS + 1) == ROWS + 1


def begun(epoch: Epoch, nodes: list[int]) -> list[int]:
    """Give where epochs begin in a row of openings."""
    return [position for position, node in enumerate(nodes) if epoch.begins_with(node)]


def test_an_epoch_begins_with_the_first_file_that_is_opened_again() -> None:
    nodes = [(directory << 24) + row for directory in (3, 9) for row in (*range(1, 50), 700_000)]
    shuffled = random.Random(1).sample(nodes, 100)
    assert begun(Epoch(), [*nodes, *nodes, *nodes]) == [100, 200]
    assert begun(Epoch(), [*nodes, *shuffled[:60]]) == [100]


def test_a_file_that_is_opened_twice_for_one_use_begins_no_epoch() -> None:
    nodes = list(range(1, 101))
    at_once = [node for node in nodes for _ in range(2)]
    workers = [node for some in range(0, 100, 10) for node in nodes[some : some + 10] * 2]
    assert begun(Epoch(), [*at_once, *at_once]) == [200]
    assert begun(Epoch(), [*workers, *workers]) == [200]
    assert begun(Epoch(), [7] * 6) == [2, 4]  # a program that polls
