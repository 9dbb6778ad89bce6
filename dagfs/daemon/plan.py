"""What one mount is to be: the user's words, decided once."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dagfs.config import Places
from dagfs.kernel.mountinfo import is_ours
from dagfs.model import RefKind, RepoRef


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount. `revision` is a branch, tag or sha, None for the default branch; `subdir` is "" for the whole tree."""

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
    offline: bool = False

    @property
    def id(self) -> str:
        """Names the mount's state file, socket and log."""
        return mount_id(self.mountpoint)

    @property
    def store_root(self) -> Path:
        """The cache of this hub: one store per origin, so that knowing a hash on one hub grants nothing of another."""
        return self.places.cache / re.sub(r"[^A-Za-z0-9.-]+", "_", self.repo.host)


def mount_id(mountpoint: Path) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def absolute(mountpoint: str | Path) -> Path:
    """Give a path as the mount table has it: without links, relative names and dots.

    From a dagfs mount on, nothing is looked at: it may be dead, or its hub slow.
    """
    wanted = Path(mountpoint).expanduser()
    if not wanted.is_absolute():
        wanted = Path.cwd() / wanted
    here = "/"
    for position, name in enumerate(wanted.parts[1:], start=1):
        here = os.path.realpath(os.path.join(here, name))
        if is_ours(here):
            return Path(os.path.normpath(os.path.join(here, *wanted.parts[position + 1 :])))
    return Path(here)
