"""End a mount from outside: detach it, then see that its daemon has ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dagfs.config import Places
from dagfs.daemon.plan import mount_id
from dagfs.daemon.reports import is_mounted
from dagfs.daemon.state import MountState, Registry, alive
from dagfs.errors import BadMountPoint
from dagfs.kernel.mounting import unmount

GRACE_SECONDS = 4.0
"""A daemon that still runs so long after its mount has gone is killed: the promise is 5 s in all."""


def end(mountpoint: Path, places: Places) -> str:
    """Unmount `mountpoint` and wait for its daemon; open files do not hold it. Raises BadMountPoint."""
    registry = Registry(places.runtime)
    name = mount_id(mountpoint)
    state = registry.read(name)
    mounted = is_mounted(str(mountpoint))
    if not mounted and (state is None or not alive(state)):
        registry.remove(name)
        raise BadMountPoint(f"nothing is mounted at {mountpoint}")
    if mounted:
        unmount(mountpoint)
    if state is not None:
        _end_processes(state)
    registry.remove(name)
    return f"{mountpoint} is unmounted"


def _end_processes(state: MountState) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    _signal(state, signal.SIGTERM)
    while alive(state) and time.monotonic() < deadline:
        time.sleep(0.02)
    if alive(state):
        _signal(state, signal.SIGKILL)


def _signal(state: MountState, number: int) -> None:
    """Signal the daemon, never a process that was given its pid later."""
    if alive(state):
        try:
            os.kill(state.pid, number)
        except ProcessLookupError:
            pass
