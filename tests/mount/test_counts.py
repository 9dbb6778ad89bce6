"""What is asked of the hub and of the daemon, counted: requests, bytes, messages."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import asked
from support.hubs import VARIANTS, hub
from support.repos import big_directory, commit_all, dvc, new_repository, write_files

from dagfs.devhub.behaviour import Gzip

LARGE = 50 << 20


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """2,000 files in 50 directories."""
    return big_directory(tmp_path_factory.mktemp("many") / "repo", 2000, per_directory=40)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One file of 50 MiB in DVC and one of 10 MiB in git, with their bytes."""
    root = new_repository(tmp_path_factory.mktemp("large") / "repo")
    noise = random.Random(3)
    files = {"big.bin": noise.randbytes(LARGE), "git.bin": noise.randbytes(10 << 20)}
    write_files(root, files)
    dvc(root, "repo = Repo.init(); repo.add(['big.bin'])")
    commit_all(root, "large files")
    return root, files


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_walk_with_stat_asks_about_once_for_each_directory(many, home, tmp_path):
    walk = """
import os, sys
sizes = {}
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        sizes[path] = os.stat(path).st_size
print(sum(sizes.values()), len(sizes))
"""
    with hub(many.path) as url, home.mounted(url, tmp_path / "data") as data:
        total, count = map(int, run(walk, data).split())
        requests = asked(url)["requests"]
    assert count == len(many.files)
    assert total == sum(map(len, many.files.values()))
    directories = 54  # .dvc, the root, data and its 50, and one that is asked for again with sizes
    assert requests["listing"] <= directories + 5
    assert requests.get("raw", 0) <= 20


def test_each_file_costs_one_request_and_its_own_bytes(tmp_path, home):
    truth = big_directory(tmp_path / "repo", 300, size=2000)
    read = """
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    open(os.path.join(sys.argv[1], name), "rb").read()
"""
    with hub(truth.path) as url, home.mounted(url, tmp_path / "data") as data:
        run(read, data / "data")
        counted = asked(url)
    assert counted["requests"]["raw"] == 300
    assert counted["bytes"]["raw"] == sum(len(body) for path, body in truth.files.items() if path.startswith("data/"))


def test_a_warm_epoch_sends_the_daemon_nothing(many, home, tmp_path):
    read = """
import os, sys
for directory, _, names in sorted(os.walk(sys.argv[1])):
    for name in sorted(names):
        file = os.open(os.path.join(directory, name), os.O_RDONLY)
        while os.read(file, 1 << 16):
            pass
        os.close(file)
"""

    def messages():
        metrics = home.status()[0]["metrics"]
        return {name: count for name, count in metrics.items() if name.startswith("kernel.")}

    with hub(many.path) as url, home.mounted(url, tmp_path / "data") as data:
        run(read, data / "data")
        run(read, data / "data")  # the first time a listing is read again, the kernel may still ask for it
        epochs = []
        for _ in range(3):  # a kernel short of memory may have dropped a page or a name between two epochs
            before = messages()
            run(read, data / "data")
            epochs.append(sum(messages().values()) - sum(before.values()))
        assert 0 in epochs


def test_the_first_file_of_a_large_directory_does_not_wait_for_its_listing(tmp_path, home):
    truth = big_directory(tmp_path / "repo", 20_000)
    name = "data/013579.bin"
    with hub(truth.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        before = asked(url)
        assert (data / name).read_bytes() == truth.files[name]
        counted = asked(url)
    assert counted["bytes"]["listing"] - before["bytes"]["listing"] < 10_000
    assert counted["raw_paths"] == {name: 1}


@pytest.mark.parametrize("variant", VARIANTS)
def test_large_files_are_true_when_eight_processes_read_them_at_once(large, home, tmp_path, variant):
    root, files = large
    behaviour = VARIANTS[variant]
    read = """
import hashlib, os, random, sys
path, seed = sys.argv[1], int(sys.argv[2])
size = os.stat(path).st_size
noise = random.Random(seed)
file = os.open(path, os.O_RDONLY)
for _ in range(20):
    at = noise.randrange(size)
    print(at, hashlib.sha256(os.pread(file, 5000, at)).hexdigest())
if seed % 2:
    print(-1, hashlib.sha256(open(path, "rb").read()).hexdigest())
"""
    with hub(root, behaviour=behaviour) as url, home.mounted(url, tmp_path / "data") as data:
        for name, body in files.items():
            assert (data / name).stat().st_size == len(body)
            readers = [
                subprocess.Popen(
                    [sys.executable, "-c", read, data / name, str(seed)], stdout=subprocess.PIPE, text=True
                )
                for seed in range(8)
            ]
            for reader in readers:
                out, _ = reader.communicate(timeout=100)
                assert reader.returncode == 0
                for line in out.splitlines():
                    at, digest = line.split()
                    part = body if at == "-1" else body[int(at) : int(at) + 5000]
                    assert hashlib.sha256(part).hexdigest() == digest
        if behaviour.ranges and behaviour.gzip is not Gzip.ALWAYS:
            assert asked(url)["bytes"]["raw"] < 1.3 * sum(map(len, files.values()))


def test_one_byte_at_the_end_of_a_large_file_costs_little(large, home, tmp_path):
    root, files = large
    with hub(root) as url, home.mounted(url, tmp_path / "data") as data:
        os.listdir(data)
        os.stat(data / "big.bin")
        asked(url, reset=True)
        with open(data / "big.bin", "rb", buffering=0) as file:
            file.seek(LARGE - 1)
            assert file.read(1) == files["big.bin"][-1:]
        assert asked(url)["bytes"]["raw"] <= 1 << 20


def test_a_listing_of_540_000_entries_costs_less_than_100_bytes_each(tmp_path, home):
    entries = 540_000
    truth = big_directory(tmp_path / "repo", entries, distinct=100)

    def memory(field):
        (state,) = home.status()
        told = [Path(f"/proc/{pid}/status").read_text() for pid in state["workers"]]
        return sum(int(text.partition(field + ":")[2].split()[0]) << 10 for text in told)

    with hub(truth.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        os.listdir(data)
        before = memory("VmRSS")
        assert len(os.listdir(data / "data")) == entries
        assert memory("VmRSS") - before < 100 * entries
        assert memory("VmHWM") < 300 << 20
