"""What a warm epoch costs beside the same epoch on the local disk, and what the daemon pays for a cold one.

    .venv/bin/python benchmarks/warm.py [--rounds 3] [--files 2000]

Prints Markdown tables. Root drops the page cache where "cold disk" is said; others skip those rows, and are told.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from measuring import SIZE, Place, cached_bytes, drop_caches, may_drop_caches, medians, retire, spent, workplace
from report import Table, show
from repositories import images, plain_copy
from support.commands import Home
from support.hubs import hub

REPEATED = 9
"""Warm epochs in a round: one takes less time than a core is lent for to somebody else."""

Rows = dict[str, list[tuple[float, float]]]  # work -> (local seconds, mount's seconds) of each round


def one_round(root: Path, url: str, names: list[str], rows: Rows) -> tuple[float, float]:
    """Fill rows; give the seconds of user and system time that the daemon took for the cold epoch."""
    home, local = Home(root / "home"), root / "local"
    with home.mounted(url, root / "mount") as data:
        before = spent(home)
        Place(data).epoch(names)
        user, system = (after - then for after, then in zip(spent(home), before, strict=True))
        Place(local).epoch(names)
        for how, workers in (("os.read", 1), ("os.read", 8), ("open()", 1)):
            title = f"page cache, {how}, {workers} process{'es' if workers > 1 else ''}"
            for _ in range(REPEATED):
                pair = [Place(place, how=how).epoch(names, workers=workers) for place in (local, data)]
                rows.setdefault(title, []).append(tuple(pair))
    if may_drop_caches():
        from_disk(home, root, url, names, rows)
    retire(root / "home")
    return user, system


def from_disk(home: Home, root: Path, url: str, names: list[str], rows: Rows) -> None:
    """Read what is on disk, locally and in dagfs's cache, with an empty page cache."""
    drop_caches()
    on_disk = Place(root / "local").epoch(names)
    drop_caches()
    with home.mounted(url, root / "mount") as data:
        os.listdir(data / "data")
        drop_caches()
        before_bytes = cached_bytes()
        taken = Place(data).epoch(names)
        copies = (cached_bytes() - before_bytes) / (SIZE * len(names))
    rows.setdefault("remount, cold disk, 1 process", []).append((on_disk, taken))
    rows.setdefault("copies in memory", []).append((1.0, copies))


def measure(rounds: int = 3, files: int = 2000) -> dict[str, Any]:
    rows: Rows = {}
    with workplace() as name:
        root = Path(name)
        names = images(root / "repository", files, SIZE)
        plain_copy(root / "repository", root / "local", names, SIZE)
        with hub(root / "repository") as url:
            cpu = [one_round(root, url, names, rows) for _ in range(rounds)]
    return {
        "rows": {title: medians(found) for title, found in rows.items()},
        "cpu": [seconds * 1000 / files for seconds in medians(cpu)],
        "what": f"{files} files of 100 KB, median of {rounds}",
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [
        [title, f"{local:.3f}", f"{mount:.3f}", f"{local / mount:.2f}"]
        for title, (local, mount) in figures["rows"].items()
    ]
    notes = [] if may_drop_caches() else ["The rows of a cold disk need root, who may drop the page cache."]
    user, system = figures["cpu"]
    spoken = f"{user + system:.2f} s, {system:.2f} of them in the kernel"
    notes.append(f"Daemon's CPU for 1,000 cold files, no latency: {spoken}.")
    head = [figures["what"], "local, s", "dagfs, s", "rate of local's"]
    return [Table("warm", "make bench PARTS=warm", head, rows, notes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2000)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
