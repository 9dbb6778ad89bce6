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


def resident(home, field: str) -> int:
    """Give the bytes that the kernel counts for a mount's workers in /proc/PID/status."""
    told = [Path(f"/proc/{pid}/status").read_text() for pid in home.status()[0]["workers"]]
    return sum(int(text.partition(field + ":")[2].split()[0]) << 10 for text in told)


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


def test_two_columns_of_each_row_group_do_not_fetch_the_file(large, home, tmp_path):
    """As load_dataset('parquet') reads: 200 KB, and 200 KB of it 800 KB on, in each 5 MB; 4 MB of 50."""
    root, files = large
    read = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
for group in range(0, 50 * 1_000_000, 5_000_000):
    for column in (group, group + 800_000):
        for at in range(column, column + 200_000, 50_000):
            print(at, os.pread(file, 50_000, at)[:16].hex())
"""
    with hub(root) as url, home.mounted(url, tmp_path / "data") as data:
        os.stat(data / "big.bin")
        asked(url, reset=True)
        for at, begins in (line.split() for line in run(read, data / "big.bin").splitlines()):
            assert bytes.fromhex(begins) == files["big.bin"][int(at) : int(at) + 16]
        assert asked(url)["bytes"]["raw"] < 20 << 20  # blocks of 256 KiB, and what the kernel reads ahead


def test_a_listing_of_540_000_entries_costs_less_than_100_bytes_each(tmp_path, home):
    entries = 540_000
    truth = big_directory(tmp_path / "repo", entries, distinct=100)

    with hub(truth.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        os.listdir(data)
        before = resident(home, "VmRSS")
        assert len(os.listdir(data / "data")) == entries
        assert resident(home, "VmRSS") - before < 100 * entries
        assert resident(home, "VmHWM") < 300 << 20


def test_a_shuffled_epoch_asks_once_for_each_file(tmp_path, home):
    truth = big_directory(tmp_path / "repo", 400, size=20_000, distinct=400)
    read = """
import os, random, sys
names = os.listdir(sys.argv[1])
random.Random(4).shuffle(names)
for name in names:
    assert len(open(os.path.join(sys.argv[1], name), "rb").read()) == 20_000
"""
    with hub(truth.path, latency=0.005) as url, home.mounted(url, tmp_path / "data") as data:
        run(read, data / "data")
        counted = asked(url)
    assert counted["requests"]["raw"] == 400
    assert counted["bytes"]["raw"] == 400 * 20_000


def test_find_asks_once_for_each_directory(many, home, tmp_path):
    with hub(many.path) as url, home.mounted(url, tmp_path / "data") as data:
        before = asked(url)["requests"]["listing"]
        for _ in range(2):
            found = subprocess.run(["find", data / "data", "-type", "f"], capture_output=True, timeout=60, check=True)
            assert found.stdout.count(b"\n") == 2000
        assert asked(url)["requests"]["listing"] - before == 51


def test_page_faults_of_eight_programs_at_random_places_fetch_each_block_once(large, home, tmp_path):
    root, files = large
    touch = """
import mmap, random, sys
noise = random.Random(int(sys.argv[2]))
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
    seen.madvise(mmap.MADV_RANDOM)
    for _ in range(400):
        at = noise.randrange(len(seen) - 16)
        print(at, seen[at : at + 16].hex())
"""
    with hub(root) as url, home.mounted(url, tmp_path / "data") as data:
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", touch, data / "big.bin", str(seed)], stdout=subprocess.PIPE, text=True
            )
            for seed in range(8)
        ]
        for program in programs:
            out, _ = program.communicate(timeout=100)
            assert program.returncode == 0
            for at, read in (line.split() for line in out.splitlines()):
                assert bytes.fromhex(read) == files["big.bin"][int(at) : int(at) + 16]
        assert asked(url)["bytes"]["raw"] <= 1.05 * LARGE
        assert resident(home, "VmHWM") < 300 << 20


def test_an_epoch_twice_the_size_of_the_cache_hits_on_what_fits(tmp_path, home):
    """Shuffled, three times; the pages are dropped in between, so that each read asks the daemon."""
    count, size = 600, 100_000
    truth = big_directory(tmp_path / "repo", count, size=size, distinct=count)
    read = """
import os, random, sys
names = sorted(os.listdir(sys.argv[1]))
random.Random(sys.argv[2]).shuffle(names)
for name in names:
    file = os.open(os.path.join(sys.argv[1], name), os.O_RDONLY)
    assert len(os.read(file, 1 << 20)) == 100_000
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
"""
    limit = count * size // 2
    with (
        hub(truth.path) as url,
        home.mounted(url, tmp_path / "data", "--cache-size", str(limit), "--no-prefetch") as data,
    ):
        hits = []
        for epoch in range(3):
            asked(url, reset=True)
            run(read, data / "data", epoch)
            hits.append(1 - asked(url)["requests"]["raw"] / count)
    assert hits[0] == 0
    assert min(hits[1:]) >= 0.9 * 0.5, hits
