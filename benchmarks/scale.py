"""What size costs: time, requests, messages and memory of a mount with a thousand to a million files.

    .venv/bin/python benchmarks/scale.py [--files 1000 10000 100000 1000000] [--one-directory 540000] [--latency-ms 20]

Prints a Markdown table. Directories have 1,000 files each, and one repository has all of its files in one. The hub has
rendered each listing before (its own time is a row), so that it is not what is measured. Needs curl.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charts import Chart, lines
from measuring import messages, resident, say, served, workplace
from report import Table, seconds, show
from support.commands import Home, asked
from support.hubs import hub
from support.repos import big_directory, numbered

NEEDS = ("curl",)
IN_ONE = 1000
READ = 5000  # files
MiB = 1 << 20
DU_SECONDS = 600


@dataclass(frozen=True)
class Shape:
    """So many files, so many of them in one directory."""

    files: int
    in_one: int

    @property
    def name(self) -> str:
        return f"{self.files:,}" + ("" if self.in_one == IN_ONE else " in one directory")

    @property
    def directories(self) -> list[str]:
        """Directories that have files, and the one that has these."""
        return ["data", *sorted({name.rpartition("/")[0] for name in self.some(1)} - {"data"})]

    def some(self, every: int) -> list[str]:
        return [f"data/{numbered(i, self.per_directory)}" for i in range(0, self.files, every)]

    @property
    def per_directory(self) -> int | None:
        return IN_ONE if self.in_one == IN_ONE else None


def hub_seconds(url: str, commit: str, directories: list[str], sized: str) -> float:
    """Let curl fetch all listings, 16 at once; give the seconds."""
    origin, owner, name = url.rsplit("/", 2)
    api = f"{origin}/api/v1/repos/{owner}/{name}/content/{commit}"
    lines = "".join(f'url = "{api}/{directory}{sized}"\noutput = "{os.devnull}"\n' for directory in directories)
    started = time.perf_counter()
    words = ["curl", "-sSf", "--no-progress-meter", "--parallel", "--parallel-max", "16", "--config", "-"]
    subprocess.run(words, input=lines, text=True, check=True, timeout=900)
    return time.perf_counter() - started


class Notebook:
    """Seconds, requests and messages of each piece of work on one mount."""

    def __init__(self, home: Home, url: str, rows: dict[str, Any]) -> None:
        self._home = home
        self._url = url
        self._rows = rows

    def note(self, work: str, action: Callable[[], object]) -> None:
        say(work)
        asked(self._url, reset=True)
        before = messages(self._home)
        started = time.perf_counter()
        action()
        taken = time.perf_counter() - started
        requests = served(self._url)[0]
        self._rows[work] = {"seconds": taken, "requests": requests, "messages": messages(self._home) - before}


def program(*words: str | Path) -> Callable[[], object]:
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=DU_SECONDS)


def read_all(root: Path, names: list[str]) -> None:
    for name in names:
        with open(root / name, "rb") as file:
            assert file.read(8).isdigit()


def one_shape(shape: Shape, latency: float) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with workplace() as name, ExitStack() as stack:
        root = Path(name)
        say(f"{shape.name} files: the repository")
        commit = big_directory(root / "repository", shape.files, per_directory=shape.per_directory).head
        url = stack.enter_context(hub(root / "repository", latency=latency))
        for sized in ("?include_size=true", ""):
            hub_seconds(url, commit, shape.directories, sized)
        rows["hub"] = hub_seconds(url, commit, shape.directories, "")
        rows["hub, one"] = hub_seconds(url, commit, shape.directories[-1:], "")
        by_name(Home(root / "by-name"), url, root / "mount", shape, rows)
        by_listing(Home(root / "by-listing"), url, root / "mount", shape, rows)
    return rows


def by_name(home: Home, url: str, mountpoint: Path, shape: Shape, rows: dict[str, Any]) -> None:
    started = time.perf_counter()
    with home.mounted(url, mountpoint) as path:
        rows["mount"] = time.perf_counter() - started
        one = shape.some(1)[shape.files // 2]
        Notebook(home, url, rows).note("open one by name, cold", lambda: read_all(path, [one]))


def by_listing(home: Home, url: str, mountpoint: Path, shape: Shape, rows: dict[str, Any]) -> None:
    with home.mounted(url, mountpoint) as path:
        notebook = Notebook(home, url, rows)
        rows["before"] = resident(home)
        listed = path / shape.directories[-1]
        notebook.note("first `ls -f`", program("ls", "-f", listed))
        notebook.note("second `ls -f`", program("ls", "-f", listed))
        notebook.note("`find`", program("find", path / "data"))
        notebook.note("`find` again", program("find", path / "data"))
        names = shape.some(max(1, (shape.files // READ - 1) | 1))[:READ]  # an odd stride: contents repeat after 10,000
        notebook.note(f"read {READ:,} files, or all", lambda: read_all(path, names))
        rows["after"] = resident(home)
        notebook.note("`du`", program("du", "-s", "--apparent-size", path / "data"))
        rows["after du"] = resident(home)


def measure(files: list[int] | None = None, one_directory: int = 540_000, latency_ms: float = 20) -> dict[str, Any]:
    """`one_directory` 0 leaves that repository out."""
    shapes = [Shape(count, IN_ONE) for count in files or [1000, 10_000, 100_000, 1_000_000]]
    shapes += [Shape(one_directory, one_directory)] if one_directory else []
    return {
        "shapes": {shape.name: one_shape(shape, latency_ms / 1000) for shape in shapes},
        "files": {shape.name: shape.files for shape in shapes},
        "curve": [shape.name for shape in shapes if shape.in_one == IN_ONE],
        "latency": latency_ms,
    }


WORKS = (
    "open one by name, cold",
    "first `ls -f`",
    "second `ls -f`",
    "`find`",
    "`find` again",
    f"read {READ:,} files, or all",
    "`du`",
)


def tables(figures: dict[str, Any]) -> list[Table]:
    names, shapes = list(figures["shapes"]), figures["shapes"]
    command = "make bench PARTS=scale"

    def row(title: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
        return [title, *(cell(shapes[name]) for name in names)]

    def works(what: str, write: Callable[[float], str] = "{:,.0f}".format) -> list[list[str]]:
        return [row(work, lambda one, work=work: write(one[work][what])) for work in WORKS]

    taken = [
        row("the hub alone: that listing, curl", lambda one: seconds(one["hub, one"])),
        row("the hub alone: all listings, 16 curls", lambda one: seconds(one["hub"])),
        row("`dagfs mount`", lambda one: seconds(one["mount"])),
        *works("seconds", seconds),
    ]
    memory = [
        row(title, lambda one, key=key, at=at: f"{one[key][at] / MiB:.0f}")
        for title, key, at in (
            ("MiB before", "before", 1),
            ("MiB, peak until these were read", "after", 0),
            ("MiB then", "after", 1),
            ("MiB, peak with `du`", "after du", 0),
            ("MiB then, with sizes", "after du", 1),
        )
    ]
    each = ["bytes an entry, of those that came"]
    each += [f"{(shapes[n]['after'][1] - shapes[n]['before'][1]) / figures['files'][n]:.0f}" for n in names]
    head = f"files; {figures['latency']:g} ms to the hub"
    return [
        Table("scale-seconds", command, [f"seconds; {head}", *names], taken),
        Table("scale-requests", command, [f"requests; {head}", *names], works("requests")),
        Table("scale-messages", command, [f"messages to the daemon; {head}", *names], works("messages")),
        Table("scale-memory", command, [f"resident memory, supervisor and worker; {head}", *names], [*memory, each]),
    ]


def draw(figures: dict[str, Any], directory: Path) -> None:
    shapes, files, curve = figures["shapes"], figures["files"], figures["curve"]
    works = ("first `ls -f`", "`find`", "`find` again", "`du`")
    taken = {work.replace("`", ""): [(files[n], shapes[n][work]["seconds"]) for n in curve] for work in works}
    taken |= {"all listings by curl": [(files[n], shapes[n]["hub"]) for n in curve]}
    title = f"Walks of directories of {IN_ONE:,} files, {figures['latency']:g} ms to the hub"
    lines(Chart(directory / "scale-seconds.png", title, "seconds"), "files", taken)
    memory = {
        "peak": [(files[n], shapes[n]["after"][0] / MiB) for n in curve],
        "afterwards": [(files[n], shapes[n]["after"][1] / MiB) for n in curve],
        "before": [(files[n], shapes[n]["before"][1] / MiB) for n in curve],
    }
    title = "Resident memory of the daemon, all files listed, 5,000 read"
    lines(Chart(directory / "scale-memory.png", title, "MiB", log=False), "files", memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs="*")
    parser.add_argument("--one-directory", type=int, default=540_000, help="0: leave it out")
    parser.add_argument("--latency-ms", type=float, default=20)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
