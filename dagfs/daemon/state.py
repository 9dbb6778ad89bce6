"""What is mounted: one small JSON file a mount in the runtime directory, written by its daemon, read by everybody."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dagfs.config import private_directory, write_new


@dataclass(frozen=True, slots=True)
class MountState:
    """One mount as `dagfs status --json` prints it.

    `pid` is the process that holds the mount, `workers` may be killed without harm. `state` is one of starting,
    serving, recovering, failed (`reason` says why); who reads it may find that it is unresponsive, ending or dead.
    `born` is the start time of `pid` in clock ticks: a reused pid does not deceive. `descriptor`: /dev/fd/N, where the
    mount was made by somebody else and passed so; `mountpoint` is the same where it cannot be seen. `owner`: the
    process with which the mount ends, 0 for none.
    """

    mountpoint: str
    repo: str
    host: str
    branch: str | None
    commit: str
    driver: str
    version: str
    state: str
    pid: int
    workers: tuple[int, ...]
    generation: int
    log: str
    cache: str
    born: int
    reason: str = ""
    descriptor: str = ""
    owner: int = 0
    owner_born: int = 0

    def changed(self, **fields: Any) -> MountState:
        return replace(self, **fields)


class Registry:
    """The state files of one user."""

    def __init__(self, runtime: Path) -> None:
        self._directory = runtime

    def write(self, name: str, state: MountState) -> None:
        """Publish by rename: a reader sees the old state or the new one."""
        path = private_directory(self._directory) / f"{name}.json"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)  # of a process that had our number
        write_new(draft, json.dumps(asdict(state)))
        draft.replace(path)

    def remove(self, name: str) -> None:
        for path in (self._directory / f"{name}.json", self.socket(name), *self._directory.glob(f"{name}.*.tmp")):
            path.unlink(missing_ok=True)

    def read(self, name: str) -> MountState | None:
        """Give a mount's state, also of a daemon of another version; None when there is none or the file is damaged."""
        try:
            known = json.loads((self._directory / f"{name}.json").read_text())
            told = {field.name: known[field.name] for field in fields(MountState) if field.name in known}
            state = MountState(**told)
            return state.changed(workers=tuple(state.workers))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return sorted(path.stem for path in self._directory.glob("*.json"))
        return []

    def states(self) -> dict[str, MountState]:
        """Give what is known of each mount, by name."""
        return {name: state for name in self.names() if (state := self.read(name))}

    def lock(self, name: str) -> Path:
        return private_directory(self._directory) / f"{name}.lock"

    def socket(self, name: str) -> Path:
        return self._directory / f"{name}.sock"


def holding(states: Iterable[MountState], path: Path) -> MountState | None:
    """Give the mount that a path, made absolute, lies in; None when it lies in none."""
    holders = [state for state in states if path.is_relative_to(state.mountpoint) or str(path) == state.descriptor]
    return max(holders, key=lambda state: len(state.mountpoint), default=None)


def birth(pid: int) -> int:
    """Give a process's start time in clock ticks, 0 when there is no such process or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    after_name = stat.rpartition(")")[2].split()
    return 0 if after_name[0] == "Z" else int(after_name[19])


def alive(state: MountState) -> bool:
    """Tell whether the process that held this mount still runs."""
    return lives(state.pid, state.born)


def lives(pid: int, born: int) -> bool:
    """Tell whether the process that had this number, and started then (`birth`), still runs."""
    if not Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return True
        return False
    return birth(pid) == born != 0
