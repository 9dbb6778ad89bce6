"""What one mount is to be: the user's words, decided once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dagfs.config import Places, store_root
from dagfs.kernel.mountinfo import is_ours
from dagfs.kernel.passed import name_of, number_of
from dagfs.model import RefKind, RepoRef

LINKS_MAX = 40  # as the kernel's own


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount. `revision` is a branch, tag or sha, None for the default branch; `subdir` is "" for the whole tree.

    `dvc_remote`: the remote of `.dvc/config` to ask before the hub's API; `shared_cache`: the URL of the tier that
    machines share. `follow`: seconds between two questions for the branch's commit, None for one commit as long as it
    is mounted. `passed`: the descriptor of a mount that somebody else has made; `mountpoint` then is its place, or its
    name. `source`: what the mount table shows instead of the repository's URL. `owner`: pid and start of a process with
    which the mount ends.
    """

    repo: RepoRef
    mountpoint: Path
    places: Places
    cache_bytes: int
    revision: str | None = None
    revision_kind: RefKind = RefKind.ANY
    subdir: str = ""
    token_file: Path | None = None
    allow_other: bool = False
    driver: str = "kernel"
    prefetch: bool = True
    passthrough: bool = False
    follow: float | None = None
    hold_while_open: bool = False
    offline: bool = False
    dvc_cache: Path | None = None
    dvc_remote: str | None = None
    shared_cache: str | None = None
    metrics: str | None = None  # HOST:PORT
    log_format: str = "text"
    passed: int | None = None
    source: str = ""
    noexec: bool = False
    owner: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """Names the mount's state file, socket and log."""
        return mount_id(self.mountpoint)

    @property
    def store_root(self) -> Path:
        return store_root(self.places.cache, self.repo.host)


def ledger_path(places: Places, name: str) -> Path:
    """Where the mount of that name writes down what its kernel remembers."""
    return places.state / "mounts" / name


def mount_id(mountpoint: Path) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def absolute(mountpoint: str | Path) -> Path:
    """Give a path as the mount table has it: without links, relative names and dots.

    From a dagfs mount on, nothing is looked at: it may be dead, or its hub slow. The name of a descriptor stays.
    """
    if (number := number_of(str(mountpoint))) is not None:
        return Path(name_of(number))
    wanted = Path(mountpoint).expanduser()
    if not wanted.is_absolute():
        wanted = Path.cwd() / wanted
    here, names, links = "/", list(wanted.parts[:0:-1]), 0
    while names:
        there = os.path.normpath(os.path.join(here, names.pop()))
        if is_ours(there):
            return Path(os.path.normpath(os.path.join(there, *reversed(names))))
        target = _link(there) if links < LINKS_MAX else None
        if target is None:
            here = there
        else:
            links += 1
            names += reversed(Path(target).parts)  # the first may be "/"
    return Path(here)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
