"""A long run in short: readers of every kind, a hub in bad weather, and what the daemon uses meanwhile."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil
from support.commands import Home
from support.repos import Truth
from support.storms import storm
from support.walks import sha256

from dagfs.devhub.behaviour import Fault, FaultHook, RequestInfo

FAULTS = (
    Fault(status=503),
    Fault(status=429, retry_after="1"),
    Fault(cut_after=20_000),
    Fault(reset_after=5_000),
    Fault(stall_after=10_000, stall_seconds=1.0),
    Fault(delay=0.3),
    Fault(flip=17),
)
SHARE = 0.05
"""Of the answers that go wrong: five in a row would be an error, which happens once in three million answers."""

PERIOD = 2.0  # seconds between two samples

PAGES = """
import collections, hashlib, json, mmap, os, random, sys
path, seed, stop, block = sys.argv[1], int(sys.argv[2]), sys.argv[3], 65536
digests, dice, seen = json.load(open(sys.argv[4])), random.Random(seed), collections.Counter()
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
    while not os.path.exists(stop):
        at = dice.randrange(len(digests))
        found = hashlib.sha256(pages[at * block : (at + 1) * block]).hexdigest()
        seen["right" if found == digests[at] else "wrong"] += 1
        if not dice.randrange(64):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
print(json.dumps(seen))
"""
"""Page faults all over a large file, which the cache cannot keep whole for ever."""

STUCK = """
import errno, sys
while True:
    try:
        with open(sys.argv[1], "rb") as file:
            file.read()
        print("wrong", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""
"""Reads what the hub never finishes, and tells each error; ends by a signal."""

PROBE = """
import json, os, sys, time
path, stop, taken = sys.argv[1], sys.argv[2], []
fd = os.open(path, os.O_RDONLY)
os.pread(fd, 1 << 20, 0)
while not os.path.exists(stop):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    os.pread(fd, 4096, 0)
    taken.append(time.perf_counter() - started)
    time.sleep(0.01)
print(json.dumps(taken))
"""
"""Times reads that the daemon answers from its cache: the kernel has forgotten the pages each time."""


@dataclass(frozen=True)
class Sample:
    """What the worker uses, in bytes where it is memory or disk."""

    memory: int
    threads: int
    descriptors: int
    connections: int
    disk: int


@dataclass(frozen=True)
class Course:
    """How a soak went. `failures` of readers by kind; latencies in seconds, without and with stuck downloads."""

    samples: list[Sample]
    reads: int
    failures: dict[str, int]
    stuck: Counter[str]
    calm: list[float]
    disturbed: list[float]
    remounts: int

    def highest(self, part: slice) -> Sample:
        return Sample(*map(max, zip(*map(astuple, self.samples[part]), strict=True)))

    def table(self) -> str:
        """Give the figures as text: the highest of each third of the run, and percentiles of cached reads."""
        third = len(self.samples) // 3
        thirds = [self.highest(slice(i * third, (i + 1) * third)) for i in range(3)]
        rows = [
            f"  {field.name:<12}" + "".join(f"{_short(getattr(one, field.name)):>12}" for one in thirds)
            for field in fields(Sample)
        ]
        head = f"{self.reads:,} reads, failures {self.failures}, stuck {dict(self.stuck)}, {self.remounts} remounts"
        times = [
            f"  cached reads {name}: median {1e3 * statistics.median(taken):.2f} ms, p99 {1e3 * p99(taken):.2f} ms"
            for name, taken in (("calm", self.calm), ("beside stuck downloads", self.disturbed))
            if len(taken) > 1
        ]
        return "\n".join([head, *times, "  highest in each third of the run", *rows])


def p99(taken: list[float]) -> float:
    return sorted(taken)[int(0.99 * len(taken))]


def weather(stuck: str, large: str) -> FaultHook:
    """Give a hub's faults: some of all answers but those of the REST API, and all of the path `stuck`.

    No byte of `large` is flipped: a part of it cannot be told from a right one until all of it is there, and this cache
    drops parts before (docs/semantics.md).
    """

    def fault(request: RequestInfo) -> Fault | None:
        if request.path == stuck and request.kind == "raw":
            return Fault(stall_after=0)
        dice = random.Random(f"{request.kind} {request.path} {request.span} {request.number}")
        if request.kind == "rest" or dice.random() >= SHARE:
            return None
        return dice.choice([fault for fault in FAULTS if fault.flip is None or request.path != large])

    return fault


@dataclass(frozen=True)
class Scene:
    """Where a soak takes place; `large`, `stuck` and `probed` are paths of the repository."""

    url: str
    truth: Truth
    home: Home
    scratch: Path
    large: str
    stuck: str
    probed: str


def soak(scene: Scene, seconds: float, *options: str) -> Course:
    """Read from one mount for `seconds`, in its last four fifths beside downloads that are stuck, while another mount
    of the same cache comes and goes."""
    samples: list[Sample] = []
    with (
        scene.home.mounted(scene.url, scene.scratch / "mount", *options) as root,
        _sampling(scene.home, root, samples),
        storm(root, _small(scene), scene.scratch, readers=4) as readers,
    ):
        calm = _probe(root / scene.probed, scene.scratch, seconds / 5)
        stop = scene.scratch / "stop-others"
        others = [_start(STUCK, root / scene.stuck) for _ in range(4)]
        pages = [_start(PAGES, root / scene.large, seed, stop, _digests(scene)) for seed in range(2)]
        try:
            with _remounting(scene, options) as remounts:
                disturbed = _probe(root / scene.probed, scene.scratch, 4 * seconds / 5)
            stop.touch()
            paged = _sum(pages)
            stuck = Counter(word for one in others for word in _ended(one).split())
        finally:
            for one in (*others, *pages):
                one.kill()
    failures = readers.failures | ({"pages wrong": paged["wrong"]} if "wrong" in paged else {})
    return Course(samples, readers.seen["right"], failures, stuck, calm, disturbed, len(remounts))


def _small(scene: Scene) -> Truth:
    """Give the truth without the files that have readers of their own."""
    own = (scene.large, scene.stuck)
    head = {path: data for path, data in scene.truth.files.items() if path not in own}
    return Truth(scene.truth.path, scene.truth.head, {scene.truth.head: head}, {}, scene.truth.branches)


def _digests(scene: Scene) -> Path:
    data, path = scene.truth.files[scene.large], scene.scratch / "digests"
    path.write_text(json.dumps([sha256(data[at : at + 65536]) for at in range(0, len(data), 65536)]))
    return path


@contextlib.contextmanager
def _sampling(home: Home, root: Path, samples: list[Sample]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(PERIOD):
            with contextlib.suppress(psutil.Error, OSError, StopIteration):  # the worker may be another by now
                samples.append(_sample(home, root))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _sample(home: Home, root: Path) -> Sample:
    worker = next(one["workers"][-1] for one in home.status() if one["mountpoint"] == str(root))
    process = psutil.Process(worker)
    with process.oneshot():
        return Sample(
            process.memory_info().rss,
            process.num_threads(),
            process.num_fds(),
            len([one for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]),
            disk_usage(home.root / "cache"),
        )


def disk_usage(root: Path) -> int:
    """Give the bytes of disk below a directory, while others write there."""
    used = 0
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            used += path.lstat().st_blocks * 512
    return used


@contextlib.contextmanager
def _remounting(scene: Scene, options: tuple[str, ...]) -> Iterator[list[int]]:
    """Mount, read a little and unmount beside the other mount, until the block ends; gives a list with one for each."""
    over, done = threading.Event(), []
    names = sorted(_small(scene).files)

    def run() -> None:
        while not over.is_set():
            with scene.home.mounted(scene.url, scene.scratch / "again", *options) as root:
                for name in random.Random(len(done)).sample(names, min(20, len(names))):
                    assert (root / name).read_bytes() == scene.truth.files[name]
            done.append(1)
            over.wait(3)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def _probe(path: Path, scratch: Path, seconds: float) -> list[float]:
    stop = scratch / "stop-probe"
    stop.unlink(missing_ok=True)
    probe = _start(PROBE, path, stop)
    time.sleep(seconds)
    stop.touch()
    taken: list[float] = json.loads(probe.communicate(timeout=120)[0])
    return taken


def _start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True)


def _ended(program: subprocess.Popen[str]) -> str:
    """End a program that reads for ever, and give what it said. The kernel may keep one whose read is under way until
    its answer has come, at the deadline."""
    program.kill()
    return program.communicate(timeout=180)[0]


def _sum(programs: list[subprocess.Popen[str]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for program in programs:
        for name, count in json.loads(program.communicate(timeout=180)[0]).items():
            total[name] = total.get(name, 0) + count
    return total


def _short(value: int) -> str:
    return f"{value / (1 << 20):.1f} MiB" if value >= 1 << 20 else str(value)
