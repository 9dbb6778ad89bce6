"""Programs that are killed while the daemon has their request in hand: gone at once, and nobody else is told. Kernel
driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.mounts import Mounted, mounted
from support.trees import pattern
from support.waiting import until

from dagfs.errors import RemoteUnavailable
from dagfs.kernel.killed import PERIOD, Killed, killed
from dagfs.kernel.protocol import IN_HEADER, Op
from dagfs.kernel.waiting import Waiting
from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount

SIZE = 5000
SECONDS = 30  # to die in; an answer never comes

WAITS = {
    "lookup": "os.stat(path)",
    "readdir": "os.listdir(folder)",
    "getxattr": "os.getxattr(path, 'user.dagfs.commit')",
    "readlink": "os.readlink(folder + '/link')",
    "read": "os.preadv(os.open(path, os.O_RDONLY), [bytearray(10)], 4990)",
    "read by O_DIRECT": "os.preadv(os.open(path, os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 8192)], 0)",
    "read through a map": "mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ)[7]",
}
"""What only waits for one operation, by that operation."""

THROUGH_PAGES = ("read", "read through a map")
"""Of these the kernel does not tell that nobody waits any more."""

PROGRAM = """
import mmap, os, signal, sys
path, folder = sys.argv[1], os.path.dirname(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
{}
"""


def stalling() -> MemoryFs:
    fs = MemoryFs({"slow/file": pattern(SIZE)}, {"slow/link": "file"})
    fs.stalling = set()
    fs.stalled = {"slow", "slow/file", "slow/link"}
    return fs


def program(one: Mounted, what: str) -> subprocess.Popen[str]:
    """Start a program that will wait for an operation; gives it when it does."""
    operation = what.split(maxsplit=1)[0]
    before = one.calls(operation)
    words = [sys.executable, "-c", PROGRAM.format(WAITS[what]), one.path / "slow/file"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "ready\n"
    one.await_calls(operation, before + 1)
    return running


def settle(one: Mounted, what: str) -> None:
    """Have the kernel know what comes before an operation, and the operation wait."""
    operation = what.split(maxsplit=1)[0]
    os.stat(one.path / "slow")
    if operation != "lookup":
        os.stat(one.path / "slow/file")
        os.lstat(one.path / "slow/link")
    one.set("stalling", [operation])


@pytest.mark.parametrize("what", WAITS)
def test_who_is_killed_while_it_waits_is_gone_although_no_answer_comes(what: str) -> None:
    with mounted(stalling) as one:
        settle(one, what)
        waiting = program(one, what)
        waiting.kill()
        assert waiting.wait(SECONDS) == -signal.SIGKILL
        waiting.communicate()
        assert one.ask("failures") == []
        if what not in THROUGH_PAGES:
            until(lambda: one.ask("waiting") == 0)  # `dagfs top` names nobody who is gone


@pytest.mark.parametrize("what", ["getxattr", "readdir", "read by O_DIRECT"])
def test_a_signal_that_does_not_kill_costs_nobody_an_error_and_one_that_kills_later_is_seen(what: str) -> None:
    with mounted(stalling) as one:
        settle(one, what)
        first, second = program(one, what), program(one, what)
        for waiting in (first, second):
            waiting.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(2.5)  # two looks
        second.send_signal(signal.SIGTERM)
        assert second.wait(SECONDS) == -signal.SIGTERM
        assert first.poll() is None
        one.ask("release")
        assert first.wait(SECONDS) == 0, first.communicate()
        for waiting in (first, second):
            waiting.communicate()


def test_who_looks_up_the_same_name_as_a_killed_program_asks_anew() -> None:
    """It waits for the other's answer until then, in the kernel, where nobody can reach it."""
    with mounted(stalling) as one, ThreadPoolExecutor(1) as pool:
        settle(one, "lookup")
        first = program(one, "lookup")
        other = pool.submit(os.stat, one.path / "slow/file")
        time.sleep(0.2)
        assert one.calls("lookup") == 2  # of `slow`, and of the file
        first.kill()
        assert first.wait(SECONDS) == -signal.SIGKILL
        first.communicate()
        one.await_calls("lookup", 3)
        one.ask("release")
        assert other.result(SECONDS).st_size == SIZE


def test_who_waits_for_the_same_page_as_a_killed_program_gets_it() -> None:
    """Also where the page cache asks for that page alone, and holds it until it has an answer."""
    with mounted(stalling) as one, ThreadPoolExecutor(2) as pool:
        settle(one, "read")
        first = program(one, "read")
        others = [pool.submit((one.path / "slow/file").read_bytes) for _ in range(2)]
        first.kill()
        assert first.wait(SECONDS) == -signal.SIGKILL
        first.communicate()
        one.ask("release")
        assert [other.result(SECONDS) for other in others] == [pattern(SIZE)] * 2


def test_a_page_that_could_not_be_read_and_is_read_again_is_no_trap_either() -> None:
    """The kernel then reads by a request that only its answer ends."""
    with mounted(failing_then_stalling) as one, ThreadPoolExecutor(1) as pool:
        with pytest.raises(OSError, match="Input/output"):
            (one.path / "slow/file").read_bytes()
        one.set("errors", {})
        settle(one, "read")
        first = program(one, "read")
        other = pool.submit((one.path / "slow/file").read_bytes)
        first.kill()
        assert first.wait(SECONDS) == -signal.SIGKILL
        first.communicate()
        one.ask("release")
        assert other.result(SECONDS) == pattern(SIZE)


def failing_then_stalling() -> MemoryFs:
    fs = stalling()
    fs.errors = {("read", "slow/file"): RemoteUnavailable("on command")}
    return fs


STOPPED = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_thread_is_as_good_as_dead_when_a_signal_waits_that_it_does_not_survive() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED]) as one:
        try:
            os.waitid(os.P_PID, one.pid, os.WSTOPPED)
            for number in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGWINCH"):
                one.send_signal(signal.Signals[number])
                assert not killed(one.pid), number
            one.send_signal(signal.SIGQUIT)
            assert killed(one.pid)
            assert let_go(one.pid, {1: Op.OPEN, 2: Op.READ, 3: Op.LOOKUP, 4: Op.READ}, interrupted=[1, 4]) == {3, 4}
        finally:
            one.kill()
    assert not killed(one.pid)
    assert not killed(threading.get_native_id())


def let_go(thread: int, requests: dict[int, Op], interrupted: list[int]) -> set[int]:
    """Give who is let go of requests of a thread that is as good as dead: no opening, which would count for ever, and
    no read of pages that others may wait for, unless it is known to end with its answer only."""
    gone: list[int] = []
    waiting = Waiting()
    killed = Killed(waiting, lambda unique: (gone.append(unique), waiting.end(unique)))
    killed.start()
    try:
        for unique, op in requests.items():
            message = IN_HEADER.pack(80, op, unique, 1, 0, 0, thread, 0, 0) + bytes(40)
            waiting.begin(unique, op, 1, message)
            killed.begin(unique, op, message)
        for unique in interrupted:
            killed.interrupted(unique)
        deadline = time.monotonic() + SECONDS
        while len(gone) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2.5 * PERIOD)
    finally:
        killed.stop()
    assert len(gone) == len(set(gone))
    return set(gone)
