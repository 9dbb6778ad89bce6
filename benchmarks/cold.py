"""What a cold epoch costs beside the link's own time: in order, at random, by several workers, and for a subset.

    .venv/bin/python benchmarks/cold.py [--rounds 3] [--only WORD] [--mbps 200]

Prints a Markdown table. Each round has a fresh mount and an empty cache; the readers are plain programs.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import SIZE, Place, medians, say, served, shuffled, workplace
from report import Table, show
from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory, commit_all, write_files

BATCH = 32
LABELS = "labels.tsv"


@dataclass(frozen=True)
class Case:
    """`share`: one of how many files is read, labels.tsv first when it is more than one; `guesses`: prefetch is on."""

    name: str
    files: int
    latency: float = 0.02
    shuffled: bool = False
    workers: int = 1
    share: int = 1
    guesses: bool = True


CASES = [
    Case("300 in order", 300),
    Case("300 shuffled", 300, shuffled=True),
    Case("300 shuffled, 80 ms", 300, 0.08, shuffled=True),
    Case("3000 in order", 3000),
    Case("3000 shuffled", 3000, shuffled=True),
    Case("3000 shuffled, 80 ms", 3000, 0.08, shuffled=True),
    *(
        Case(f"3000 {'shuffled' if shuffled else 'in order'}, {workers} workers", 3000, 0.02, shuffled, workers)
        for shuffled in (False, True)
        for workers in (4, 8)
    ),
    *(
        Case(
            f"1 of {share} of 20000, {'shuffled' if shuffled else 'in row order'}{'' if on else ', no guesses'}",
            20_000,
            shuffled=shuffled,
            share=share,
            guesses=on,
        )
        for share in (1000, 100)
        for shuffled in (False, True)
        for on in (False, True)
    ),
]


def chosen(case: Case, seed: int) -> list[str]:
    """Give the paths that are read, in their order."""
    names = [f"data/{i:06d}.bin" for i in range(case.files)]
    dice = random.Random(seed)  # noqa: S311 -- no secret
    subset = sorted(dice.sample(names, case.files // case.share))
    return shuffled(subset, seed) if case.shuffled else subset


def repositories(root: Path) -> Iterator[tuple[int, Path]]:
    for files in (300, 3000, 20_000):
        path = root / str(files)
        big_directory(path, files, size=SIZE, distinct=files)
        rows = "".join(f"{i:06d}.bin\ta squirrel or not, number {i}\t5.{i}\n" for i in range(files))
        write_files(path, {LABELS: b"name\tcaption\tscore\n" + rows.encode()})
        commit_all(path, "labels")
        yield files, path


def one_round(case: Case, repository: Path, mbps: float, seed: int) -> tuple[float, int, int]:
    """Give seconds, requests and bytes of one cold epoch."""
    options = () if case.guesses else ("--no-prefetch",)
    with (
        workplace() as name,
        hub(repository, latency=case.latency, bandwidth=mbps * 1e6 / 8) as url,
        Home(Path(name) / "home").mounted(url, Path(name) / "mount", *options) as data,
    ):
        assert len(os.listdir(data / "data")) == case.files
        asked(url, reset=True)
        table = LABELS if case.share > 1 else ""
        taken = Place(data).epoch(chosen(case, seed), workers=case.workers, batch=BATCH, table=table)
        return (taken, *served(url))


def measure(rounds: int = 3, mbps: float = 200, only: str = "") -> dict[str, Any]:
    """`only`: cases whose name begins with this text."""
    rows = {}
    with workplace() as name:
        for files, repository in repositories(Path(name)):
            for case in CASES:
                if case.files != files or not case.name.startswith(only):
                    continue
                say(f"cold: {case.name}")
                taken, requests, received = medians(one_round(case, repository, mbps, seed) for seed in range(rounds))
                link = len(chosen(case, 0)) * SIZE / (mbps * 1e6 / 8) + case.latency
                rows[case.name] = [taken, link, requests, received]
    return {"rows": rows, "what": f"files of 100 KB, {mbps:g} Mbit/s, median of {rounds}"}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [
        [name, f"{taken:.2f}", f"{link:.2f}", f"{taken / link:.2f}", f"{requests:.0f}", f"{received / 1e6:.1f}"]
        for name, (taken, link, requests, received) in figures["rows"].items()
    ]
    head = [figures["what"], "s", "link alone, s", "ratio", "requests", "MB"]
    return [Table("cold", "make bench PARTS=cold", head, rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbps", type=float, default=200)
    parser.add_argument("--only", default="", help="cases whose name begins with this text")
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
