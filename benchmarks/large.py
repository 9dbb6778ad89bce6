"""What one large file costs: in order beside curl, again beside the local disk, and one byte at its end.

    .venv/bin/python benchmarks/large.py [--rounds 3] [--mib 1024] [--mbps 1000] [--latency-ms 20]

Prints a Markdown table. Needs curl.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.commands import Home, asked
from support.hubs import hub
from support.repos import commit_all, new_repository, put_legacy, write_files

from dagfs.devhub.behaviour import Behaviour

MiB = 1 << 20
READ = """
import os, sys, time
started = time.perf_counter()
descriptor = os.open(sys.argv[1], os.O_RDONLY)
size = 0
while data := os.read(descriptor, 1 << 20):
    size += len(data)
assert size == int(sys.argv[2]), size
print(time.perf_counter() - started)
"""


def repository(root: Path, size: int) -> Path:
    """Make a repository whose DVC file `model.bin` has `size` bytes."""
    new_repository(root)
    body = os.urandom(size)
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    put_legacy(root / ".dvc/cache/files/md5", digest, body)
    pointer = f"outs:\n- md5: {digest}\n  size: {size}\n  hash: md5\n  path: model.bin\n"
    write_files(root, {"model.bin.dvc": pointer.encode(), ".gitignore": b"/model.bin\n"})
    write_files(root, {".dvc/config": b"[core]\n    analytics = false\n", ".dvc/.gitignore": b"/cache\n/tmp\n"})
    commit_all(root, "one large file")
    return root


def read(path: Path, size: int) -> float:
    words = [sys.executable, "-c", READ, str(path), str(size)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout)


def curl(url: str, commit: str) -> float:
    origin, owner, name = url.rsplit("/", 2)
    target = f"{origin}/api/v1/repos/{owner}/{name}/raw/{commit}/model.bin"
    words = ["curl", "-sSf", "-o", os.devnull, "-w", "%{time_total}", target]
    return float(subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout)


def measure(root: Path, url: str, size: int, rows: dict[str, list[tuple[float, float, int, int]]]) -> None:
    """One round; a row is (seconds of the other, of dagfs, requests, bytes)."""
    home = Home(root / "home")

    def note(title: str, other: float, action: object) -> None:
        asked(url, reset=True)
        taken = action()  # type: ignore[operator]
        counts = asked(url)
        kinds = [kind for kind in counts["requests"] if kind != "own"]
        moved = sum(counts["bytes"].get(kind, 0) for kind in kinds)
        rows.setdefault(title, []).append((other, taken, sum(counts["requests"][kind] for kind in kinds), moved))

    def last_byte(path: Path) -> float:
        started = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            file.seek(size - 1)
            assert len(file.read(1)) == 1
        return time.perf_counter() - started

    with home.mounted(url, root / "mount") as data:
        (state,) = home.status()
        direct = curl(url, state["commit"])
        note("one byte at the end, cold", direct, lambda: last_byte(data / "model.bin"))
    home.run("cache", "clear")
    with home.mounted(url, root / "mount") as data:
        os.listdir(data)
        note("in order, cold, beside curl", direct, lambda: read(data / "model.bin", size))
        local = root / "local.bin"
        if not local.exists():
            shutil.copyfile(data / "model.bin", local)
        read(local, size)
        note("again, from the page cache", read(local, size), lambda: read(data / "model.bin", size))
    with home.mounted(url, root / "mount") as data:
        os.listdir(data)
        note("remount, from the disk cache in memory", read(local, size), lambda: read(data / "model.bin", size))
    shutil.rmtree(root / "home")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--mbps", type=float, default=1000)
    parser.add_argument("--latency-ms", type=float, default=20)
    options = parser.parse_args()
    size = options.mib * MiB
    with tempfile.TemporaryDirectory() as name:
        made = repository(Path(name) / "repository", size)
        for title, behaviour in (
            ("", Behaviour()),
            (", a quarter for each connection", Behaviour(connection_bandwidth=options.mbps * 1e6 / 32)),
        ):
            rows: dict[str, list[tuple[float, float, int, int]]] = {}
            link = {"latency": options.latency_ms / 1000, "bandwidth": options.mbps * 1e6 / 8}
            with hub(made, **link, behaviour=behaviour) as url:
                for _ in range(options.rounds):
                    measure(Path(name), url, size, rows)
            print(
                f"| {options.mib} MiB, {options.mbps:g} Mbit/s{title} | other, s | dagfs, s | rate of other's ", end=""
            )
            print("| requests | MB |\n|---|---|---|---|---|---|")
            for work, rounds in rows.items():
                other, taken, requests, moved = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(
                    f"| {work} | {other:.2f} | {taken:.2f} | {other / taken:.2f} | {requests:.0f} | {moved / 1e6:.1f} |"
                )
            print()


if __name__ == "__main__":
    main()
