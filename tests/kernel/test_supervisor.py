"""A worker may die; the mount, and the programs that use it, do not. Kernel driver."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.mounts import ORDINARY, Mounted, Unheeding, mounted
from support.trees import FILES, pattern, tree

from dagfs.errors import BadMountPoint
from dagfs.kernel import mounting
from dagfs.kernel.handshake import negotiate
from dagfs.kernel.mountinfo import find_mount
from dagfs.kernel.mounting import mount, unmount
from dagfs.supervisor import loop
from dagfs.supervisor.loop import Supervisor, signals_held
from dagfs.supervisor.policy import MAX_FAULTS
from dagfs.supervisor.post import Jobs
from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount


@dataclass
class Slow(Unheeding):
    """Takes `pause` seconds to hear of a worker."""

    pause: float

    def worker(self, _pid: int) -> None:
        time.sleep(self.pause)


def waiting(marker: Path) -> MemoryFs:
    """Reads of "slow" stall in the first worker, and are answered by those after it."""
    fs = MemoryFs({"slow": pattern(200_000), "fast": b"fast"})
    if not marker.exists():
        marker.touch()
        fs.stalled = {"slow"}
    return fs


def stalled() -> MemoryFs:
    fs = MemoryFs({"slow": pattern(200_000), "fast": b"fast"})
    fs.stalled = {"slow"}
    return fs


@pytest.fixture
def supervised() -> Iterator[Mounted]:
    with mounted(tree, supervised=True) as one:
        yield one


def test_readers_of_a_killed_worker_see_a_pause_and_no_error(tmp_path: Path) -> None:
    with mounted(lambda: waiting(tmp_path / "died"), supervised=True) as one, ThreadPoolExecutor(8) as pool:
        handle = os.open(one.path / "fast", os.O_RDONLY)
        slow = [pool.submit((one.path / "slow").read_bytes) for _ in range(4)]
        one.await_calls("read", 1)
        os.kill(one.workers[-1], signal.SIGKILL)
        assert [promise.result(30) for promise in slow] == [pattern(200_000)] * 4
        assert os.read(handle, 10) == b"fast"
        os.close(handle)


def test_without_repetition_a_killed_worker_costs_at_most_what_it_had_in_hand(tmp_path: Path) -> None:
    def build() -> MemoryFs:
        return waiting(tmp_path / "died")

    def direct() -> int:
        fd = os.open(one.path / "slow", os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, 4096) as page:
                return os.preadv(fd, [page], 0)
        finally:
            os.close(fd)

    with mounted(build, supervised=True, resend=False) as one, ThreadPoolExecutor(2) as pool:
        handle = os.open(one.path / "fast", os.O_RDONLY)
        slow, unbuffered = pool.submit((one.path / "slow").read_bytes), pool.submit(direct)
        one.await_calls("read", 2)
        os.kill(one.workers[-1], signal.SIGKILL)
        assert isinstance(unbuffered.exception(30), OSError)
        assert slow.result(30) == pattern(200_000)  # failed as read-ahead, so the kernel asked once more
        assert os.read(handle, 10) == b"fast"
        os.close(handle)


def _no_clone(_fd: int) -> int:
    raise PermissionError(errno.EACCES, "on command")


def test_where_nothing_can_be_recovered_a_killed_worker_ends_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "clone", _no_clone)

    def build() -> MemoryFs:
        return waiting(tmp_path / "died")

    with mounted(build, supervised=True, resend=False) as one, ThreadPoolExecutor(1) as pool:
        slow = pool.submit((one.path / "slow").read_bytes)
        one.await_calls("read", 1)
        os.kill(one.workers[-1], signal.SIGKILL)
        assert one.wait(10) == 128 + signal.SIGKILL
        assert isinstance(slow.exception(10), OSError)
        assert dead(one.path)


def dead(path: Path) -> bool:
    """Whether programs hear that nobody serves: an empty directory would tell them that the files do not exist."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_reading_goes_on_while_workers_die(number: int) -> None:
    files = {f"f{n}": pattern(150_000, n) for n in range(200)}
    wrong: list[str] = []

    def build() -> MemoryFs:
        fs = MemoryFs(files)
        fs.later = {"read", "lookup"}
        return fs

    with mounted(build, supervised=True) as one, ThreadPoolExecutor(4) as pool:

        def check(names: list[str]) -> None:
            wrong.extend(name for name in names if (one.path / name).read_bytes() != files[name])

        readers = [pool.submit(check, sorted(files)[part::4]) for part in range(4)]
        for _ in range(MAX_FAULTS - 1):
            time.sleep(0.05)
            os.kill(one.workers[-1], number)
            one.await_ready(len(one.workers) + 1)
        for reader in readers:
            reader.result(60)
    assert wrong == []


