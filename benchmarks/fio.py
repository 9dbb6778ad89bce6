"""fio on one large file, through both drivers, rclone and the local disk.

    .venv/bin/python benchmarks/fio.py [--rounds 3] [--mib 1024] [--seconds 5] [--mbps 1000] [--latency-ms 20]

Prints a Markdown table. "Cold" is an empty cache behind a fresh mount, and for the local disk (root only) a dropped
page cache; "warm" follows in the same mount. Needs fio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charts import Chart, bars
from contenders import KERNEL, LIBFUSE, LOCAL, RCLONE, Contender, Ground, present
from measuring import drop_caches, may_drop_caches, medians, say, served, workplace
from report import Table, show
from repositories import LARGE, MiB, large_copy, large_file
from support.commands import asked
from support.hubs import hub

NEEDS = ("fio",)


@dataclass(frozen=True)
class Job:
    """`pattern` and `block` are fio's rw and bs; a job in order reads the whole file, a random one for some seconds."""

    name: str
    pattern: str
    block: str


IN_ORDER = Job("in order, 1 MiB", "read", "1M")
RANDOM = Job("random, 4 KiB", "randread", "4k")


def run(job: Job, file: Path, seconds: float) -> list[float]:
    """Give MB/s, reads a second, and the 99th percentile of their milliseconds."""
    words = ["fio", "--output-format=json", "--readonly", "--allow_file_create=0", "--ioengine=psync", "--invalidate=0"]
    words += [f"--name={job.pattern}", f"--filename={file}", f"--rw={job.pattern}", f"--bs={job.block}"]
    if job.pattern == "randread":
        words += [f"--runtime={seconds:g}", "--time_based", "--randseed=1"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=900, cwd=file.parent.parent)
    read = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    return [read["bw_bytes"] / 1e6, read["iops"], read["clat_ns"]["percentile"]["99.000000"] / 1e6]


def one_round(contender: Contender, ground: Ground, seconds: float) -> Iterator[tuple[str, list[float]]]:
    """Give each row's name and its figures, with the MB that the hub sent."""
    for job in (IN_ORDER, RANDOM):
        with workplace(ground.scratch) as keep, contender.enter(ground, Path(keep)) as place:
            for state in ("cold", "warm"):
                say(f"{contender.name}: {job.name}, {state}")
                if contender is LOCAL and state == "cold" and may_drop_caches():
                    drop_caches()
                if job is RANDOM and state == "warm":
                    run(IN_ORDER, place.path / LARGE, seconds)
                asked(ground.url, reset=True)
                figures = run(job, place.path / LARGE, seconds)
                yield f"{job.name}, {state}", [*figures, served(ground.url)[1] / 1e6]


def measure(
    rounds: int = 3, mib: int = 1024, seconds: float = 5, mbps: float = 1000, latency_ms: float = 20
) -> dict[str, Any]:
    contenders, left_out = present((LOCAL, KERNEL, LIBFUSE, RCLONE))
    notes: dict[str, dict[str, list[list[float]]]] = {}
    with workplace() as name:
        repository = large_file(Path(name) / "repository", mib * MiB)
        plain = large_copy(repository, Path(name) / "plain")
        with hub(repository, latency=latency_ms / 1000, bandwidth=mbps * 1e6 / 8) as url:
            ground = Ground(url, plain, Path(name))
            for _ in range(rounds):
                for contender in contenders:
                    for row, figures in one_round(contender, ground, seconds):
                        notes.setdefault(row, {}).setdefault(contender.name, []).append(figures)
    if not may_drop_caches():
        left_out.append("The local disk's cold rows came from the page cache: to drop it needs root.")
    return {
        "rows": {row: {who: medians(found) for who, found in column.items()} for row, column in notes.items()},
        "contenders": [contender.name for contender in contenders],
        "left out": left_out,
        "what": f"{mib} MiB, {mbps:g} Mbit/s, {latency_ms:g} ms, median of {rounds}",
        "link": mbps / 8,
    }


def rate(value: float) -> str:
    """Write MB/s with as many digits as leave no small rate a zero."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(figures: dict[str, Any]) -> list[Table]:
    who, rows = figures["contenders"], []
    for row, found in figures["rows"].items():
        rows.append([f"{row}: MB/s", *(rate(found[one][0]) for one in who)])
        if not row.startswith(IN_ORDER.name):
            rows.append([f"{row}: 99 of 100 within, ms", *(f"{found[one][2]:.3f}" for one in who)])
            rows.append(
                [f"{row}: MB from the hub", *("-" if one == LOCAL.name else f"{found[one][3]:,.0f}" for one in who)]
            )
    return [Table("fio", "make bench PARTS=fio", [f"fio; {figures['what']}", *who], rows, figures["left out"])]


def draw(figures: dict[str, Any], directory: Path) -> None:
    series = {one: [found[one][0] for found in figures["rows"].values()] for one in figures["contenders"]}
    rows = list(figures["rows"])
    limits = [figures["link"] if row == f"{IN_ORDER.name}, cold" else None for row in rows]
    bars(Chart(directory / "fio.png", f"fio on one file of {figures['what']}", "MB/s"), rows, series, limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=5, help="of a random job")
    parser.add_argument("--mbps", type=float, default=1000)
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
