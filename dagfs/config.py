"""Where things lie and how much they may use: decided once at start, frozen afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dagfs import system
from dagfs.errors import UsageError

DEFAULT_HOST = "https://dagshub.com"
DEFAULT_CACHE_BYTES = 50 << 30
"""Bytes. Holds the guide's 540,000 images of 100 KB, and leaves a laptop's disk usable."""

MIN_FREE_FRACTION = 0.05
"""Share of the cache's disk that stays free whatever the limit says: a full disk breaks other programs first."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one user: `cache` can be lost, `state` has logs, `runtime` sockets and pid files."""

    cache: Path
    state: Path
    runtime: Path
    client_tokens: Path


def places(environment: Mapping[str, str], cache_dir: str | None = None) -> Places:
    """Give the directories that the XDG variables name; `cache_dir` and DAGFS_CACHE_DIR override the cache's."""
    home = Path(environment.get("HOME") or _home_of_user())
    cache_home = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    # Absolute, all of them: the daemon leaves the directory that it was started in.
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local/state").absolute() / "dagfs"
    cache = cache_dir or environment.get("DAGFS_CACHE_DIR") or str(cache_home / "dagfs")
    tokens = environment.get("DAGSHUB_CLIENT_TOKENS_CACHE") or str(
        _client_cache(home, cache_home, environment) / "tokens"
    )
    return Places(
        cache=Path(cache).expanduser().absolute(),
        state=state,
        runtime=_runtime(environment.get("XDG_RUNTIME_DIR")) or state / "run",
        client_tokens=Path(tokens).expanduser().absolute(),
    )


def _client_cache(home: Path, cache_home: Path, environment: Mapping[str, str]) -> Path:
    """Give the DagsHub client's directory: appdirs's choice, which knows no XDG variables outside of Linux."""
    platform: str = sys.platform  # a variable, or mypy would take one branch for all there is
    if platform == "darwin":
        return home / "Library/Caches/dagshub"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData/Local") / "dagshub/dagshub/Cache"
    return cache_home / "dagshub"


def _home_of_user() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container runs under a number that its user list does not have
        raise UsageError(f"user {system.user()} has no home directory: set HOME") from None


def _runtime(directory: str | None) -> Path | None:
    """Give our place in XDG_RUNTIME_DIR; None when that is another user's, as after `sudo -E`, or not there."""
    if not directory:
        return None
    ours = Path(directory).absolute() / "dagfs"
    for path in (ours, ours.parent):  # a service is given the first only
        with contextlib.suppress(OSError):
            return ours if path.stat().st_uid == system.user() else None
    return None


def store_root(cache: Path, host: str) -> Path:
    """Give the directory of a hub's store. Each has its own: knowing a hash on one grants nothing of another."""
    return cache / re.sub(r"[^A-Za-z0-9.-]+", "_", host)


def hub_host(environment: Mapping[str, str], option: str | None = None) -> str:
    """Give the hub's URL without a trailing slash: the option, DAGSHUB_CLIENT_HOST, or the public hub."""
    return (option or environment.get("DAGSHUB_CLIENT_HOST") or DEFAULT_HOST).rstrip("/")


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, as those above it that were missing, or see that it is one.

    Raises PermissionError when it, or a link in its place, belongs to somebody else, and when others could write into
    it and it is not empty: what lies there may be theirs.
    """
    for missing in (path, *path.parents)[::-1]:  # mkdir's own `parents` would leave their mode to the umask
        if not missing.is_dir():
            missing.mkdir(mode=0o700, exist_ok=True)
    if system.user() is None:  # Windows keeps a user's directories from others by itself
        return path
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (system.user(), 0):
        raise PermissionError(f"{path} is a link that user {link.st_uid} made; choose another directory")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _make_private(fd, path)
    finally:
        os.close(fd)
    return path


def _make_private(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if status.st_uid != system.user():
        raise PermissionError(f"{path} belongs to user {status.st_uid}; choose another directory")
    if status.st_mode & 0o022 and os.listdir(fd):
        raise PermissionError(
            f"others can write into {path}, and may have done so: look at what it holds, then `chmod 700` it,"
            " or choose another directory"
        )
    if status.st_mode & 0o077:
        os.fchmod(fd, 0o700)


def write_new(path: Path, text: str) -> None:
    """Write a file that did not exist, readable by its owner only. Raises FileExistsError, for a link as well."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.OURS, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
