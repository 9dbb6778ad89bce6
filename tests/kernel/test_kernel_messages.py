"""How many messages the kernel sends: what is asked once is never asked again. Kernel driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from support.mounts import Mounted, mounted
from support.trees import FILES

from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount


def _read(path: str | os.PathLike[str]) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def _sent(one: Mounted, before: dict[str, int]) -> dict[str, int]:
    return dict(Counter(one.counts()) - Counter(before))


def test_a_warm_read_by_descriptor_sends_nothing(kernel: Mounted) -> None:
    first = _read(kernel.path / "images/a.bin")
    before = kernel.counts()
    for _ in range(20):
        assert _read(kernel.path / "images/a.bin") == first == FILES["images/a.bin"]
        os.stat(kernel.path / "images/a.bin")
    assert _sent(kernel, before) == {}


def test_a_warm_open_in_python_sends_one_ioctl(kernel: Mounted) -> None:
    (kernel.path / "images/a.bin").read_bytes()
    before = kernel.counts()
    with open(kernel.path / "images/a.bin", "rb") as file:
        assert file.read() == FILES["images/a.bin"]
    assert _sent(kernel, before) == {"ioctl": 1}


def test_a_file_of_100_kb_is_read_by_one_message(kernel: Mounted) -> None:
    _read(kernel.path / "small.txt")
    before = kernel.counts()
    assert _read(kernel.path / "images/a.bin") == FILES["images/a.bin"]
    assert _sent(kernel, before) == {"lookup": 2, "read": 1}


def test_an_absent_name_is_asked_for_once(kernel: Mounted) -> None:
    assert not (kernel.path / "images/absent").exists()
    before = kernel.counts()
    for _ in range(10):
        assert not (kernel.path / "images/absent").exists()
    assert _sent(kernel, before) == {}


def test_opening_directories_and_files_is_asked_for_once_per_mount(kernel: Mounted) -> None:
    for folder in ("images", "odd", "hollow", "images/deep"):
        os.listdir(kernel.path / folder)
    for name in FILES:
        _read(kernel.path / name)
    counts = kernel.counts()
    assert (counts["open"], counts["opendir"], counts["flush"]) == (1, 1, 1)
    assert counts.get("release", 0) == counts.get("releasedir", 0) == 0


def test_a_second_listing_and_a_second_ls_l_send_nothing(kernel: Mounted) -> None:
    command = ["ls", "-lR", kernel.path]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    before = kernel.counts()
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    sent = _sent(kernel, before)
    assert set(sent) <= {"getxattr", "listxattr"}, sent  # ls asks for the ACL of one file on each device
    assert sum(sent.values()) <= 4


def test_a_second_readlink_sends_nothing(kernel: Mounted) -> None:
    os.readlink(kernel.path / "link")
    before = kernel.counts()
    assert os.readlink(kernel.path / "link") == "small.txt"
    assert _sent(kernel, before) == {}


WIDE = 100_000


def wide(count: int = WIDE) -> MemoryFs:
    return MemoryFs({f"wide/{number:06d}.jpg": b"" for number in range(count)})


def test_a_directory_of_100_000_entries_is_listed_in_full() -> None:
    with mounted(wide) as one:
        assert sorted(os.listdir(one.path / "wide")) == [f"{number:06d}.jpg" for number in range(WIDE)]
        counts = one.counts()
        assert counts.get("readdir", 0) + counts.get("readdirplus", 0) < 1100  # 4 KiB each on older kernels
        assert one.calls("lookup") == 1


def test_a_walk_that_stats_every_entry_gets_the_attributes_with_the_listing() -> None:
    count = 30_000
    with mounted(lambda: wide(count)) as one:
        with os.scandir(one.path / "wide") as entries:
            assert sum(entry.stat().st_nlink for entry in entries) == count
        assert one.calls("lookup") < 2000  # the rest of the first, plain batch
        assert sum(one.counts().values()) < count / 10


SEEK = """
import ctypes, os, random, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir64.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir64.argtypes = libc.telldir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
stream = libc.opendir(os.fsencode(sys.argv[1]))

def following():
    entry = libc.readdir64(stream)
    return ctypes.string_at(entry + 19) if entry else None

marks = []
while True:
    place = libc.telldir(stream)
    name = following()
    marks.append((place, name))
    if name is None:
        break
random.Random(1).shuffle(marks)
for place, name in marks[:2000]:
    libc.seekdir(stream, place)
    assert following() == name, (place, name)
libc.rewinddir(stream)
names = []
while (name := following()) is not None:
    names.append(name)
assert len(names) == len(set(names)) == len(marks) - 1
print(len(names))
"""


def test_seeking_in_a_directory_comes_back_to_the_same_entry(driver: str) -> None:
    count = 3000
    with mounted(lambda: MemoryFs({f"wide/{n:05d}": b"" for n in range(count)}), driver) as one:
        done = subprocess.run(
            [sys.executable, "-c", SEEK, one.path / "wide"], capture_output=True, text=True, timeout=60
        )
        assert (done.stderr, done.stdout) == ("", f"{count + 2}\n")


def unsized() -> MemoryFs:
    fs = MemoryFs({f"d/{n}": b"x" * n for n in range(50)})
    fs.sizes_known = False
    return fs


def test_sizes_that_a_listing_does_not_know_are_asked_for_by_lookup() -> None:
    with mounted(unsized) as one:
        assert {entry.name: entry.stat().st_size for entry in os.scandir(one.path / "d")} == {
            str(n): n for n in range(50)
        }
        assert one.calls("lookup") >= 50


def test_sizes_that_a_listing_knows_cost_no_lookup() -> None:
    with mounted(lambda: MemoryFs({f"d/{n}": b"x" * n for n in range(50)})) as one:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(one.path / "d")}
        assert sizes == {str(n): n for n in range(50)}
        assert one.calls("lookup") == 1  # the directory itself
