"""Nothing grows for ever: memory, threads and descriptors of the daemon under readers that want everything at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.hubs import hub
from support.repos import big_directory, commit_all, new_repository, write_files

MiB = 1 << 20
PEAK = 300 * MiB
"""Bytes that a worker may have resident at its peak, whatever is read: as docs/semantics.md promises."""

READ_ALL = """
import os, random, sys
paths = [os.path.join(d, n) for d, _, names in os.walk(sys.argv[1]) for n in names]
random.Random(int(sys.argv[2])).shuffle(paths)
for path in paths:
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
"""


def worker(home) -> psutil.Process:
    return psutil.Process(home.status()[0]["workers"][0])


def peak_bytes(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """300 MB: large files, files of the most that is kept whole, and small ones."""
    root = new_repository(tmp_path_factory.mktemp("mixed") / "repo")
    block = os.urandom(MiB)
    for number in range(4):
        write_files(root, {f"large/{number}.bin": b"".join([block, bytes([number]), block * 31])})
    for number in range(16):
        write_files(root, {f"middle/{number}.bin": bytes([number]) + block * 7})
    write_files(root, {f"small/{number}.bin": block[:50_000] + b"%d" % number for number in range(400)})
    commit_all(root, "mixed")
    return root


@pytest.mark.parametrize("limit", ["1GB", "10MB"])
def test_eight_readers_of_everything_leave_memory_threads_and_descriptors_bounded(mixed, home, tmp_path, limit):
    """Also where the cache keeps next to nothing, and what is read lives in memory alone."""
    with hub(mixed) as url, home.mounted(url, tmp_path / "data", "--cache-size", limit) as data:
        process = worker(home)
        threads, descriptors, over = [0], [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                threads.append(process.num_threads())
                descriptors.append(process.num_fds())

        watcher = threading.Thread(target=watch)
        watcher.start()
        readers = [subprocess.Popen([sys.executable, "-c", READ_ALL, data, str(seed)]) for seed in range(8)]
        try:
            deadline = time.monotonic() + 100
            statuses = [reader.wait(max(1.0, deadline - time.monotonic())) for reader in readers]
        finally:
            for reader in readers:
                reader.kill()
            over.set()
            watcher.join()
        assert statuses == [0] * 8
        assert peak_bytes(process) < PEAK
        assert max(threads) <= 64
        assert max(descriptors) <= 400


def test_names_that_are_looked_up_and_forgotten_cost_no_memory(home, tmp_path):
    """The kernel's FORGETs need no answer: what a node is follows from the listing, whoever asks and how often."""
    truth = big_directory(tmp_path / "repo", 2_000, per_directory=100, distinct=50)
    look = """
import os, sys
root, first = sys.argv[1], int(sys.argv[2])
directories = [row.path for row in os.scandir(root) if row.is_dir()]
for n in range(first, first + 40_000):
    try:
        os.stat(f"{directories[n % len(directories)]}/absent-{n}")
    except FileNotFoundError:
        continue
    raise SystemExit(1)
for directory in directories:
    for row in os.scandir(directory):
        row.stat()
"""
    with hub(truth.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        process = worker(home)
        sizes = []
        for turn in range(3):
            command = [sys.executable, "-c", look, data / "data", str(turn * 40_000)]
            subprocess.run(command, check=True, timeout=60)
            sizes.append(process.memory_info().rss)
    assert sizes[2] - sizes[0] < 4 * MiB, sizes
