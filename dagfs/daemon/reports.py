"""What `dagfs status` tells: the state files, completed by what the living daemons say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagfs.config import Places
from dagfs.daemon.control import ask
from dagfs.daemon.state import MountState, Registry, alive

ANSWER_SECONDS = 5.0
"""A daemon that says nothing for so long is reported without its figures."""


def reports(places: Places, mountpoint: Path | None = None) -> list[dict[str, Any]]:
    """Give one report a mount, or of the one at `mountpoint`; what has ended and left no mount behind is forgotten."""
    registry = Registry(places.runtime)
    found = ((name, registry.read(name)) for name in registry.names())
    wanted = [(name, state) for name, state in found if state and mountpoint in (None, Path(state.mountpoint))]
    return [report for name, state in wanted if (report := _report(registry, name, state))]


def _report(registry: Registry, name: str, state: MountState) -> dict[str, Any] | None:
    report = {**asdict(state), "metrics": {}, "hidden": 0}
    del report["born"]
    if not alive(state):
        if not is_mounted(state.mountpoint):
            registry.remove(name)
            return None
        return report | {"state": "dead", "workers": ()}
    try:
        return report | next(ask(registry.socket(name), {"op": "status"}, ANSWER_SECONDS))
    except (OSError, StopIteration):
        return report


def is_mounted(mountpoint: str) -> bool:
    """Tell whether a dagfs mount is at `mountpoint`, asking the kernel's table and not the mount: it may hang."""
    try:
        table = Path("/proc/self/mounts").read_text(errors="surrogateescape")
    except OSError:
        return Path(mountpoint).is_mount()
    rows = (line.split(" ") for line in table.splitlines())
    return any(_unescaped(row[1]) == mountpoint and "fuse" in row[2] for row in rows)


def _unescaped(field: str) -> str:
    """Undo the octal escapes of /proc/mounts."""
    for code in ("040", "011", "012", "134"):
        field = field.replace(f"\\{code}", chr(int(code, 8)))
    return field
