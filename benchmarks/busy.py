"""What cached stats and reads cost while downloads run at full rate: nobody should wait for somebody else's bytes.

    .venv/bin/python benchmarks/busy.py [--rounds 3] [--mbps 200]

Prints a Markdown table. What is timed on a mount is answered by the daemon, not by the kernel: each name is new to the
mount, its listing and its bytes are in the cache on disk. The local disk's files are read from the disk, too, under
the same load: what waits there, waits for a core or the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import SIZE, say, workplace
from report import Table, show
from repositories import images, let_go, plain_copy
from support.commands import Home, asked
from support.hubs import hub

PROBED, COLD, WORKERS = 1000, 5000, 8
READ = """
import os, sys
directory, size, *numbers = sys.argv[1], *map(int, sys.argv[2:])
for number in range(*numbers):
    with open(os.path.join(directory, f"{number:06d}.bin"), "rb", buffering=0) as file:
        assert len(file.read()) == size
"""
PROBE = """
import json, os, sys, time
directory, size, *numbers = sys.argv[1], *map(int, sys.argv[2:])
stats, reads = [], []
for number in range(*numbers):
    path = os.path.join(directory, f"{number:06d}.bin")
    started = time.perf_counter()
    os.stat(path)
    stats.append(time.perf_counter() - started)
    file = os.open(path, os.O_RDONLY)
    started = time.perf_counter()
    assert len(os.read(file, size)) == size
    reads.append(time.perf_counter() - started)
    os.close(file)
    time.sleep(0.001)
print(json.dumps([stats, reads]))
"""

Quantiles = list[float]
"""Seconds: the median, what 99 of 100 stay within, and the longest."""


def start(program: str, directory: Path, *numbers: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", program, str(directory), str(SIZE), *map(str, numbers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def probed(directory: Path, first: int) -> tuple[Quantiles, Quantiles]:
    """Give the quantiles of stats and of reads."""
    out, _ = start(PROBE, directory, first, first + PROBED, 1).communicate(timeout=120)
    stats, reads = ([*statistics.quantiles(times, n=100), max(times)] for times in json.loads(out))
    return [stats[i] for i in (49, 98, -1)], [reads[i] for i in (49, 98, -1)]


@contextmanager
def downloads(data: Path, first: int) -> Iterator[None]:
    """Have workers read files that nobody has read before, for the length of a block."""
    readers = [start(READ, data, first + n, first + COLD, WORKERS) for n in range(WORKERS)]
    try:
        yield
        assert all(reader.poll() is None for reader in readers), "the downloads ended before the measurement"
    finally:
        for reader in readers:
            reader.terminate()
            reader.wait()


def one_round(root: Path, url: str) -> dict[str, Any]:
    home, found = Home(root / "home"), {}
    local = root / "local/data"
    with home.mounted(url, root / "mount", "--no-prefetch") as data:
        warm = [start(READ, data / "data", first, 3 * PROBED, WORKERS) for first in range(WORKERS)]
        statuses = [reader.wait(300) for reader in warm]
        assert not any(statuses)
    os.sync()
    with home.mounted(url, root / "mount", "--no-prefetch") as data:
        os.listdir(data / "data")
        found["mount, idle"] = probed(data / "data", 0)
        asked(url, reset=True)
        with downloads(data / "data", 3 * PROBED):
            found["mount, busy"] = probed(data / "data", PROBED)
            found["MB downloaded meanwhile"] = asked(url)["bytes"].get("raw", 0) / 1e6
        for number in range(PROBED):
            let_go(local / f"{number:06d}.bin")
        with downloads(data / "data", 3 * PROBED + COLD):
            found["local disk, busy"] = probed(local, 0)
    return found


def measure(rounds: int = 3, mbps: float = 200) -> dict[str, Any]:
    made = []
    with workplace() as name:
        names = images(Path(name) / "repository", 3 * PROBED + 2 * COLD, SIZE)
        with hub(Path(name) / "repository", bandwidth=mbps * 1e6 / 8) as url:
            for number in range(rounds):
                say(f"busy: round {number + 1}")
                (root := Path(name) / str(number)).mkdir()
                plain_copy(Path(name) / "repository", root / "local", names[:PROBED], SIZE)
                made.append(one_round(root, url))
    states = [state for state in made[0] if "," in state]
    rows = {
        f"{what}, {state}": [statistics.median(one[state][column][i] for one in made) for i in range(3)]
        for state in states
        for column, what in enumerate(("stat", "read"))
    }
    moved = statistics.median(one["MB downloaded meanwhile"] for one in made)
    return {"what": f"ms; {mbps:g} Mbit/s, median of {rounds}", "rows": rows, "moved": moved}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [[name, *(f"{seconds * 1000:.2f}" for seconds in row)] for name, row in figures["rows"].items()]
    head = [figures["what"], "half within", "99 of 100 within", "longest"]
    notes = [f"{WORKERS} readers downloaded {figures['moved']:.0f} MB while the mount was probed."]
    return [Table("busy", "make bench PARTS=busy", head, rows, notes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbps", type=float, default=200)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
