"""What FUSE itself leaves of the local disk's speed: dagfs beside a file system in C that only passes through.

    .venv/bin/python benchmarks/kernel_limit.py [--rounds 3] [--files 2000] [--mib 256]

Prints a Markdown table. Needs gcc, pkg-config and Debian's libfuse3-dev, whose example `passthrough_ll` is the one in
C; root, who may drop the page cache, for the row of a cold disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import SIZE, Place, drop_caches, may_drop_caches, medians, retire, run_program, say, workplace
from report import Table, show
from repositories import LARGE, MiB, images, large_copy, large_file, plain_copy
from support.commands import Home
from support.hubs import hub

EXAMPLE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"
NEEDS = ("gcc", "pkg-config", EXAMPLE)
REPEATED = 9
OPEN_ALREADY = """
import os, sys, time
size = int(sys.argv[2])
descriptors = [os.open(os.path.join(sys.argv[1], name), os.O_RDONLY) for name in sys.stdin.read().split()]
for _ in range(2):
    started = time.perf_counter()
    for descriptor in descriptors:
        assert len(os.pread(descriptor, size, 0)) == size
    seconds = time.perf_counter() - started
print(seconds)
"""

Rows = dict[str, list[list[float]]]  # work -> seconds of the local disk, of C, of dagfs, in each round


def compiled(target: Path) -> Path:
    flags = subprocess.run(["pkg-config", "fuse3", "--cflags", "--libs"], check=True, capture_output=True, text=True)
    subprocess.run(["gcc", "-O2", EXAMPLE, "-o", target, *flags.stdout.split()], check=True)
    return target


@contextlib.contextmanager
def passed_through(program: Path, source: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount a directory by the file system in C, which lets the kernel keep all that it may."""
    mountpoint.mkdir(exist_ok=True)
    options = f"source={source},cache=always,timeout=86400"
    serving = subprocess.Popen([program, "-f", "-o", options, mountpoint], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not os.path.ismount(mountpoint) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=False, timeout=20)
        serving.wait(20)


def open_already(place: Path, names: list[str]) -> float:
    return float(run_program(OPEN_ALREADY, [str(place), str(SIZE)], "\n".join(names)))


def one_round(places: list[Path], names: list[str], size: int, rows: Rows) -> None:
    """Read everywhere what is in memory already, one place after the other, many times."""
    for place in places:
        Place(place).epoch(names)
        Place(place).epoch([LARGE], size=size)
    for _ in range(REPEATED):
        found = {
            "100 KB of an open file, in memory": [open_already(place, names) for place in places],
            "files of 100 KB, in memory": [Place(place).epoch(names) for place in places],
            "a large file, in memory": [Place(place).epoch([LARGE], size=size) for place in places],
        }
        for title, seconds in found.items():
            rows.setdefault(title, []).append(seconds)


def from_disk(places: list[Path], names: list[str], rows: Rows) -> None:
    taken = []
    for place in places:
        os.listdir(place / "data")
        drop_caches()
        taken.append(Place(place).epoch(names))
    rows.setdefault("files of 100 KB, cold disk", []).append(taken)


def measure(rounds: int = 3, files: int = 2000, mib: int = 256) -> dict[str, Any]:
    rows: Rows = {}
    with workplace() as name:
        root = Path(name)
        program, local, passing = compiled(root / "passthrough_ll"), root / "local", root / "passing"
        names = images(root / "repository", files, SIZE)
        large_file(root / "large", mib * MiB)
        for place in (local, passing):
            large_copy(root / "large", place)
            plain_copy(root / "repository", place, names, SIZE)
        with (
            hub(root / "repository") as url,
            hub(root / "large") as url_of_large,
            passed_through(program, passing, root / "c") as in_c,
        ):
            for number in range(rounds):
                say(f"kernel_limit: round {number + 1}")
                home, mount = Home(root / f"home{number}"), root / f"mount{number}"
                with home.mounted(url, mount) as data, home.mounted(url_of_large, root / "other") as other:
                    both = Path(name) / f"both{number}"
                    both.mkdir()
                    (both / "data").symlink_to(data / "data")
                    (both / LARGE).symlink_to(other / LARGE)
                    one_round([local, in_c, both], names, mib * MiB, rows)
                if may_drop_caches():
                    with home.mounted(url, mount) as data:
                        from_disk([local, in_c, data], names, rows)
                retire(home.root)
    what = f"{files} files of 100 KB, {mib} MiB, median of {rounds}"
    return {"rows": {title: medians(found) for title, found in rows.items()}, "what": what}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [
        [title, *(f"{seconds:.3f}" for seconds in found), *(f"{found[0] / seconds:.2f}" for seconds in found[1:])]
        for title, found in figures["rows"].items()
    ]
    head = [figures["what"], "local disk, s", "in C, s", "dagfs, s", "rate of local's: in C", "dagfs"]
    return [Table("kernel-limit", "make bench PARTS=kernel_limit", head, rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--mib", type=int, default=256)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
