"""What a warm epoch costs beside the same epoch on the local disk, and what the daemon pays for a cold one.

    .venv/bin/python benchmarks/warm.py [--rounds 3] [--files 2000]

Prints Markdown tables. Root drops the page cache where "cold disk" is said; others skip those rows, and are told.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.commands import Home
from support.hubs import hub
from support.repos import big_directory

SIZE = 100_000
READER = """
import os, sys, time
directory, workers, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
names = sorted(os.listdir(directory))
def by_descriptor(path):
    descriptor = os.open(path, os.O_RDONLY)
    size = len(os.read(descriptor, 1 << 20))
    os.close(descriptor)
    return size
def by_open(path):
    with open(path, "rb") as file:
        return len(file.read())
read = {"os.read": by_descriptor, "open()": by_open}[how]
started = time.perf_counter()
children = []
for worker in range(workers):
    pid = os.fork()
    if not pid:
        os._exit(any(read(os.path.join(directory, name)) != 100_000 for name in names[worker::workers]))
    children.append(pid)
failed = any(os.waitpid(pid, 0)[1] for pid in children)
print(time.perf_counter() - started)
sys.exit(failed)
"""
DROP = Path("/proc/sys/vm/drop_caches")
TICKS = os.sysconf("SC_CLK_TCK")


def seconds(directory: Path, workers: int = 1, how: str = "os.read") -> float:
    words = [sys.executable, "-c", READER, str(directory), str(workers), how]
    return float(subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout)


def drop_caches() -> None:
    os.sync()
    DROP.write_text("3")


def cached_bytes() -> int:
    """Give the page cache's size."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["Cached"].split()[0]) * 1024


def spent(home: Home) -> tuple[float, float]:
    """Give the seconds of user and system time that a mount's processes have used."""
    (state,) = home.status()
    fields = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in {state["pid"], *state["workers"]}
    ]
    return sum(int(row[11]) for row in fields) / TICKS, sum(int(row[12]) for row in fields) / TICKS


def measure(root: Path, url: str, rows: dict[str, list[tuple[float, float]]], cpu: list[tuple[float, float]]) -> None:
    """One round: rows get (local seconds, mount's seconds) of each piece of work."""
    home, local = Home(root / "home"), root / "local"
    with home.mounted(url, root / "mount") as data:
        before = spent(home)
        seconds(data / "data")
        cpu.append(tuple(after - then for after, then in zip(spent(home), before, strict=True)))
        if not local.exists():
            shutil.copytree(data / "data", local)
        seconds(local)
        for how, workers in (("os.read", 1), ("os.read", 8), ("open()", 1)):
            title = f"page cache, {how}, {workers} process{'es' if workers > 1 else ''}"
            rows.setdefault(title, []).append((seconds(local, workers, how), seconds(data / "data", workers, how)))
    if os.geteuid() == 0:
        drop_caches()
        on_disk = seconds(local)
        drop_caches()
        with home.mounted(url, root / "mount") as data:
            os.listdir(data / "data")
            drop_caches()
            before_bytes = cached_bytes()
            taken = seconds(data / "data")
            copies = (cached_bytes() - before_bytes) / (SIZE * len(os.listdir(local)))
        rows.setdefault("remount, cold disk, 1 process", []).append((on_disk, taken))
        rows.setdefault("copies in memory", []).append((1.0, copies))
    shutil.rmtree(root / "home")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {}
    cpu: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        big_directory(Path(name) / "repository", options.files, size=SIZE)
        with hub(Path(name) / "repository") as url:
            for _ in range(options.rounds):
                measure(Path(name), url, rows, cpu)
    print(f"| {options.files} files of 100 KB, median of {options.rounds} | local, s | dagfs, s | rate of local's |")
    print("|---|---|---|---|")
    for title, rounds in rows.items():
        local, mount = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {title} | {local:.3f} | {mount:.3f} | {local / mount:.2f} |")
    if os.geteuid():
        print("\nThe rows of a cold disk need root, who may drop the page cache.")
    user, system = (statistics.median(column) * 1000 / options.files for column in zip(*cpu, strict=True))
    print(
        f"\nDaemon's CPU for 1,000 cold files, no latency: {user + system:.2f} s, {system:.2f} of them in the kernel."
    )


if __name__ == "__main__":
    main()
