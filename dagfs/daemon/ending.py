"""End a mount from outside: detach it, then see that its daemon has ended."""

from __future__ import annotations

import os
import pwd
import signal
import time
from pathlib import Path

from dagfs.config import Places
from dagfs.daemon.claim import clear
from dagfs.daemon.plan import ledger_path, mount_id
from dagfs.daemon.state import MountState, Registry, alive, holding
from dagfs.errors import BadMountPoint, DagfsError
from dagfs.kernel.mountinfo import find_mount, is_ours
from dagfs.kernel.mounting import unmount
from dagfs.store.ledger import forget

GRACE_SECONDS = 4.0
"""A daemon that still runs so long after its mount has gone is killed: the promise is 5 s in all."""


def end(mountpoint: Path, places: Places) -> str:
    """Unmount `mountpoint` and wait for its daemon; open files do not hold it. Raises BadMountPoint."""
    registry = Registry(places.runtime)
    passed = next((each for each in registry.states().values() if each.descriptor == str(mountpoint)), None)
    mountpoint = Path(passed.mountpoint) if passed else mountpoint
    name = mount_id(mountpoint)
    state = registry.read(name)
    elsewhere = state is not None and bool(state.descriptor)  # who has made the mount takes it off the tree
    mounted = is_ours(str(mountpoint)) and not elsewhere
    if not mounted and (state is None or not alive(state)):
        registry.remove(name)
        raise BadMountPoint(_nothing_at(mountpoint, registry))
    if mounted:
        _unmount(mountpoint)
    if state is not None:
        _end_processes(state)
    if state == registry.read(name):  # else somebody mounts there again already
        registry.remove(name)
        forget(ledger_path(places, name))
        clear(registry.lock(name))
    if elsewhere:
        return f"the daemon of {mountpoint} has ended; who has made the mount takes it away"
    if is_ours(str(mountpoint)):
        raise DagfsError(f"{mountpoint} is still a mount point: there were two mounts; unmount it again")
    return f"{mountpoint} is unmounted"


def _unmount(mountpoint: Path) -> None:
    """Raises DagfsError: BadMountPoint is for places where nothing is mounted."""
    found = find_mount(str(mountpoint))
    if found and found.user is not None and os.geteuid() not in (0, found.user):
        raise DagfsError(f"{mountpoint} is a mount of user {_name(found.user)}: only that user and root can unmount it")
    try:
        unmount(mountpoint)
    except BadMountPoint as error:
        if is_ours(str(mountpoint)):  # else somebody else was faster
            raise DagfsError(f"{mountpoint} stays mounted: {error}") from error


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _nothing_at(mountpoint: Path, registry: Registry) -> str:
    found = find_mount(str(mountpoint))
    if found is not None:
        return f"{mountpoint} is no dagfs mount: it is {found.file_system}"
    holder = holding(registry.states().values(), mountpoint)
    return f"nothing is mounted at {mountpoint}" + (f"; it lies in {holder.mountpoint}" if holder else "")


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
