"""A worker that lives and does not answer is found, its stacks are logged, and another takes its place."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.mounts import Mounted, mounted
from support.trees import pattern, tree
from support.waiting import until

from dagfs.kernel import mounting
from dagfs.kernel.session import PROBE
from dagfs.supervisor.policy import MAX_FAULTS
from dagfs.supervisor.watch import MISSED
from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount

PERIOD = 0.3


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("dagfs").addHandler(handler)
    yield tmp_path / "log"
    logging.getLogger("dagfs").removeHandler(handler)
    handler.close()


class Stuck(MemoryFs):
    """Does not answer a lookup of "door"; `how` says why. Those built once the marker is there do."""

    def __init__(self, how: str, marker: Path | None) -> None:
        super().__init__({"door": b"open", "big": pattern(300_000)})
        self._how = how
        self._works = marker is not None and marker.exists()
        if marker is not None:
            marker.touch()

    def lookup(self, node: int, name: bytes) -> Any:
        if name == b"door" and not self._works:
            getattr(self, f"wait_for_{self._how}")()
        return super().lookup(node, name)

    def wait_for_a_lock(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def wait_for_c(self) -> None:
        ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock

    def wait_for_sigcont(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.2)


@pytest.mark.parametrize("how", ["a_lock", "c", "sigcont"])
def test_a_stuck_worker_is_found_shows_its_stacks_and_is_replaced(tmp_path: Path, log: Path, how: str) -> None:
    with (
        mounted(lambda: Stuck(how, tmp_path / "began"), supervised=True, period=PERIOD) as one,
        ThreadPoolExecutor(2) as pool,
    ):
        opened = os.open(one.path / "big", os.O_RDONLY)
        behind_the_door = pool.submit((one.path / "door").read_bytes)
        time.sleep(0.1)
        behind_the_others = pool.submit(os.pread, opened, 300_001, 0)
        assert behind_the_door.result(30) == b"open"
        assert behind_the_others.result(30) == pattern(300_000)
        os.close(opened)
        one.await_ready(2)
        said = log.read_text()
        assert "has not answered" in said
        assert f"in wait_for_{how}" in said
        assert "in _answer" in said  # the stacks of the other threads, too
        assert len(one.workers) == 2


def test_workers_that_are_stuck_again_and_again_end_in_errors(log: Path) -> None:
    with mounted(lambda: Stuck("a_lock", None), supervised=True, period=0.1) as one, ThreadPoolExecutor(1) as pool:
        door = pool.submit((one.path / "door").read_bytes)
        assert one.await_failure() == f"{MAX_FAULTS} workers in a row died of themselves, the last: stuck"
        assert one.wait(10) == 128 + signal.SIGKILL
        assert isinstance(door.exception(10), OSError)
        assert log.read_text().count("in wait_for_a_lock") == MAX_FAULTS


def asker_of(one: Mounted) -> psutil.Process:
    """Wait for the process that puts the watch's questions."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        others = [child for child in psutil.Process(one.pid).children() if child.pid not in one.workers]
        if others:
            return others[0]
        time.sleep(0.02)
    raise AssertionError("no asker")


def held_by(process: psutil.Process) -> list[str] | None:
    """Give what its descriptors are open on, None where one was closed meanwhile."""
    with contextlib.suppress(OSError):
        return [os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
    return None


def await_questions(one: Mounted, count: int) -> None:
    """Let that many of the asker's questions be answered."""
    sleeps = psutil.Process(asker_of(one).pid)
    before = sleeps.num_ctx_switches().voluntary
    deadline = time.monotonic() + 20
    while sleeps.num_ctx_switches().voluntary < before + 2 * count:
        assert time.monotonic() < deadline, "the asker does not ask"
        time.sleep(0.05)


def test_the_question_is_no_programs_request_and_no_attribute_shows_it() -> None:
    with mounted(tree, supervised=True, period=0.02) as one:
        os.stat(one.path)  # the kernel asks for the root's attributes, for whoever comes first, or both who come first
        await_questions(one, 2)
        before = one.counts()
        await_questions(one, 10)
        assert one.counts() == before
        assert os.listxattr(one.path) == [name for name in os.listxattr(one.path) if "probe" not in name]
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            os.getxattr(one.path, PROBE)
        assert "getxattr" not in one.counts()


def test_a_machine_that_was_suspended_in_the_middle_of_a_question_has_no_stuck_worker() -> None:
    """Much time has passed and nobody has answered meanwhile: no process could."""
    with mounted(lambda: Stuck("a_lock", None), supervised=True, period=0.5) as one:
        asker, worker, supervisor = asker_of(one), psutil.Process(one.workers[0]), psutil.Process(one.pid)
        for _ in range(2):
            worker.suspend()
            time.sleep(0.9)  # it is asked, and a look has found the question open
            asker.suspend()
            supervisor.suspend()
            time.sleep(0.5 * (MISSED + 1))
            supervisor.resume()
            time.sleep(0.1)  # its next look is overdue
            asker.resume()
            worker.resume()
            await_questions(one, MISSED)
            assert (one.path / "big").read_bytes() == pattern(300_000)
        assert one.calls("lookup") > 0
        assert len(one.workers) == 1


def test_an_asker_that_is_stopped_or_killed_harms_nobody_and_another_is_sent() -> None:
    with mounted(tree, supervised=True, period=0.5) as one:
        first, worker = asker_of(one), psutil.Process(one.workers[0])
        worker.suspend()
        time.sleep(0.6)
        first.suspend()  # in the middle of a question
        worker.resume()
        time.sleep(0.5 * (MISSED + 2))
        assert asker_of(one).pid == first.pid
        first.kill()
        deadline = time.monotonic() + 10
        while asker_of(one).pid == first.pid and time.monotonic() < deadline:
            time.sleep(0.02)
        assert asker_of(one).pid != first.pid
        assert one.counts() is not None
        assert len(one.workers) == 1


def test_what_is_mounted_over_the_mount_is_not_asked(tmp_path: Path) -> None:
    """It may be slow for reasons of its own."""
    place = tmp_path / "m"
    place.mkdir()
    with mounted(lambda: Stuck("a_lock", None), path=place, supervised=True, period=0.05) as below:
        above = mounting.mount(str(place), "nobody serves this one")
        try:
            time.sleep(0.05 * 3 * MISSED)
        finally:
            above.end()
            os.close(above.fd)
        assert (place / "big").read_bytes() == pattern(300_000)
        assert below.calls("lookup") == 1
        assert len(below.workers) == 1


def test_a_watched_mount_can_be_unmounted_as_any_other() -> None:
    """The watch has nothing open on it: not even the plain umount of somebody else finds it busy."""
    with mounted(tree, supervised=True, period=0.05) as one:
        asker = asker_of(one)
        await_questions(one, 3)
        asker.suspend()  # not just while it asks
        mounting._umount(str(one.path), 0)
        assert one.wait(10) == 0
        assert not asker.is_running()


def test_the_asker_ends_with_its_supervisor_and_holds_no_descriptor() -> None:
    with mounted(tree, supervised=True, period=0.05) as one:
        asker = asker_of(one)
        until(lambda: held_by(asker) in ([], [f"/proc/{asker.pid}/mountinfo"]), "who has just begun lets go of all")
        os.kill(one.pid, signal.SIGKILL)
        one.wait(10)
        with contextlib.suppress(psutil.NoSuchProcess):
            asker.wait(10)
        assert not asker.is_running()
