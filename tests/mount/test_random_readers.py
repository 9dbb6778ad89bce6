"""Readers in the manner of fsx: random places, every system call, many descriptors, against the truth."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import fsx
from support.hubs import hub
from support.kinds import DIRECTORIES, aim
from support.repos import write_files

from dagfs.devhub.behaviour import Fault

PLACES = tuple(f"{where}/" for wheres in DIRECTORIES.values() for where in wheres)
SEED = int(os.environ.get("DAGFS_TEST_SEED") or random.randrange(1 << 30))
"""Printed by every reader; DAGFS_TEST_SEED repeats it."""


def start_fsx(seed: int, operations: int, mount: Path, truth: Path) -> subprocess.Popen[str]:
    command = [sys.executable, fsx.__file__, str(seed), str(operations), mount, truth]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_all(readers: list[subprocess.Popen[str]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        for reader in readers:
            told, _ = reader.communicate(timeout=max(1.0, deadline - time.monotonic()))
            assert reader.returncode == 0, told
            assert "operations" in told
    finally:
        for reader in readers:
            reader.kill()


@pytest.fixture(scope="module")
def truth(contents, tmp_path_factory):
    root = tmp_path_factory.mktemp("truth")
    write_files(root, {path: data for path, data in contents.files.items() if path.startswith(PLACES)})
    return root


def now_and_then(request):
    """A hub on a bad day: one answer in seven is cut, reset or refused."""
    if aim(request)[0] != "raw" or request.number % 7:
        return None
    faults = (Fault(cut_after=50_000), Fault(reset_after=1), Fault(status=503))
    return faults[len(request.path) % len(faults)]


def test_random_reads_in_every_way_are_true(contents, truth, home, tmp_path, driver):
    with (
        hub(contents.path, storages=contents.storages) as url,
        home.mounted(url, tmp_path / "data", "--driver", driver) as data,
    ):
        end_all([start_fsx(SEED + n, 800, data, truth) for n in range(2)], 60)


@pytest.mark.parametrize("limit", ["20MB", "1MB"])
def test_random_reads_are_true_while_the_cache_evicts_and_the_hub_fails(contents, truth, home, tmp_path, limit):
    with (
        hub(contents.path, storages=contents.storages, fault=now_and_then) as url,
        home.mounted(url, tmp_path / "data", "--cache-size", limit) as data,
    ):
        end_all([start_fsx(SEED + n, 300, data, truth) for n in range(3)], 80)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("limit", ["1GB", "20MB"])
def test_long_random_reads_are_true(contents, truth, home, tmp_path, driver, limit):
    with (
        hub(contents.path, storages=contents.storages, fault=now_and_then) as url,
        home.mounted(url, tmp_path / "data", "--driver", driver, "--cache-size", limit) as data,
    ):
        end_all([start_fsx(SEED + n, 5_000, data, truth) for n in range(4)], 500)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_long_random_reads_are_true_while_workers_die(contents, truth, home, tmp_path):
    """A worker every 20 s: more often is the supervisor's own test."""
    with (
        hub(contents.path, storages=contents.storages, fault=now_and_then) as url,
        home.mounted(url, tmp_path / "data", "--cache-size", "20MB") as data,
    ):
        readers = [start_fsx(SEED + n, 4_000, data, truth) for n in range(4)]
        killed = 0
        while any(reader.poll() is None for reader in readers) and killed < 12:
            time.sleep(20 if killed else 2)
            for worker in home.status()[0]["workers"]:
                os.kill(worker, signal.SIGKILL)
                killed += 1
        assert killed
        end_all(readers, 300)


def test_the_reader_finds_a_single_wrong_byte(contents, truth, tmp_path):
    """It is worth nothing else."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", truth, copy], check=True)
    for path in copy.rglob("*.bin"):
        if path.stat().st_size:
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(path.stat().st_size // 2)
                file.write(bytes([byte ^ 1]))
    reader = start_fsx(1, 400, copy, truth)
    told, _ = reader.communicate(timeout=60)
    assert reader.returncode == 1
    assert "different from" in told
