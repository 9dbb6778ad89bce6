"""What cached stats and reads cost while downloads run at full rate: nobody should wait for somebody else's bytes.

    .venv/bin/python benchmarks/busy.py [--rounds 3] [--mbps 1000]

Prints a Markdown table. What is timed is answered by the daemon, not by the kernel: each name is new to the mount, its
listing and its bytes are in the cache on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import workplace
from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory

SIZE, CACHED, COLD, WORKERS = 100_000, 2000, 6000, 8
READ = """
import os, sys
directory, first, last, step = sys.argv[1], *map(int, sys.argv[2:])
for number in range(first, last, step):
    with open(os.path.join(directory, f"{number:06d}.bin"), "rb", buffering=0) as file:
        assert len(file.read()) == 100_000
"""
PROBE = """
import json, os, sys, time
directory, count = sys.argv[1], int(sys.argv[2])
stats, reads = [], []
for number in range(count):
    path = os.path.join(directory, f"{number:06d}.bin")
    started = time.perf_counter()
    os.stat(path)
    stats.append(time.perf_counter() - started)
    file = os.open(path, os.O_RDONLY)
    started = time.perf_counter()
    assert len(os.read(file, 1 << 20)) == 100_000
    reads.append(time.perf_counter() - started)
    os.close(file)
    time.sleep(0.001)
print(json.dumps([stats, reads]))
"""


def start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True)


def probed(directory: Path) -> tuple[list[float], list[float]]:
    out, _ = start(PROBE, directory, CACHED).communicate(timeout=120)
    stats, reads = json.loads(out)
    return stats, reads


def measure(root: Path, url: str) -> dict[str, tuple[list[float], list[float], float]]:
    """Give the seconds of stats and of reads, and what was downloaded meanwhile in MB, idle and busy."""
    home, found = Home(root / "home"), {}
    with home.mounted(url, root / "mount", "--no-prefetch") as data:
        for reader in [start(READ, data / "data", first, CACHED, WORKERS) for first in range(WORKERS)]:
            assert reader.wait(300) == 0
    for name, workers in (("idle", 0), ("busy", WORKERS)):
        with home.mounted(url, root / "mount", "--no-prefetch") as data:
            os.listdir(data / "data")
            asked(url, reset=True)
            readers = [start(READ, data / "data", CACHED + n, CACHED + COLD, WORKERS) for n in range(workers)]
            stats, reads = probed(data / "data")
            ended = sum(reader.poll() is not None for reader in readers)
            for reader in readers:
                reader.terminate()
                reader.wait()
            assert not ended, "the downloads ended before the measurement"
            found[name] = stats, reads, asked(url)["bytes"].get("raw", 0) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbps", type=float, default=1000)
    options = parser.parse_args()
    rounds = []
    with workplace() as name:
        big_directory(Path(name) / "repository", CACHED + COLD, size=SIZE)
        with hub(Path(name) / "repository", bandwidth=options.mbps * 1e6 / 8) as url:
            for number in range(options.rounds):
                (root := Path(name) / str(number)).mkdir()
                rounds.append(measure(root, url))
    print(f"| {options.mbps:g} Mbit/s, median of {options.rounds}, ms | p50 | p99 | most | MB downloaded meanwhile |")
    print("|---|---|---|---|---|")
    for state in ("idle", "busy"):
        for what, column in (("stat", 0), ("read 100 KB", 1)):
            parts = [[*statistics.quantiles(one[state][column], n=100), max(one[state][column])] for one in rounds]
            p50, p99, most = (statistics.median(part[i] for part in parts) * 1000 for i in (49, 98, -1))
            moved = statistics.median(one[state][2] for one in rounds)
            print(f"| {what}, {state} | {p50:.2f} | {p99:.2f} | {most:.2f} | {moved:.0f} |")


if __name__ == "__main__":
    main()
