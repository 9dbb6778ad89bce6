"""What the benchmarks share: epochs read by a plain program, the page cache, the daemon's memory.

Import it first: it makes tests/support known.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.commands import Home, asked

signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no mount or hub is left behind

ROOT = Path(__file__).parent.parent

SIZE = 100_000
"""Bytes of an image, as the benchmarks have them."""

DROP = Path("/proc/sys/vm/drop_caches")
TICKS = os.sysconf("SC_CLK_TCK")
EPOCH = """
import os, sys, time
directory, table, workers, batch, how, size = sys.argv[1:]
names, size, batch, workers = sys.stdin.read().split(), int(size), int(batch), int(workers)
def by_descriptor(path):
    descriptor = os.open(path, os.O_RDONLY)
    left = size
    while left:
        left -= len(os.read(descriptor, min(left, 1 << 20))) or sys.exit(f"{path} is short")
    os.close(descriptor)
def by_open(path):
    with open(path, "rb") as file:
        assert len(file.read()) == size, path
read = {"os.read": by_descriptor, "open()": by_open}[how]
batches = [names[i : i + batch] for i in range(0, len(names), batch)]
started = time.perf_counter()
if table:
    with open(table, "rb") as rows:
        assert rows.read()
children = []
for worker in range(workers):
    pid = os.fork()
    if not pid:
        for name in [name for one in batches[worker::workers] for name in one]:
            read(os.path.join(directory, name))
        os._exit(0)
    children.append(pid)
failed = any([os.waitpid(pid, 0)[1] for pid in children])
print(time.perf_counter() - started)
sys.exit(failed)
"""


@dataclass(frozen=True)
class Place:
    """A directory that shows a repository, and how a program has to read there.

    `prelude` are Python lines that run before the clock starts, `how` is "os.read" or "open()".
    """

    path: Path
    prelude: str = ""
    how: str = "os.read"
    environment: Mapping[str, str] = field(default_factory=dict)

    def epoch(
        self, names: Sequence[str], *, workers: int = 1, batch: int = 1, size: int = SIZE, table: str = ""
    ) -> float:
        """Read files of `size` bytes, dealt to forked workers batch by batch, a table first; give the seconds."""
        program = self.prelude + EPOCH
        first = str(self.path / table) if table else ""
        words = [str(self.path), first, str(workers), str(batch), self.how, str(size)]
        return float(run_program(program, words, "\n".join(names), self.full_environment()))

    def full_environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


def run_program(
    program: str, words: Sequence[str], text: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run Python lines in a process of their own; give what it printed. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        input=text,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
        check=True,
    )
    return done.stdout.splitlines()[-1]


@contextlib.contextmanager
def workplace(directory: str | Path | None = None) -> Iterator[str]:
    """Give a new directory that is removed when the program ends, not before.

    ext4 passes over the inodes that were freed within the last minutes, one by one: files made after thousands of
    others were deleted cost three times as much, and what follows a benchmark would pay for it.
    """
    name = tempfile.mkdtemp(prefix="dagfs-bench-", dir=directory)
    atexit.register(shutil.rmtree, name, ignore_errors=True)
    yield name


def retire(directory: Path) -> None:
    """Make room for another directory of that name, without deleting anything (see `workplace`)."""
    directory.rename(directory.with_name(f"{directory.name}-{time.monotonic_ns()}"))


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    dice = random.Random(seed)  # noqa: S311 -- no secret
    return dice.sample(names, len(names))


def may_drop_caches() -> bool:
    """Not where DAGFS_BENCH_KEEP_CACHES is set: what runs beside may count what the kernel asks."""
    return os.geteuid() == 0 and "DAGFS_BENCH_KEEP_CACHES" not in os.environ


def drop_caches() -> None:
    """Empty the machine's page cache; root only."""
    os.sync()
    DROP.write_text("3")


def cached_bytes() -> int:
    """Give the page cache's size."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["Cached"].split()[0]) * 1024


def processes(home: Home) -> set[int]:
    """Give the pids of a home's only mount: supervisor and worker, or the one that libfuse has."""
    (state,) = home.status()
    return {state["pid"], *state["workers"]}


def spent(home: Home) -> tuple[float, float]:
    """Give the seconds of user and system time that a mount's processes have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes(home)]
    return sum(int(row[11]) for row in fields) / TICKS, sum(int(row[12]) for row in fields) / TICKS


def resident(home: Home) -> tuple[int, int]:
    """Give the peak and the present resident bytes of a mount's processes, each page counted for each of them."""
    peak = now = 0
    for pid in processes(home):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        peak += int(lines["VmHWM"].split()[0]) * 1024
        now += int(lines["VmRSS"].split()[0]) * 1024
    return peak, now


def messages(home: Home) -> int:
    """Give how many messages the kernel has sent to a home's only mount (kernel driver)."""
    (state,) = home.status()
    return sum(count for name, count in state["metrics"].items() if name.startswith("kernel."))


def served(url: str) -> tuple[int, int]:
    """Give the requests and the bytes that the hub has counted since its last reset."""
    counts = asked(url)
    kinds = [kind for kind in counts["requests"] if kind != "own"]
    return sum(counts["requests"][kind] for kind in kinds), sum(counts["bytes"].get(kind, 0) for kind in kinds)


def medians(rounds: Iterable[Sequence[float]]) -> list[float]:
    """Give the median of each column."""
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


INSTALL = {
    "py-spy": "make setup brings it",
    "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c": "apt install libfuse3-dev",
}


def lacking(*programs: str) -> str | None:
    """Say what to install, when one of the programs or files is missing; those of the virtual environment are known,
    too."""
    places = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    absent = [one for one in programs if shutil.which(one, path=places) is None and not os.path.isfile(one)]
    sources = [INSTALL.get(program, f"apt install {program}") for program in absent]
    return f"{', '.join(absent)} missing: {'; '.join(sources)}" if absent else None


def say(text: str) -> None:
    """Tell who waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Give what a reader of the figures must know of the machine."""
    memory = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    kernel = ".".join(os.uname().release.split("-")[0].split(".")[:2])
    python = ".".join(map(str, sys.version_info[:2]))
    return {"cores": os.cpu_count(), "GiB of memory": round(memory / (1 << 20)), "Linux": kernel, "Python": python}
