"""Large files that the kernel reads by itself: `dagfs mount --passthrough`, root and Linux 6.9 or later."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from support.hubs import hub
from support.repos import commit_all, dvc, new_repository, write_files

SIZE = (20 << 20) + 12345
KERNEL = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may let the kernel read by itself"),
    pytest.mark.skipif(KERNEL < (6, 9), reason="Linux 6.9 has passthrough first"),
]
BODY = random.Random(5).randbytes(SIZE)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    root = new_repository(tmp_path_factory.mktemp("large") / "repo")
    write_files(root, {"model.bin": BODY, "other.bin": BODY[::-1], "small.bin": BODY[:100_000]})
    dvc(root, "repo = Repo.init(); repo.add(['model.bin', 'other.bin', 'small.bin'])")
    commit_all(root, "large files")
    with hub(root) as running:
        yield running


@pytest.fixture
def warm(url, home, tmp_path):
    """A home whose cache has all files."""
    with home.mounted(url, tmp_path / "data") as data:
        home.run("warm", data)
    return home


def reads(home) -> int:
    return home.status()[0]["metrics"].get("kernel.read", 0)


def test_a_large_cached_file_is_read_without_a_message(url, warm, tmp_path):
    with warm.mounted(url, tmp_path / "data", "--passthrough") as data:
        for _ in range(2):
            assert (data / "model.bin").read_bytes() == BODY
        with open(data / "model.bin", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
            assert seen[-100:] == BODY[-100:]
        assert reads(warm) == 0
        assert (data / "small.bin").read_bytes() == BODY[:100_000]
        assert reads(warm) > 0


def test_a_file_that_becomes_whole_while_it_is_open_stays_with_the_daemon_until_it_is_closed(url, home, tmp_path):
    with home.mounted(url, tmp_path / "data", "--passthrough") as data:
        with open(data / "model.bin", "rb", buffering=0) as first:
            assert first.read(10) == BODY[:10]
            assert (data / "model.bin").read_bytes() == BODY
            assert (data / "model.bin").read_bytes() == BODY
        home.run("warm", data)
        before = reads(home)
        assert (data / "model.bin").read_bytes() == BODY
        assert reads(home) == before


@pytest.mark.parametrize("how", ["killed", "renewed"])
def test_what_is_open_past_the_daemon_survives_its_worker_and_the_cache(url, warm, tmp_path, how):
    with (
        warm.mounted(url, tmp_path / "data", "--passthrough") as data,
        open(data / "model.bin", "rb", buffering=0) as held,
    ):
        assert held.read(1000) == BODY[:1000]
        report = warm.status()[0]
        (worker,) = report["workers"]
        if how == "killed":
            os.kill(worker, signal.SIGKILL)
        else:
            os.kill(report["pid"], signal.SIGUSR2)
            while warm.status()[0]["generation"] == 1:
                time.sleep(0.05)
        assert held.read(1000) == BODY[1000:2000]
        assert (data / "model.bin").read_bytes() == BODY  # by the new worker, the same way as it is open
        assert (data / "other.bin").read_bytes() == BODY[::-1]
        warm.run("cache", "clear", check=False)
        assert os.pread(held.fileno(), 1000, SIZE - 1000) == BODY[-1000:]
        assert (data / "other.bin").read_bytes() == BODY[::-1]


def test_eight_programs_that_open_and_close_see_no_error(url, home, tmp_path):
    """The kernel answers EIO to who mixes both ways to read."""
    program = """
import os, random, sys
noise = random.Random(int(sys.argv[1]))
for _ in range(200):
    name = noise.choice(["model.bin", "other.bin", "small.bin"])
    size = 100_000 if name == "small.bin" else int(sys.argv[3])
    file = os.open(os.path.join(sys.argv[2], name), os.O_RDONLY)
    assert len(os.pread(file, 5000, noise.randrange(size - 5000))) == 5000
    os.close(file)
"""
    with home.mounted(url, tmp_path / "data", "--passthrough") as data:
        readers = [subprocess.Popen([sys.executable, "-c", program, str(n), data, str(SIZE)]) for n in range(8)]
        assert [reader.wait(60) for reader in readers] == [0] * 8
        home.run("warm", data)
        deadline = time.monotonic() + 20
        before = reads(home)
        while time.monotonic() < deadline:
            assert (data / "model.bin").read_bytes() == BODY
            if reads(home) == before:
                break
            before = reads(home)
        assert time.monotonic() < deadline, "the file is never read past the daemon"
