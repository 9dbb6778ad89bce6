"""How long after `dagfs mount` was typed a training loop has its first batch of 32 images.

    .venv/bin/python benchmarks/start.py [--rounds 5] [--latency-ms 20]

Prints a Markdown table of medians. The reader is a plain loop that runs already: its own start is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory

FILES, SIZE, BATCH = 300, 100_000, 32


def measure(root: Path, url: str) -> tuple[float, float, int]:
    """Give the seconds until the command returned and until the batch was read, and the hub's requests for both."""
    home, mountpoint = Home(root / "home"), root / "mount"
    mountpoint.mkdir()
    asked(url, reset=True)
    started = time.perf_counter()
    with home.mounted(url, mountpoint) as data:
        mounted = time.perf_counter() - started
        for name in sorted(os.listdir(data / "data"))[:BATCH]:
            assert len((data / "data" / name).read_bytes()) == SIZE
        batch = time.perf_counter() - started
        counted = asked(url)["requests"]
    return mounted, batch, sum(count for kind, count in counted.items() if kind != "own")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=20)
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        big_directory(Path(name) / "repository", FILES, size=SIZE)
        with hub(Path(name) / "repository", latency=options.latency_ms / 1000) as url:
            for number in range(options.rounds):
                (root := Path(name) / str(number)).mkdir()
                rounds.append(measure(root, url))
    mounted, batch, requests = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"| {options.latency_ms:g} ms to the hub, median of {options.rounds} | seconds |\n|---|---|")
    print(f"| `dagfs mount` has returned | {mounted:.2f} |")
    print(f"| 32 files of 100 KB were read | {batch:.2f} |")
    print(f"\n{requests:.0f} requests, those of guesses among them.")


if __name__ == "__main__":
    main()
