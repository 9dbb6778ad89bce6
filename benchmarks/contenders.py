"""Who is compared: each shows the same repository, of the same hub, over the same link.

A contender is entered with a directory of its own for what it keeps: an empty one is a cold start, the same once more
is a remount.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from measuring import SIZE, Place, lacking
from support.commands import DETACH, Home

START_SECONDS = 20
CONNECTIONS = 16
"""Of the bare link: more do not make 200 Mbit/s any fuller at 20 ms."""


@dataclass(frozen=True)
class Ground:
    """A hub's repository by its URL, a plain copy of its files, and a directory for mount points."""

    url: str
    plain: Path
    scratch: Path

    @property
    def raw(self) -> str:
        """Where the repository's files are on the hub."""
        origin, owner, name = self.url.rsplit("/", 2)
        return f"{origin}/api/v1/repos/{owner}/{name}/raw/main"


@dataclass(frozen=True)
class Contender:
    """`keeps`: what was read once is nearer the second time. `programs` must be installed."""

    name: str
    enter: Callable[[Ground, Path], AbstractContextManager[Place]]
    keeps: bool = True
    programs: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Say what to install; None when nothing is missing."""
        without = lacking(*self.programs)
        return f"{self.name} is left out, {without}" if without else None


@contextlib.contextmanager
def _local(ground: Ground, _keep: Path) -> Iterator[Place]:
    yield Place(ground.plain)


def _dagfs(driver: str) -> Callable[[Ground, Path], AbstractContextManager[Place]]:
    @contextlib.contextmanager
    def enter(ground: Ground, keep: Path) -> Iterator[Place]:
        with Home(keep).mounted(ground.url, ground.scratch / f"dagfs-{driver}", "--driver", driver) as path:
            yield Place(path)

    return enter


@contextlib.contextmanager
def _rclone(ground: Ground, keep: Path) -> Iterator[Place]:
    """As the DagsHub client calls it, and with one option that is better for it: no HEAD for each file's time."""
    origin, owner, name = ground.url.rsplit("/", 2)
    mountpoint = ground.scratch / "rclone"
    mountpoint.mkdir(exist_ok=True)
    endpoint = f"{origin}/api/v1/repo-buckets/s3/{owner}"
    remote = f":s3,provider=Other,access_key_id=any,secret_access_key=any,endpoint='{endpoint}':{name}/"
    options = ["--vfs-cache-mode", "full", "--use-server-modtime", "--read-only", "--cache-dir", str(keep)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
    environment |= {"HOME": str(keep), "RCLONE_CONFIG": os.devnull}
    command = ["rclone", "mount", *options, remote, str(mountpoint)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            _await_mount(mountpoint, daemon)
            yield Place(mountpoint)
        finally:
            daemon.send_signal(signal.SIGINT)
            try:
                daemon.communicate(timeout=START_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
            if os.path.ismount(mountpoint):
                subprocess.run([*DETACH, str(mountpoint)], check=False, timeout=10)


def _await_mount(mountpoint: Path, daemon: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not os.path.ismount(mountpoint):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            raise RuntimeError(f"rclone did not mount: {daemon.communicate()[1]}")
        time.sleep(0.01)


HOOKS = """
import sys
from dagshub.streaming import install_hooks
install_hooks(project_root={root!r}, repo_url={url!r}, branch="main", token="any")
"""


@contextlib.contextmanager
def _hooks(ground: Ground, keep: Path) -> Iterator[Place]:
    """The DagsHub client's patches of Python's own open(); they end with the program."""
    root = keep / "root"
    root.mkdir(parents=True, exist_ok=True)
    environment = {
        "HOME": str(keep),
        "XDG_CACHE_HOME": str(keep / "cache"),
        "DAGSHUB_CLIENT_HOST": ground.url.rsplit("/", 2)[0],
        "DAGSHUB_USER_TOKEN": "any",
        "DAGSHUB_QUIET": "true",
        "DAGSHUB_DISABLE_ANALYTICS": "1",
    }
    yield Place(root, HOOKS.format(root=str(root), url=ground.url), "open()", environment)


@dataclass(frozen=True)
class Link(Place):
    """The bare link: curl, with as many transfers at once as fill it, keeping nothing."""

    raw: str = ""

    def epoch(
        self, names: Sequence[str], *, workers: int = 1, batch: int = 1, size: int = SIZE, table: str = ""
    ) -> float:
        urls = "".join(f'url = "{self.raw}/{name}"\noutput = "{os.devnull}"\n' for name in names)
        words = [
            "curl",
            "-sSf",
            "--parallel",
            "--parallel-max",
            str(CONNECTIONS),
            "--config",
            "-",
            "-w",
            "%{size_download}\n",
        ]
        started = time.perf_counter()
        done = subprocess.run(words, input=urls, capture_output=True, text=True, check=True, timeout=900)
        taken = time.perf_counter() - started
        assert sum(map(int, done.stdout.split())) == size * len(names)
        return taken


@contextlib.contextmanager
def _link(ground: Ground, _keep: Path) -> Iterator[Place]:
    yield Link(Path(), raw=ground.raw)


LOCAL = Contender("local disk", _local)
LINK = Contender(f"bare link ({CONNECTIONS} curls)", _link, keeps=False, programs=("curl",))
KERNEL = Contender("dagfs", _dagfs("kernel"))
LIBFUSE = Contender("dagfs, libfuse", _dagfs("libfuse"))
RCLONE = Contender("rclone mount", _rclone, programs=("rclone",))
HOOKED = Contender("DagsHub hooks", _hooks)
ALL = (LOCAL, LINK, KERNEL, LIBFUSE, RCLONE, HOOKED)


def present(wanted: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """Give those whose programs are installed, and what to say of the others."""
    return [one for one in wanted if one.missing is None], [one.missing for one in wanted if one.missing]
