"""The two drivers over one file system in memory, beside a local directory: microseconds for each operation.

    .venv/bin/python benchmarks/adapters.py [--rounds 3] [--files 2000]

Prints a Markdown table of medians. One client process; the driver runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.mounts import mounted

from dagfs.vfs.memory import MemoryFs

BODY = os.urandom(100_000)
CLIENT = """
import json, os, sys, time
root, names = sys.argv[1], ["%05d.bin" % i for i in range(int(sys.argv[2]))]
def each(work):
    started = time.perf_counter()
    for name in names:
        work(os.path.join(root, name))
    return (time.perf_counter() - started) / len(names) * 1e6
def read(path):
    file = os.open(path, os.O_RDONLY)
    assert len(os.read(file, 200_000)) == 100_000
    os.close(file)
def read_by_open(path):
    with open(path, "rb") as file:
        assert len(file.read()) == 100_000
print(json.dumps({
    "stat, first time": each(os.stat),
    "stat, again": each(os.stat),
    "read 100 KB, first time": each(read),
    "read 100 KB, again": each(read),
    "read 100 KB by open(), again": each(read_by_open),
}))
"""


def client(root: Path, files: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(root), str(files)], check=True, capture_output=True, timeout=200
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    names = [f"{i:05d}.bin" for i in range(options.files)]
    rounds: dict[str, list[dict[str, float]]] = {"local": [], "kernel": [], "libfuse": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as local:
            for name in names:
                Path(local, name).write_bytes(BODY)
            rounds["local"].append(client(Path(local), options.files))
        for driver in ("kernel", "libfuse"):
            with mounted(lambda: MemoryFs(dict.fromkeys(names, BODY)), driver) as mount:
                rounds[driver].append(client(mount.path, options.files))
    print(
        f"| us an operation, median of {options.rounds} | local | kernel driver | libfuse driver |\n|---|---|---|---|"
    )
    for work in rounds["local"][0]:
        row = (statistics.median(figures[work] for figures in measured) for measured in rounds.values())
        print(f"| {work} | " + " | ".join(f"{value:.1f}" for value in row) + " |")


if __name__ == "__main__":
    main()
