"""What several machines cost the hub, with and without a tier that they share, and what a manifest saves.

    .venv/bin/python benchmarks/shared.py [--files 300] [--nodes 1 2 4]

Prints Markdown tables of bytes and requests. Machines are network namespaces (for root; else mounts side by side), the
tier is a real S3 server (moto), too slow a one for seconds to say anything.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from measuring import say, workplace
from report import Table, show
from support.commands import Home, asked
from support.hubs import hub
from support.nodes import network
from support.relay import Relay
from support.repos import Truth, big_directory
from support.s3server import BUCKET, s3_server

SIZE = 100_000
PER_DIRECTORY = 25
MB = 1_000_000
READER = """
import random, sys
root, seed, names = sys.argv[1], int(sys.argv[2]), sys.stdin.read().split()
if seed: random.Random(seed).shuffle(names)
for name in names: open(f"{root}/{name}", "rb").read()
"""
WAYS = {
    "no tier": (False, True, False),
    "tier, all at once, one order": (True, True, False),
    "tier, all at once, each its own order": (True, True, True),
    "tier, one after another": (True, False, False),
}
"""Name -> with a tier, at once, shuffled."""

LARGE = 64 * MB
LARGE_WAYS = {name: WAYS[name] for name in ("no tier", "tier, all at once, one order", "tier, one after another")}


def epoch(places: list[Path], names: list[str], *, at_once: bool, shuffled: bool) -> None:
    """Read all files on every machine."""
    running = []
    for number, place in enumerate(places):
        words = [sys.executable, "-c", READER, str(place), str(number + 1 if shuffled else 0)]
        reader = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
        reader.stdin.write("\n".join(names))
        reader.stdin.close()
        running.append(reader)
        if not at_once:
            assert reader.wait(600) == 0
    assert all(reader.wait(600) == 0 for reader in running)


def one(repository: Path, root: Path, count: int, names: list[str], way: tuple[bool, bool, bool]) -> dict[str, int]:
    """Give bytes and requests for files, of hub and tier."""
    tier, at_once, shuffled = way
    with ExitStack() as stack:
        net = stack.enter_context(network(count))
        url = stack.enter_context(hub(repository, latency=0.01))
        server = stack.enter_context(s3_server(net.address))
        relay = stack.enter_context(Relay(url, address=net.address))
        there = relay.url + urlsplit(url).path
        options = ("--shared-cache", f"s3://{BUCKET}/x") if tier else ()
        places = []
        for number, prefix in enumerate(net.prefixes):
            home = Home(root / f"home{number}", extra=server.environment, prefix=prefix)
            places.append(stack.enter_context(home.mounted(there, root / f"m{number}", *options)))
        epoch(places, names, at_once=at_once, shuffled=shuffled)
        told, counts = asked(url), server.counts()
        return {
            "hub bytes": told["bytes"].get("raw", 0),
            "hub requests": told["requests"].get("raw", 0),
            "tier bytes": counts.pop("bytes", 0),
            "tier requests": sum(counts.values()),
        }


def listings(root: Path) -> dict[str, int]:
    """Give the requests for the listings of every directory, with and without a manifest."""
    found = {}
    with hub(root.parent / "repository") as url:
        for name, options in (("without", ()), ("with", ("--dvc-remote", "default"))):
            asked(url, reset=True)
            with Home(root / name).mounted(url, root / f"m-{name}", *options) as place:
                subprocess.run(["find", place / "data"], stdout=subprocess.DEVNULL, check=True, timeout=600)
            told = asked(url)["requests"]
            found[name] = told.get("listing", 0) + told.get("dvc", 0)
    return found


def measure(files: int = 300, nodes: list[int] | None = None, large: int = LARGE) -> dict[str, Any]:
    counts = nodes or [1, 2, 4]
    with workplace() as name:
        root = Path(name)
        truth = big_directory(root / "repository", files, size=SIZE, per_directory=PER_DIRECTORY, distinct=files)
        rows = figures(truth, WAYS, root / "small", counts)
        truth = big_directory(root / "large-repository", 1, size=large)
        large_rows = figures(truth, LARGE_WAYS, root / "large", counts)
        (place := root / "listings").mkdir()
        found = listings(place)
    told = {"nodes": counts, "files": files, "large": large, "directories": -(-files // PER_DIRECTORY)}
    return {"rows": rows, "large_rows": large_rows, "listings": found, **told}


def figures(truth: Truth, ways: dict[str, Any], root: Path, counts: list[int]) -> dict[str, dict[str, int]]:
    """Give the figures of each way and number of machines, "WAY/NUMBER"."""
    rows: dict[str, dict[str, int]] = {}
    for title, way in ways.items():
        for count in counts:
            say(f"{title}, {count}, {root.name}")
            (place := root / f"{len(rows)}").mkdir(parents=True)
            rows[f"{title}/{count}"] = one(truth.path, place, count, sorted(truth.dvc[truth.head]), way)
    return rows


def tables(figures: dict[str, Any]) -> list[Table]:
    command, nodes = "make bench PARTS=shared", figures["nodes"]
    head = [f"{figures['files']} files of 100 KB, read by so many machines", *map(str, nodes)]
    large = f"one file of {figures['large'] // MB} MB, read by so many machines: from the hub, requests"

    def table(what: str, rows: dict[str, dict[str, int]], ways: dict[str, Any]) -> list[list[str]]:
        cells = (
            "{0[hub bytes]:,.1f} MB, {0[hub requests]}"
            if what == "hub"
            else "{0[tier bytes]:,.1f} MB, {0[tier requests]}"
        )
        made = []
        for title in ways:
            found = [dict(rows[f"{title}/{count}"]) for count in nodes]
            for one in found:
                one["hub bytes"] /= MB
                one["tier bytes"] /= MB
            made.append([title, *(cells.format(one) for one in found)])
        return made

    found = figures["listings"]
    manifest = [["one by one", str(found["without"])], ["by the manifest", str(found["with"])]]
    where = f"requests to list {figures['directories']} directories below one that DVC tracks"
    return [
        Table(
            "shared-hub",
            command,
            [f"{head[0]}: from the hub, requests", *head[1:]],
            table("hub", figures["rows"], WAYS),
        ),
        Table("shared-large", command, [large, *head[1:]], table("hub", figures["large_rows"], LARGE_WAYS)),
        Table(
            "shared-tier",
            command,
            [f"{head[0]}: from the tier, requests", *head[1:]],
            table("tier", figures["rows"], WAYS),
        ),
        Table("shared-listings", command, [where, "requests"], manifest),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--large", type=int, default=LARGE, help="bytes of the large file")
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
