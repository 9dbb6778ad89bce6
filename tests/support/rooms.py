"""The rooms of one mount over a real hub, in this process and without the kernel: deadlines can be short here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from dagfs.answers import wait
from dagfs.config import places
from dagfs.daemon.core import Core
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.resolving import resolve
from dagfs.hub.auth import Token
from dagfs.hub.urls import parse_repo
from dagfs.vfs.seam import ROOT

DEADLINE = 30  # seconds; far more than any test needs
WITHOUT_NETWORK = 1.5  # seconds that a test waits for a hub: the promised two minutes are too long for it


@dataclass
class Rooms:
    core: Core

    def read(self, path: str) -> bytes:
        """Give a file's bytes, as a program reads them. Raises DagfsError."""
        vfs = self.core.fs
        found = wait(vfs.getattr(ROOT), DEADLINE)
        for name in path.split("/"):
            found = wait(vfs.lookup(found.node, name.encode()), DEADLINE)
        return wait(vfs.read(found.node, 0, found.size), DEADLINE)

    def start_read(self, path: str) -> Future[bytes]:
        """Give the promise of a file's bytes, whose lookup is answered from what is known."""
        vfs = self.core.fs
        found = wait(vfs.getattr(ROOT), DEADLINE)
        for name in path.split("/"):
            found = wait(vfs.lookup(found.node, name.encode()), DEADLINE)
        answer = vfs.read(found.node, 0, found.size)
        assert isinstance(answer, Future)
        return answer

    def stat(self, path: str) -> int:
        """Give a file's size. Raises DagfsError."""
        vfs = self.core.fs
        found = wait(vfs.getattr(ROOT), DEADLINE)
        for name in path.split("/"):
            found = wait(vfs.lookup(found.node, name.encode()), DEADLINE)
        return found.size

    def names(self, path: str = "") -> set[str]:
        vfs = self.core.fs
        found = wait(vfs.getattr(ROOT), DEADLINE)
        for name in path.split("/") if path else ():
            found = wait(vfs.lookup(found.node, name.encode()), DEADLINE)
        listed = wait(vfs.readdir(found.node), DEADLINE)
        return {name.decode() for name, _, _ in listed.rows(0, 1 << 30)} - {".", ".."}

    def sized(self, path: str) -> None:
        """Have the sizes of a directory known, without any of its bytes."""
        self.names(path)
        wait(self.core.tree.sized(self.core.tree.known(path).entry), DEADLINE)

    def requests(self) -> int:
        return sum(count for name, count in self.core.figures().items() if name.startswith("hub.requests."))


@contextlib.contextmanager
def rooms(
    url: str,
    root: Path,
    token: Token | None = None,
    *,
    patience: float = WITHOUT_NETWORK,
    stall_after: float = 30.0,
    offline: bool = False,
) -> Iterator[Rooms]:
    """Resolve the default branch and build the rooms over a cache under `root`; `patience` and `stall_after` in s."""
    token = token or Token("nowhere", None)
    where = places({"HOME": str(root), "XDG_RUNTIME_DIR": ""}, str(root / "cache"))
    repo, _ = parse_repo(url, "https://hub.invalid")
    plan = MountPlan(repo, root / "mount", where, 1 << 30, prefetch=False, offline=offline)
    core = Core(plan, resolve(plan, token), token)
    if not offline:
        core.fetcher.patience = core.source._patience = patience
        core.source._transport._stall_after = stall_after
    try:
        core.tree.prepare()
        yield Rooms(core)
    finally:
        core.close()
