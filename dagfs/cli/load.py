"""What two reports of a mount, some time apart, say of what happens in it. No terminal, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second. `hits`: share of the reads that reached the worker which the cache answered; None without reads."""

    received_bytes: float
    requests: float
    reads: float
    hits: float | None


@dataclass(frozen=True, slots=True)
class Process:
    """A process that waits: the requests of all its threads, and the longest of them. `pid` 0: of another namespace."""

    pid: int
    command: str
    requests: int
    seconds: float
    operation: str
    path: str


def rates(before: Report | None, after: Report, seconds: float) -> Rates:
    """Give what happened between two reports; without an earlier one of this very worker, nothing is known to have."""
    now = after.get("metrics", {})
    same = before is not None and before["workers"] == after["workers"]
    then = before.get("metrics", {}) if same and before is not None else now

    def grown(name: str) -> int:
        return max(0, _sum(now, name) - _sum(then, name))

    hits, misses = grown("cache.hits"), grown("cache.misses")
    return Rates(
        received_bytes=grown("fetch.received_bytes") / seconds,
        requests=grown("hub.requests.") / seconds,
        reads=(hits + misses) / seconds,
        hits=hits / (hits + misses) if hits + misses else None,
    )


def processes(waiting: Iterable[Mapping[str, Any]], proc: Path = Path("/proc")) -> list[Process]:
    """Give the processes of waiting threads, who waits longest first."""
    found: dict[int, Process] = {}
    for one in waiting:
        pid = _leader(one["pid"], proc)
        known = found.get(pid)
        if known is None or known.seconds < one["seconds"]:
            count = 1 + (known.requests if known else 0)
            found[pid] = Process(pid, _command(pid, proc), count, one["seconds"], one["operation"], one["path"])
        else:
            found[pid] = Process(pid, known.command, known.requests + 1, known.seconds, known.operation, known.path)
    return sorted(found.values(), key=lambda process: -process.seconds)


def _sum(metrics: Mapping[str, int], name: str) -> int:
    """Give a counter, or the sum of all whose names begin so, when `name` ends with a dot."""
    if not name.endswith("."):
        return metrics.get(name, 0)
    return sum(count for key, count in metrics.items() if key.startswith(name))


def _leader(thread: int, proc: Path) -> int:
    """Give the process of a thread; the thread's own number when it has gone."""
    for line in _lines(proc / str(thread) / "status"):
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return thread


def _command(pid: int, proc: Path) -> str:
    return next(iter(_lines(proc / str(pid) / "comm")), "?") if pid else "in another container"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "backslashreplace").splitlines()
    except OSError:
        return []