def test_a_worker_dies_with_its_supervisor(supervised: Mounted) -> None:
    worker = supervised.workers[-1]
    os.kill(supervised.pid, signal.SIGKILL)
    supervised.wait(10)
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(worker)
    with pytest.raises(OSError, match=r"not connected|abort") as caught:
        os.listdir(supervised.path)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)  # the latter for what was being asked


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_that_are_killed_from_outside_are_replaced_for_as_long_as_it_takes(
    supervised: Mounted, number: int
) -> None:
    for generation in range(2, 2 * MAX_FAULTS + 2):
        os.kill(supervised.workers[-1], number)
        supervised.await_ready(generation)
        assert os.statvfs(supervised.path).f_namemax == 255
    assert len(set(supervised.workers)) == 2 * MAX_FAULTS + 1


def test_workers_that_die_of_themselves_end_in_errors_for_those_who_wait(tmp_path: Path) -> None:
    """The mount stays there and is dead; what is being read and what is open gets an error, not an endless wait."""

    with mounted(stalled, supervised=True) as one, ThreadPoolExecutor(1) as pool:
        opened = os.open(one.path / "fast", os.O_RDONLY)
        slow = pool.submit((one.path / "slow").read_bytes)
        for generation in range(1, MAX_FAULTS + 1):
            one.await_calls("read", 1)
            os.kill(one.workers[-1], signal.SIGSEGV)
            if generation < MAX_FAULTS:
                one.await_ready(generation + 1)
        assert one.await_failure() == "5 workers in a row died of themselves, the last: killed by SIGSEGV"
        assert one.wait(10) == 128 + signal.SIGSEGV
        failed = slow.exception(10)
        assert isinstance(failed, OSError)
        assert failed.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        assert dead(one.path)
        with pytest.raises(OSError, match="not connected"):
            os.pread(opened, 4, 0)
        with contextlib.suppress(OSError):
            os.close(opened)


def test_a_signal_ends_the_mount_in_the_pause_before_a_restart(supervised: Mounted) -> None:
    for generation in range(2, MAX_FAULTS):
        os.kill(supervised.workers[-1], signal.SIGSEGV)
        supervised.await_ready(generation)
    os.kill(supervised.workers[-1], signal.SIGSEGV)  # a second passes until the next one
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.wait(5.0) == 0
    assert os.listdir(supervised.path) == []
    assert len(supervised.workers) == MAX_FAULTS - 1


def test_a_worker_that_cannot_start_ends_the_mount_at_once() -> None:
    def build() -> MemoryFs:
        raise RuntimeError("no cache")

    with pytest.raises(AssertionError, match="has ended"), mounted(build, supervised=True):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_mount_in_time_with_open_files_and_stalled_reads(number: int) -> None:
    with mounted(stalled, supervised=True) as one, ThreadPoolExecutor(2) as pool:
        opened = os.open(one.path / "fast", os.O_RDONLY)
        slow = [pool.submit((one.path / "slow").read_bytes) for _ in range(2)]
        one.await_calls("read", 1)
        os.kill(one.pid, number)
        assert one.wait(5.0) == 0
        for promise in slow:
            assert isinstance(promise.exception(5), OSError)
        with pytest.raises(OSError, match=r"not connected|aborted"):
            os.pread(opened, 4, 0)
        with contextlib.suppress(OSError):  # a close that has to ask fails as well
            os.close(opened)
        assert os.listdir(one.path) == []


def test_a_lazy_unmount_in_use_ends_once_the_files_are_closed(supervised: Mounted) -> None:
    opened = os.open(supervised.path / "images/b.bin", os.O_RDONLY)
    unmount(supervised.path)
    assert os.pread(opened, 300_001, 0) == FILES["images/b.bin"]
    assert supervised.wait(0.2) is None
    os.close(opened)
    assert supervised.wait(10) == 0


def test_a_mount_that_cannot_be_taken_off_the_tree_is_a_failure(
    device_for_users: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /etc/mtab is missing: fusermount3 mounts, and refuses to unmount."""

    def refuse(path: str) -> None:
        raise BadMountPoint(f"failed to unmount {path}: no /etc/mtab")

    monkeypatch.setattr(mounting, "unmount", refuse)
    with mounted(tree, user=ORDINARY, supervised=True) as one:
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait(5.0) == 1
        assert find_mount(str(one.path)) is not None
        monkeypatch.undo()  # the clean-up may unmount


def test_a_signal_between_mounting_and_supervising_leaves_no_dead_mount(tmp_path: Path) -> None:
    place = tmp_path / "m"
    place.mkdir()
    child = os.fork()
    if child == 0:
        with signals_held():
            held = mount(str(place), "dagfs-test")
            os.kill(os.getpid(), signal.SIGTERM)
            agreed = negotiate(held.fd)
            os._exit(Supervisor(held, agreed, Jobs(lambda *_: time.sleep(60) or 0), Unheeding()).run())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert find_mount(str(place)) is None


def test_who_is_told_to_end_while_it_ends_still_puts_its_things_in_order(tmp_path: Path) -> None:
    place = tmp_path / "m"
    place.mkdir()
    child = os.fork()
    if child == 0:
        with signals_held():
            held = mount(str(place), "dagfs-test")
            agreed = negotiate(held.fd)
            work = lambda *_: os.kill(os.getppid(), signal.SIGTERM) or 0  # noqa: E731
            Supervisor(held, agreed, Jobs(work), Slow(0.3)).run()
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
