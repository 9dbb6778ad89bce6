"""What a newcomer feels: mount, list, walk, and read many small files once, at 20 ms to the hub.

    .venv/bin/python benchmarks/first_look.py [--rounds 3] [--latency-ms 20]

Prints a Markdown table: the median of the rounds for dagfs, with the requests that each piece of work cost.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import SIZE, medians, served, workplace
from report import Table, show
from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory

WALK = """
import os, sys
count = 0
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        count += os.stat(os.path.join(directory, name)).st_size > 0
assert count >= 2000, count
"""
READ = """
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    with open(os.path.join(sys.argv[1], name), "rb") as file:
        assert len(file.read()) == 100_000
"""

Figures = dict[str, list[tuple[float, int]]]  # work -> (seconds, requests) of each round


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def program(text: str, directory: Path) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", text, str(directory)], check=True, timeout=300)


def one_round(root: Path, latency: float, figures: Figures) -> None:
    """Do everything once, beginning with an empty cache."""
    home = Home(root / "home")

    def note(work: str, url: str, action: Callable[[], object]) -> None:
        asked(url, reset=True)
        taken = seconds(action)
        figures.setdefault(work, []).append((taken, served(url)[0]))

    with hub(root / "walk", latency=latency) as url:
        mountpoint = root / "mount"
        mountpoint.mkdir(exist_ok=True)
        note("`dagfs mount`, until it can be read", url, lambda: home.run("mount", url, mountpoint))
        listing = ["ls", "-la", mountpoint]
        note("`ls -la` of the fresh mount", url, lambda: subprocess.run(listing, check=True, stdout=subprocess.DEVNULL))
        note("walk and stat 2,000 files in 50 directories", url, program(WALK, mountpoint))
        note("walk and stat again", url, program(WALK, mountpoint))
        home.run("unmount", mountpoint)
    with hub(root / "read", latency=latency) as url:
        for name, options in (("", ()), (", no guesses (`--no-prefetch`)", ("--no-prefetch",))):
            home.run("cache", "clear")
            with home.mounted(url, root / "mount", *options) as data:
                note(f"read 300 files of 100 KB, one after another{name}", url, program(READ, data / "data"))
                if not options:
                    note("read them again", url, program(READ, data / "data"))
        with home.mounted(url, root / "mount") as data:
            note("read them after a remount", url, program(READ, data / "data"))


def measure(rounds: int = 3, latency_ms: float = 20) -> dict[str, Any]:
    figures: Figures = {}
    for _ in range(rounds):
        with workplace() as name:
            root = Path(name)
            big_directory(root / "walk", 2000, per_directory=40)
            big_directory(root / "read", 300, size=SIZE)
            one_round(root, latency_ms / 1000, figures)
    what = f"{latency_ms:g} ms to the hub, median of {rounds}"
    return {"rows": {work: medians(found) for work, found in figures.items()}, "what": what}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [[work, f"{taken:.2f}", f"{requests:.0f}"] for work, (taken, requests) in figures["rows"].items()]
    return [Table("first-look", "make bench PARTS=first_look", [figures["what"], "seconds", "requests"], rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
