"""A mount that somebody else has made and passed as an open descriptor of /dev/fuse: `/dev/fd/N`, as in libfuse.

Who serves it needs neither the device nor a right to mount, and may not even see the mount.
"""

from __future__ import annotations

import os
import re
import select
import stat
from dataclasses import dataclass
from pathlib import Path

from dagfs.errors import BadMountPoint
from dagfs.kernel.mountinfo import abort, mount_points
from dagfs.kernel.mounting import Mount
from dagfs.kernel.pulse import Pulse

FUSE_DEVICE = (10, 229)  # major, minor of /dev/fuse
STANDARD = 3  # descriptors below are stdin, stdout and stderr

INIT_SECONDS = 10.0
"""The kernel sends its first request when it mounts: where none waits, none will come, or another has answered it."""

_NUMBERED = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


@dataclass(frozen=True, slots=True)
class PassedMount(Mount):
    """A mount whose place on the tree is somebody else's: it ends with its descriptor, and stays there, dead."""

    def end(self) -> bool:
        return abort(self.connection)

    @property
    def reachable(self) -> bool:
        return False

    @property
    def mounted(self) -> bool:
        """Whether its own daemon leaves it behind: it is not the daemon's to take away."""
        return False


def number_of(mountpoint: str) -> int | None:
    """Give N of `/dev/fd/N`, None of any other path."""
    found = _NUMBERED.fullmatch(mountpoint)
    return int(found[1]) if found else None


def name_of(number: int) -> str:
    return f"/dev/fd/{number}"


def place_of(number: int) -> str | None:
    """Give where a passed mount is on the tree, None where it cannot be seen (or before Linux 6.17 cannot be told)."""
    connection = _connection(number)
    if connection is None:
        return None
    return next(
        (at.path for at in mount_points() if at.connection == connection and at.file_system.startswith("fuse")), None
    )


def check_passed(number: int) -> None:
    """Raise BadMountPoint when a descriptor is none of /dev/fuse."""
    try:
        status = os.fstat(number)
    except OSError as error:
        raise BadMountPoint(
            f"descriptor {number} is not open here ({error.strerror}): who starts dagfs passes it"
        ) from None
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != FUSE_DEVICE:
        raise BadMountPoint(f"descriptor {number} is not of /dev/fuse")
    if number < STANDARD:
        raise BadMountPoint(f"descriptor {number} is a standard stream: pass the mount as {STANDARD} or higher")


def take(number: int, pulse: Pulse | None) -> PassedMount:
    """Take over a descriptor; it is this process's from now on. Raises BadMountPoint."""
    check_passed(number)
    os.set_inheritable(number, False)
    os.set_blocking(number, True)
    first = select.poll()
    first.register(number, select.POLLIN)
    (event,) = first.poll(INIT_SECONDS * 1000) or [(number, 0)]
    if not event[1] & select.POLLIN:
        raise BadMountPoint(f"nothing waits on descriptor {number}: it is not mounted, or another daemon has served it")
    return PassedMount(number, name_of(number), _connection(number), pulse)


def _connection(number: int) -> int | None:
    try:
        lines = Path(f"/proc/self/fdinfo/{number}").read_text().splitlines()
    except OSError:
        return None
    told = (line.partition(":") for line in lines)
    return next((int(value) for name, _, value in told if name == "fuse_connection"), None)
