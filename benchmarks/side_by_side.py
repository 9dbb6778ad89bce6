"""The same epochs through every contender, from the same hub over the same link.

    .venv/bin/python benchmarks/side_by_side.py [--rounds 3] [--files 1000] [--mbps 200] [--latency-ms 20]

Prints Markdown tables of medians. "First" is an empty cache; root drops the page cache where "page cache dropped" is
said (and before the local disk's first epochs); others have no such rows, and are told.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charts import Chart, bars
from contenders import ALL, HOOKED, KERNEL, LINK, LOCAL, RCLONE, Contender, Ground, present
from measuring import SIZE, Place, drop_caches, may_drop_caches, medians, say, served, shuffled, workplace
from report import Table, seconds, show
from repositories import images, plain_copy
from support.commands import asked
from support.hubs import hub

BATCH = 32


@dataclass(frozen=True)
class Work:
    """One epoch. `stage`: "first" begins with an empty cache, "again" follows it, "remount" has an empty page cache."""

    name: str
    stage: str
    shuffled: bool = False
    workers: int = 1


FIRST = [
    Work("first epoch, in order", "first"),
    Work("first epoch, shuffled", "first", shuffled=True),
    Work("first epoch, shuffled, 4 workers", "first", shuffled=True, workers=4),
]
AGAIN = [
    Work("again, page cache, 1 process", "again"),
    Work("again, page cache, 8 processes", "again", workers=8),
]
REMOUNT = Work("after a remount, page cache dropped", "remount")

HEADLINE = {LOCAL.name, KERNEL.name, RCLONE.name, HOOKED.name}
HEADLINES = {FIRST[0].name, FIRST[2].name, AGAIN[0].name, REMOUNT.name}
"""Columns and rows of the README's first table; docs/performance.md has all."""

Notes = dict[str, dict[str, list[tuple[float, int, int]]]]  # work -> contender -> (seconds, requests, bytes) of rounds


def run(work: Work, place: Place, ground: Ground, names: list[str], seed: int) -> tuple[float, int, int]:
    """Do one piece of work; give seconds, requests and bytes of the hub."""
    order = shuffled(names, seed) if work.shuffled else names
    asked(ground.url, reset=True)
    taken = place.epoch(order, workers=work.workers, batch=BATCH if work.workers > 1 else 1)
    return (taken, *served(ground.url))


def one_round(contender: Contender, ground: Ground, names: list[str], seed: int, notes: Notes) -> None:
    def note(work: Work, place: Place) -> None:
        say(f"{contender.name}: {work.name}")
        if contender is LOCAL and work.stage == "first" and may_drop_caches():
            drop_caches()
        notes.setdefault(work.name, {}).setdefault(contender.name, []).append(run(work, place, ground, names, seed))

    for work in FIRST:
        with workplace(ground.scratch) as keep:
            with contender.enter(ground, Path(keep)) as place:
                note(work, place)
                if work is FIRST[-1] and contender.keeps:
                    for again in AGAIN:
                        note(again, place)
            if work is FIRST[-1] and contender.keeps and may_drop_caches():
                with contender.enter(ground, Path(keep)) as place:
                    drop_caches()
                    note(REMOUNT, place)


def measure(
    rounds: int = 3, files: int = 1000, mbps: float = 200, latency_ms: float = 20, *, others: bool = True
) -> dict[str, Any]:
    """`others` False leaves out those that are slow to start: only local disk, link and dagfs are compared."""
    contenders, left_out = present(ALL if others else (LOCAL, LINK, KERNEL))
    notes: Notes = {}
    with workplace() as name:
        names = images(Path(name) / "images", files, SIZE)
        plain = plain_copy(Path(name) / "images", Path(name) / "plain", names, SIZE)
        with hub(Path(name) / "images", latency=latency_ms / 1000, bandwidth=mbps * 1e6 / 8) as url:
            ground = Ground(url, plain, Path(name))
            for seed in range(rounds):
                for contender in contenders:
                    one_round(contender, ground, names, seed, notes)
    if not may_drop_caches():
        left_out.append("Rows of a dropped page cache need root; the local disk's first epochs came from it.")
    return {
        "notes": {work: {who: medians(rows) for who, rows in column.items()} for work, column in notes.items()},
        "link": files * SIZE / (mbps * 1e6 / 8) + latency_ms / 1000,
        "contenders": [contender.name for contender in contenders],
        "left out": left_out,
        "what": f"{files} files of 100 KB, {mbps:g} Mbit/s, {latency_ms:g} ms, median of {rounds}",
        "bytes": files * SIZE,
        "files": files,
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    who, command = figures["contenders"], "make bench PARTS=side_by_side"
    taken = [
        [work, *(seconds(row[one][0]) if one in row else "-" for one in who)] for work, row in figures["notes"].items()
    ]
    link = f"The link alone needs {figures['link']:.2f} s for the first epoch."
    notes = [link, *figures["left out"]]
    traffic = []
    for work in FIRST:
        row = figures["notes"][work.name]
        cells = [
            f"{row[one][1] / figures['files']:.2f}; {row[one][2] / figures['bytes']:.2f}"
            for one in who
            if one != LOCAL.name
        ]
        traffic.append([work.name, *cells])
    head = ["requests a file; bytes fetched, of those read", *(one for one in who if one != LOCAL.name)]
    few = [one for one in who if one in HEADLINE]
    headline = [
        [work, *(seconds(row[one][0]) if one in row else "-" for one in few)]
        for work, row in figures["notes"].items()
        if work in HEADLINES
    ]
    return [
        Table("headline", command, [f"seconds; {figures['what']}", *few], headline, notes),
        Table("side-by-side", command, [f"seconds; {figures['what']}", *who], taken, notes),
        Table("side-by-side-traffic", command, head, traffic),
    ]


def draw(figures: dict[str, Any], directory: Path) -> None:
    """Draw how fast each contender reads: MB/s of first and later epochs."""
    megabytes = figures["bytes"] / 1e6
    series = {
        one: [megabytes / row[one][0] if one in row else None for row in figures["notes"].values()]
        for one in figures["contenders"]
    }
    works = list(figures["notes"])
    limits = [megabytes / figures["link"] if work.startswith("first") else None for work in works]
    bars(Chart(directory / "side-by-side.png", f"Reading {figures['what']}", "MB/s"), works, series, limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--mbps", type=float, default=200)
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
