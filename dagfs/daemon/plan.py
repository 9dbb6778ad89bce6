"""What one mount is to be: the user's words, decided once."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dagfs.config import Places
from dagfs.model import RepoRef


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount. `revision` is a branch, tag or sha, None for the default branch; `subdir` is "" for the whole tree."""

    repo: RepoRef
    mountpoint: Path
    places: Places
    cache_bytes: int
    revision: str | None = None
    subdir: str = ""
    token_file: Path | None = None
    allow_other: bool = False
    driver: str = "kernel"
    prefetch: bool = True

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
    """Give the mount point's path as /proc/mounts has it, without touching the mount point itself: it may be dead."""
    path = Path(os.path.abspath(Path(mountpoint).expanduser()))
    return Path(os.path.realpath(path.parent)) / path.name if path.name else path
