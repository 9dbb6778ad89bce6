"""What one large file costs: in order beside curl, again beside the local disk, and one byte at its end.

    .venv/bin/python benchmarks/large.py [--rounds 3] [--mib 1024] [--mbps 1000] [--latency-ms 20]

Prints Markdown tables. Needs curl.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import Place, medians, retire, say, served, workplace
from report import Table, show
from repositories import LARGE, MiB, large_copy, large_file
from support.commands import Home, asked
from support.hubs import hub

from dagfs.devhub.behaviour import Behaviour

NEEDS = ("curl",)


def curl(url: str, commit: str) -> float:
    origin, owner, name = url.rsplit("/", 2)
    target = f"{origin}/api/v1/repos/{owner}/{name}/raw/{commit}/{LARGE}"
    words = ["curl", "-sSf", "-o", os.devnull, "-w", "%{time_total}", target]
    return float(subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout)


def one_round(root: Path, url: str, size: int, rows: dict[str, list[tuple[float, float, int, int]]]) -> None:
    """Fill rows with (seconds of the other, of dagfs, requests, bytes)."""
    home = Home(root / "home")

    def note(title: str, other: float, action: Callable[[], float]) -> None:
        say(f"large: {title}")
        asked(url, reset=True)
        taken = action()
        rows.setdefault(title, []).append((other, taken, *served(url)))

    def read(directory: Path) -> float:
        return Place(directory).epoch([LARGE], size=size)

    def last_byte(path: Path) -> float:
        started = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            file.seek(size - 1)
            assert len(file.read(1)) == 1
        return time.perf_counter() - started

    with home.mounted(url, root / "mount") as data:
        (state,) = home.status()
        direct = curl(url, state["commit"])
        note("one byte at the end, cold", direct, lambda: last_byte(data / LARGE))
    home.run("cache", "clear")
    local = root / "local"
    with home.mounted(url, root / "mount") as data:
        os.listdir(data)
        note("in order, cold, beside curl", direct, lambda: read(data))
        read(local)
        note("again, from the page cache", read(local), lambda: read(data))
    with home.mounted(url, root / "mount") as data:
        os.listdir(data)
        note("remount, from the disk cache in memory", read(local), lambda: read(data))
    if os.geteuid() == 0:
        with home.mounted(url, root / "mount", "--passthrough") as data:
            read(data)
            note("again, `--passthrough`", read(local), lambda: read(data))
    retire(root / "home")


def measure(rounds: int = 3, mib: int = 1024, mbps: float = 1000, latency_ms: float = 20) -> dict[str, Any]:
    found = {}
    shares = {"": Behaviour(), ", a quarter for each connection": Behaviour(connection_bandwidth=mbps * 1e6 / 32)}
    with workplace() as name:
        root = Path(name)
        large_copy(large_file(root / "repository", mib * MiB), root / "local")
        for title, behaviour in shares.items():
            rows: dict[str, list[tuple[float, float, int, int]]] = {}
            link = {"latency": latency_ms / 1000, "bandwidth": mbps * 1e6 / 8}
            with hub(root / "repository", **link, behaviour=behaviour) as url:
                for _ in range(rounds):
                    one_round(root, url, mib * MiB, rows)
            what = f"{mib} MiB, {mbps:g} Mbit/s{title}, {latency_ms:g} ms, median of {rounds}"
            found[what] = {work: medians(columns) for work, columns in rows.items()}
    return found


def tables(figures: dict[str, Any]) -> list[Table]:
    made = []
    for name, (what, found) in zip(("large", "large-shared"), figures.items(), strict=True):
        head = [what, "other, s", "dagfs, s", "rate of other's", "requests", "MB"]
        rows = [
            [work, f"{other:.2f}", f"{taken:.2f}", f"{other / taken:.2f}", f"{requests:.0f}", f"{moved / 1e6:.1f}"]
            for work, (other, taken, requests, moved) in found.items()
        ]
        made.append(Table(name, "make bench PARTS=large", head, rows))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--mbps", type=float, default=1000)
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
