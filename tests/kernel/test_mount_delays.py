"""Answers that come later or not at all: nobody else waits for them. Both drivers unless the test says otherwise."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mounts import mounted
from support.trees import FILES, pattern, tree

from dagfs import errors
from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount

UNMOUNT = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
EVERYTHING = ["lookup", "getattr", "readdir", "read", "readlink", "getxattr"]

FAULTS = """
import mmap, random, sys
path, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
places = list(range(0, size, 4096))
random.Random(seed).shuffle(places)
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    mapped.madvise(mmap.MADV_RANDOM)
    for place in places[:300]:
        assert int.from_bytes(mapped[place:place + 8], "little") & 0xFFFFFFFF == place // 8, place
print("right")
"""


def test_answers_given_later_by_other_threads_are_the_same(driver: str) -> None:
    with mounted(tree, driver) as one:
        one.set("later", EVERYTHING)
        for name, data in FILES.items():
            assert (one.path / name).read_bytes() == data, name
        assert os.readlink(one.path / "link") == "small.txt"
        assert os.getxattr(one.path / "small.txt", "user.dagfs.commit") == b"0" * 40
        assert not (one.path / "no").exists()
        with pytest.raises(NotADirectoryError):
            os.stat(one.path / "small.txt/x")


def stalling() -> MemoryFs:
    fs = MemoryFs({f"slow/{n}": pattern(5000, n) for n in range(300)} | {"fast": b"fast", "other": b"other"})
    fs.stalled = {f"slow/{n}" for n in range(300)}
    return fs


def test_one_stalled_read_delays_no_other(driver: str) -> None:
    with mounted(stalling, driver) as one, ThreadPoolExecutor(1) as pool:
        slow = pool.submit((one.path / "slow/7").read_bytes)
        assert (one.path / "fast").read_bytes() == b"fast"
        assert len(os.listdir(one.path / "slow")) == 300
        assert not slow.done()
        one.ask("release")
        assert slow.result(20) == pattern(5000, 7)


def test_hundreds_of_stalled_reads_leave_listings_and_other_reads_alone() -> None:
    with mounted(stalling) as one, ThreadPoolExecutor(200) as pool:
        slow = [pool.submit((one.path / f"slow/{n}").read_bytes) for n in range(200)]
        one.await_calls("read", 200)
        assert (one.path / "fast").read_bytes() == b"fast"
        listed = subprocess.run(["ls", "-l", one.path / "slow"], capture_output=True, text=True, timeout=20, check=True)
        assert len(listed.stdout.splitlines()) == 301
        assert not any(promise.done() for promise in slow)
        one.ask("release")
        assert [promise.result(20) for promise in slow] == [pattern(5000, n) for n in range(200)]


def test_stalled_read_ahead_leaves_other_reads_alone() -> None:
    with mounted(stalling) as one:
        held = [os.open(one.path / f"slow/{n}", os.O_RDONLY) for n in range(300)]
        for fd in held:
            os.posix_fadvise(fd, 0, 5000, os.POSIX_FADV_WILLNEED)
        assert (one.path / "other").read_bytes() == b"other"
        assert one.calls("read") >= 301
        one.ask("release")
        for fd in held:
            os.close(fd)


def test_more_page_faults_than_anybody_counts_on_all_get_their_bytes(driver: str) -> None:
    size = 8 << 20
    with mounted(lambda: _slow_file(size), driver) as one:
        command = [sys.executable, "-c", FAULTS, one.path / "weights", str(size)]
        runs = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(6)]
        assert [run.communicate(timeout=60)[0] for run in runs] == ["right\n"] * 6


def _slow_file(size: int) -> MemoryFs:
    fs = MemoryFs({"weights": pattern(size)})
    fs.later = {"read"}
    return fs


ERRNOS = {
    errors.AccessDenied: errno.EACCES,
    errors.ContentChanged: errno.ESTALE,
    errors.RemoteUnavailable: errno.EIO,
    errors.ProtocolError: errno.EIO,
    errors.IntegrityError: errno.EIO,
    errors.Stalled: errno.ETIMEDOUT,
    errors.Unsupported: errno.EOPNOTSUPP,
    ZeroDivisionError: errno.EIO,
}


def failing() -> MemoryFs:
    fs = MemoryFs({kind.__name__: b"bytes" for kind in ERRNOS} | {"good": b"good"})
    fs.errors = {("read", kind.__name__): kind("on command") for kind in ERRNOS}
    return fs


@pytest.mark.parametrize("later", [[], ["read"]], ids=["now", "later"])
def test_a_failed_read_has_the_errno_of_its_error_and_is_noted_once(driver: str, later: list[str]) -> None:
    with mounted(failing, driver) as one:
        one.set("later", later)
        for kind, number in ERRNOS.items():
            fd = os.open(one.path / kind.__name__, os.O_RDONLY | os.O_DIRECT)
            with pytest.raises(OSError) as caught:  # noqa: PT011 -- the errno is asserted on
                os.read(fd, 4096)
            os.close(fd)
            assert caught.value.errno == number, kind
        assert (one.path / "good").read_bytes() == b"good"
        assert sorted(name for _, _, name in one.ask("failures")) == sorted(kind.__name__ for kind in ERRNOS)


class Babbling(MemoryFs):
    """Answers reads with more than was asked for."""

    def read(self, node: int, offset: int, size: int) -> bytes:
        return bytes(size + 1)


def test_a_reply_that_the_kernel_refuses_is_an_error_and_not_a_hang() -> None:
    with mounted(lambda: Babbling({"f": b"x" * 5000, "d/g": b""})) as one:
        with pytest.raises(OSError, match="Input/output"):
            (one.path / "f").read_bytes()
        assert os.listdir(one.path / "d") == ["g"]


def unreachable() -> MemoryFs:
    fs = MemoryFs({"there": b"bytes"})
    fs.errors = {("lookup", "there"): errors.RemoteUnavailable("the hub is gone")}
    return fs


def test_a_lost_network_is_never_remembered_as_a_missing_file(driver: str) -> None:
    with mounted(unreachable, driver) as one:
        with pytest.raises(OSError, match="Input/output"):
            os.stat(one.path / "there")
        assert one.ask("failures")[0][1:] == ["lookup", "RemoteUnavailable"]
        one.ask("set errors []")
        assert (one.path / "there").read_bytes() == b"bytes"


def test_an_interrupted_reader_leaves_the_mount_working(driver: str) -> None:
    with mounted(stalling, driver) as one:
        reader = subprocess.Popen(["cat", one.path / "slow/1"], stdout=subprocess.DEVNULL)
        one.await_calls("read", 1)
        reader.send_signal(signal.SIGKILL)
        assert reader.wait(20) == -signal.SIGKILL
        one.ask("release")
        assert (one.path / "fast").read_bytes() == b"fast"
        assert (one.path / "slow/1").read_bytes() == pattern(5000, 1)


@pytest.mark.parametrize("supervised", [False, True])
def test_unmounting_ends_the_holder(supervised: bool, tmp_path: Path) -> None:
    with mounted(tree, path=tmp_path, supervised=supervised) as one:
        assert (one.path / "small.txt").read_bytes() == b"hello\n"
        subprocess.run([*UNMOUNT, tmp_path], check=True, timeout=20)
        assert one.wait(10) == 0
        assert os.listdir(tmp_path) == []


def test_as_many_misses_as_libfuse_has_threads_leave_listings_alone() -> None:
    with mounted(stalling, "libfuse") as one, ThreadPoolExecutor(40) as pool:
        slow = [pool.submit((one.path / f"slow/{n}").read_bytes) for n in range(40)]
        one.await_calls("read", 40)
        assert len(os.listdir(one.path / "slow")) == 300
        one.ask("release")
        assert [promise.result(20) for promise in slow] == [pattern(5000, n) for n in range(40)]


def test_sigterm_ends_libfuse_too(tmp_path: Path) -> None:
    with mounted(tree, "libfuse", tmp_path) as one:
        os.listdir(tmp_path)  # libfuse loses a signal that comes between its start and its wait
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait(10) == 0
        assert os.listdir(tmp_path) == []


def test_many_threads_reading_later_answers_never_mix_them_up(driver: str) -> None:
    files = {f"f{n}": pattern(20_000, n) for n in range(60)}

    def build() -> MemoryFs:
        fs = MemoryFs(files)
        fs.later = {"read", "lookup"}
        return fs

    wrong: list[str] = []
    with mounted(build, driver) as one:

        def check(names: list[str]) -> None:
            wrong.extend(name for name in names if (one.path / name).read_bytes() != files[name])

        threads = [threading.Thread(target=check, args=(sorted(files)[n::6],)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
