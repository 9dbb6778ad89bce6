"""What a cold epoch costs beside the link's own time: in order, at random, by several workers, and for a subset.

    .venv/bin/python benchmarks/cold.py [--rounds 3] [--only WORD] [--mbps 200]

Prints a Markdown table. Each round has a fresh mount and an empty cache; the readers are plain programs.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory, commit_all, write_files

SIZE = 100_000
BATCH = 32
READER = """
import os, sys, time
directory, listing, workers, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if listing:
    with open(os.path.join(directory, "..", listing), "rb") as table:
        assert table.read()
names = sys.stdin.read().split()
def read(mine):
    for name in mine:
        descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
        left = 100_000
        while left:
            left -= len(os.read(descriptor, 1 << 20)) or sys.exit(f"{name} is short")
        os.close(descriptor)
batches = [names[i : i + batch] for i in range(0, len(names), batch)]
children = []
for worker in range(workers):
    pid = os.fork()
    if not pid:
        read([name for one in batches[worker::workers] for name in one])
        os._exit(0)
    children.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


@dataclass(frozen=True)
class Case:
    """`share`: one of how many files is read; `table`: labels.tsv is read first; `guesses`: prefetch is on."""

    name: str
    files: int
    latency: float = 0.02
    shuffled: bool = False
    workers: int = 1
    share: int = 1
    guesses: bool = True

    @property
    def table(self) -> bool:
        return self.share > 1


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
    """Give the names that are read, in their order."""
    names = [f"{i:06d}.bin" for i in range(case.files)]
    dice = random.Random(seed)  # noqa: S311 -- no secret
    subset = sorted(dice.sample(names, case.files // case.share))
    if case.shuffled:
        dice.shuffle(subset)
    return subset


def repositories(root: Path) -> Iterator[tuple[int, Path]]:
    for files in (300, 3000, 20_000):
        path = root / str(files)
        big_directory(path, files, size=SIZE, distinct=files)
        rows = "".join(f"{i:06d}.bin\ta squirrel or not, number {i}\t5.{i}\n" for i in range(files))
        write_files(path, {"labels.tsv": b"name\tcaption\tscore\n" + rows.encode()})
        commit_all(path, "labels")
        yield files, path


def measure(case: Case, repository: Path, mbps: float, seed: int) -> tuple[float, int, int]:
    """Give seconds, requests and bytes of one cold epoch."""
    names = chosen(case, seed)
    with (
        tempfile.TemporaryDirectory() as name,
        hub(repository, latency=case.latency, bandwidth=mbps * 1e6 / 8) as url,
        Home(Path(name) / "home").mounted(
            url, Path(name) / "mount", *(() if case.guesses else ("--no-prefetch",))
        ) as data,
    ):
        assert len(os.listdir(data / "data")) == case.files
        asked(url, reset=True)
        words = [str(data / "data"), "labels.tsv" if case.table else "", str(case.workers), str(BATCH)]
        program = f"import time; started = time.perf_counter()\n{READER.replace('sys.exit(any', 'failed = (any')}\n"
        program += "print(time.perf_counter() - started); sys.exit(failed)"
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            input="\n".join(names),
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        counts = asked(url)
    kinds = [kind for kind in counts["requests"] if kind != "own"]
    return (
        float(done.stdout),
        sum(counts["requests"][kind] for kind in kinds),
        sum(counts["bytes"].get(kind, 0) for kind in kinds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbps", type=float, default=200)
    parser.add_argument("--only", default="", help="cases whose name has this text")
    options = parser.parse_args()
    print(
        f"| files of 100 KB, {options.mbps:g} Mbit/s, median of {options.rounds} | s | link alone, s | ratio ", end=""
    )
    print("| requests | MB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for files, repository in repositories(Path(name)):
            for case in CASES:
                if case.files != files or options.only not in case.name:
                    continue
                rounds = [measure(case, repository, options.mbps, seed) for seed in range(options.rounds)]
                taken, requests, received = (statistics.median(column) for column in zip(*rounds, strict=True))
                link = len(chosen(case, 0)) * SIZE / (options.mbps * 1e6 / 8) + case.latency
                print(
                    f"| {case.name} | {taken:.2f} | {link:.2f} | {taken / link:.2f} "
                    f"| {requests:.0f} | {received / 1e6:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
