"""Where the daemon's time goes: py-spy's samples of the worker, by the room of dagfs that was at work.

    .venv/bin/python benchmarks/where.py [--files 2000] [--one-directory 200000]

Prints a Markdown table. There is no latency and no limit of bandwidth: what is left is work. Needs py-spy, and root or
the right to trace.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import SIZE, Place, drop_caches, may_drop_caches, say, spent, workplace
from report import Table, show
from repositories import images
from support.commands import Home
from support.hubs import hub
from support.repos import big_directory

NEEDS = ("py-spy",)
PY_SPY = Path(sys.executable).parent / "py-spy"
RATE = 200  # samples a second
STARTS = 1.5  # seconds that py-spy takes to look at the process
WAITS = re.compile(r";(Condition\.wait|wait|Event\.wait) \(threading\.py:\d+\)$")  # py-spy takes some for work
ROOM = re.compile(r"\(dagfs/(\w+)")


@contextmanager
def sampled(worker: int, file: Path) -> Iterator[None]:
    """Sample a process for the length of a block; threads that wait are left out."""
    words = [PY_SPY, "record", "-p", str(worker), "-f", "raw", "-o", file, "-r", str(RATE), "-d", "3600"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
        try:
            time.sleep(STARTS)
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait(30)


def rooms(file: Path) -> Counter[str]:
    """Count samples by the innermost frame that is dagfs's own."""
    found: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if WAITS.search(stack):
            continue
        inner = ROOM.findall(stack)
        found[inner[-1] if inner else "Python"] += int(count)
    return found


def watch(home: Home, work: Callable[[], object]) -> dict[str, Any]:
    """Do some work on a mount; give the daemon's CPU seconds and its samples by room."""
    (state,) = home.status()
    with workplace() as name:
        file = Path(name) / "samples"
        with sampled(state["workers"][-1], file):
            before = sum(spent(home))
            work()
            cpu = sum(spent(home)) - before
        return {"cpu": cpu, "rooms": dict(rooms(file))}


def measure(files: int = 2000, one_directory: int = 200_000) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with workplace() as name:
        root = Path(name)
        names = images(root / "images", files, SIZE)
        with hub(root / "images") as url:
            home = Home(root / "home")
            with home.mounted(url, root / "mount") as path:
                os.listdir(path / "data")
                say("where: first epoch")
                found[f"first epoch, {files:,} files of 100 KB"] = watch(home, lambda: Place(path).epoch(names))
            with home.mounted(url, root / "mount") as path:
                os.listdir(path / "data")
                if may_drop_caches():
                    drop_caches()
                say("where: after a remount")
                found["the same after a remount"] = watch(home, lambda: Place(path).epoch(names))
        big_directory(root / "many", one_directory)
        with hub(root / "many") as url:
            home = Home(root / "home-many")
            with home.mounted(url, root / "mount") as path:
                say("where: first listing")
                found[f"first listing of {one_directory:,} files"] = watch(home, lambda: os.listdir(path / "data"))
    return found


def tables(figures: dict[str, Any]) -> list[Table]:
    total = {work: sum(found["rooms"].values()) for work, found in figures.items()}
    share = {
        room: [found["rooms"].get(room, 0) / (total[work] or 1) for work, found in figures.items()]
        for room in {room for found in figures.values() for room in found["rooms"]}
    }
    rows = [
        [f"`{room}`" if room != "Python" else "outside of dagfs", *(f"{part:.0%}" for part in parts)]
        for room, parts in sorted(share.items(), key=lambda pair: -max(pair[1]))
        if max(parts) >= 0.01
    ]
    cpu = ["CPU seconds of the daemon, sampling included", *(f"{found['cpu']:.2f}" for found in figures.values())]
    head = ["share of samples by room of dagfs", *figures]
    return [Table("where", "make bench PARTS=where", head, [cpu, *rows])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--one-directory", type=int, default=200_000)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
