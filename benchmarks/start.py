"""How long after `dagfs mount` was typed a training loop has its first batch of 32 images.

    .venv/bin/python benchmarks/start.py [--rounds 5] [--latency-ms 20]

Prints a Markdown table of medians. The reader is a plain loop that runs already: its own start is not counted.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from measuring import SIZE, medians, served, workplace
from report import Table, show
from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory

FILES, BATCH = 300, 32


def one_round(root: Path, url: str) -> tuple[float, float, int]:
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
        return mounted, batch, served(url)[0]


def measure(rounds: int = 5, latency_ms: float = 20) -> dict[str, Any]:
    found = []
    with workplace() as name:
        big_directory(Path(name) / "repository", FILES, size=SIZE)
        with hub(Path(name) / "repository", latency=latency_ms / 1000) as url:
            for number in range(rounds):
                (root := Path(name) / str(number)).mkdir()
                found.append(one_round(root, url))
    mounted, batch, requests = medians(found)
    what = f"{latency_ms:g} ms to the hub, median of {rounds}"
    return {"mounted": mounted, "batch": batch, "requests": requests, "what": what}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [
        ["`dagfs mount` has returned", f"{figures['mounted']:.2f}"],
        [f"{BATCH} files of 100 KB were read", f"{figures['batch']:.2f}"],
    ]
    note = f"{figures['requests']:.0f} requests, those of guesses among them."
    return [Table("start", "make bench PARTS=start", [figures["what"], "seconds"], rows, [note])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
