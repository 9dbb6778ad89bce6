"""The two drivers over one file system in memory, beside a local directory: microseconds for each operation.

    .venv/bin/python benchmarks/adapters.py [--rounds 3] [--files 2000]

Prints a Markdown table of medians. One client process; the driver runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from measuring import medians, run_program, workplace
from report import Table, show
from support.mounts import mounted

from dagfs.vfs.memory import MemoryFs

BODY = os.urandom(100_000)
CLIENT = """
import json, os, sys, time
root, names = sys.argv[1], ["%05d.bin" % i for i in range(int(sys.argv[2]))]
def each(work):
    started = time.perf_counter()
    for name in names:
        work(os.path.join(root, name))
    return (time.perf_counter() - started) / len(names) * 1e6
def read(path):
    file = os.open(path, os.O_RDONLY)
    assert len(os.read(file, 200_000)) == 100_000
    os.close(file)
def read_by_open(path):
    with open(path, "rb") as file:
        assert len(file.read()) == 100_000
print(json.dumps({
    "stat, first time": each(os.stat),
    "stat, again": each(os.stat),
    "read 100 KB, first time": each(read),
    "read 100 KB, again": each(read),
    "read 100 KB by open(), again": each(read_by_open),
}))
"""


def client(root: Path, files: int) -> dict[str, float]:
    figures: dict[str, float] = json.loads(run_program(CLIENT, [str(root), str(files)]))
    return figures


def measure(rounds: int = 3, files: int = 2000) -> dict[str, Any]:
    names = [f"{i:05d}.bin" for i in range(files)]
    found: dict[str, list[dict[str, float]]] = {"local": [], "kernel driver": [], "libfuse driver": []}
    for _ in range(rounds):
        with workplace() as local:
            for name in names:
                Path(local, name).write_bytes(BODY)
            found["local"].append(client(Path(local), files))
        for driver in ("kernel", "libfuse"):
            with mounted(lambda: MemoryFs(dict.fromkeys(names, BODY)), driver) as mount:
                found[f"{driver} driver"].append(client(mount.path, files))
    columns = {who: medians(figures.values() for figures in each) for who, each in found.items()}
    return {"columns": columns, "works": list(found["local"][0]), "what": f"us an operation, median of {rounds}"}


def tables(figures: dict[str, Any]) -> list[Table]:
    columns = figures["columns"]
    values = zip(*columns.values(), strict=True)
    rows = [[work, *(f"{us:.1f}" for us in row)] for work, row in zip(figures["works"], values, strict=True)]
    return [Table("adapters", "make bench PARTS=adapters", [figures["what"], *columns], rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2000)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
