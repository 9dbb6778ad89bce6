"""`dagfs.mount()`, for scripts and notebooks: what `dagfs mount` does, for as long as this process needs it.

The file system is served by a daemon, never by this process: a program that reads what it serves itself waits for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess  # one call, judged where it is  # nosec B404
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from dagfs.cli.mount import mount as command
from dagfs.config import places
from dagfs.daemon.ending import end
from dagfs.daemon.plan import absolute, mount_id
from dagfs.daemon.reports import reports
from dagfs.daemon.state import MountState, Registry, birth, lives
from dagfs.errors import BadMountPoint, DagfsError, UsageError

_OWN_CHOICE = {"foreground", "owner"}
_PACKAGE = Path(__file__).resolve().parent


def mount(repo: str, mountpoint: str | os.PathLike[str], **options: Any) -> Mount:
    """Mount REPO at a directory, which is made if it is missing, and return when it can be read.

    `options` are those of `dagfs mount`, with _ for -: branch="main", cache_size="10GiB", follow=60, offline=True.
    The mount ends with the `with` block, with `unmount()`, or with this process, however that ends. One that this
    process has made there before is replaced. Raises DagfsError as the command would fail, and TypeError.
    """
    return Mount(repo, absolute(Path(mountpoint)), list(_words(options)))


class Mount(os.PathLike[str]):
    """A mount of this process. Used as a path, it is its directory."""

    def __init__(self, repo: str, path: Path, words: list[str]) -> None:
        self.repo = repo
        self.path = path
        self._made = False
        _end_if(path, lambda state: _is_ours(state) or not lives(state.owner, state.owner_born))
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            self._made = True
        atexit.register(self.unmount)  # first: an interrupt may come at any time
        try:
            _run("mount", repo, str(path), *words, "--owner", str(os.getpid()))
        except BaseException:
            self.unmount()
            raise

    def unmount(self) -> None:
        """End the mount; programs that still read get an error. Nothing happens when it has ended already, nor in a
        forked child, which ends with its parent's mount in its hands."""
        _end_if(self.path, _is_ours)
        if self._made:
            with contextlib.suppress(OSError):  # somebody uses it for something else
                self.path.rmdir()
        atexit.unregister(self.unmount)

    def status(self) -> dict[str, Any]:
        """Give what `dagfs status --json` tells of it; {} when it has ended."""
        return next(iter(reports(places(os.environ), self.path)), {})

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<dagfs.Mount of {self.repo} at {self.path}>"


def _words(options: dict[str, Any]) -> Iterator[str]:
    """Spell keyword arguments as the command's options. Raises TypeError."""
    known = {
        option.name: option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _OWN_CHOICE
    }
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            raise TypeError(f"mount() got an unexpected keyword argument {name!r}")
        for one in value if option.multiple and value is not None else [value]:
            if option.is_flag:
                yield from [option.opts[0]] if one else []
            elif one is not None:
                yield f"{option.opts[0]}={os.fspath(one) if isinstance(one, os.PathLike) else one}"


def _run(*words: str) -> None:
    """Run the command. Raises its error, found by its exit status, with its one line."""
    known = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE.parent), *([known] if known else [])])}
    # Not from the directory that a notebook lies in: it may have a file of a library's name.
    safely = ["-P"] if sys.version_info >= (3, 11) else []
    done = subprocess.run(  # noqa: S603 -- ourselves, without a shell  # nosec B603
        [sys.executable, *safely, "-m", "dagfs", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"`dagfs {words[0]}` ended with {done.returncode}"])[-1]
        kind = next((kind for kind in _kinds(UsageError) if kind.exit_status == done.returncode), DagfsError)
        raise kind(line.removeprefix("dagfs: ").removeprefix("Error: "))


def _kinds(kind: type[UsageError]) -> Iterator[type[UsageError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _end_if(path: Path, wanted: Any) -> None:
    """End the mount at a path, if a Python process owns it and it is a `wanted` one."""
    own = places(os.environ)
    state = Registry(own.runtime).read(mount_id(path))
    if state is not None and state.owner and wanted(state):
        with contextlib.suppress(BadMountPoint):  # it has ended meanwhile
            end(path, own)


def _is_ours(state: MountState) -> bool:
    return (state.owner, state.owner_born) == (os.getpid(), birth(os.getpid()))
