"""What the kernel says about mounts and connections, read without touching any mounted file system."""

from __future__ import annotations

import enum
import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FILE_SYSTEM = "fuse.dagfs"
CONNECTIONS = "/sys/fs/fuse/connections"
ANSWER_SECONDS = 5.0
DEAD = 3  # an exit status


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A line of the mount table. `connection`: the minor device number, by which the kernel calls a FUSE connection.
    `shared`: what is mounted below is seen by other mount namespaces that have it, too. `user`: whose FUSE mount it is.
    """

    path: str
    file_system: str
    connection: int
    shared: bool = False
    user: int | None = None

    @property
    def ours(self) -> bool:
        return self.file_system == FILE_SYSTEM


def mount_points() -> Iterator[MountPoint]:
    """Give the mounts that this process can see, the oldest first."""
    # A carriage return in a path ends no line, and the kernel does not escape it.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as table:
        for line in table:
            fields = line.split(" ")
            end = fields.index("-")  # of the fields that there may be any number of
            shared = any(field.startswith("shared:") for field in fields[6:end])
            user = re.search(r"\buser_id=(\d+)", fields[end + 3])
            yield MountPoint(
                _unescaped(fields[4]),
                fields[end + 1],
                int(fields[2].partition(":")[2]),
                shared,
                int(user[1]) if user else None,
            )


def find_mount(path: str) -> MountPoint | None:
    """Give the topmost mount at an absolute path, None when there is none."""
    found = None
    for mount in mount_points():
        if mount.path == path:
            found = mount
    return found


def holder(path: str) -> MountPoint | None:
    """Give the mount that an absolute path without links lies on."""
    found = None
    for mount in mount_points():
        inside = path == mount.path or path.startswith(mount.path.rstrip("/") + "/")
        if inside and (found is None or len(mount.path) >= len(found.path)):
            found = mount
    return found


def is_ours(path: str) -> bool:
    """Tell whether a dagfs mount is at an absolute path; where there is no mount table, whether any mount is."""
    try:
        found = find_mount(path)
    except FileNotFoundError:
        return os.path.ismount(path)
    return found is not None and found.ours


def abort(connection: int | None) -> bool:
    """End a FUSE connection: its programs get errors at once, however stuck its daemon is. False when not possible, or
    when its number is not known."""
    if connection is None:
        return False
    try:
        with open(f"{CONNECTIONS}/{connection}/abort", "w", encoding="ascii") as control:
            control.write("1")
    except OSError:  # already gone, somebody else's, or the control file system is not mounted
        return False
    return True


class Life(enum.Enum):
    """What a mount point's daemon is found to be."""

    ANSWERS = "answers"
    DEAD = "has gone"
    SILENT = "is there, and stuck"


def is_dead(path: str) -> bool:
    """Tell whether the daemon behind a mount point has gone; a stuck one has not."""
    return lives([path])[path] is Life.DEAD


def lives(paths: Sequence[str]) -> dict[str, Life]:
    """Ask the daemons behind mount points, all at once. One that gives no answer within 5 s is there, and stuck.

    Processes of their own ask: whoever asks a stuck daemon cannot be ended before it is.
    """
    askers = {path: _asker(path) for path in paths}
    found = dict.fromkeys(paths, Life.SILENT)
    deadline = time.monotonic() + ANSWER_SECONDS
    while askers and time.monotonic() < deadline:
        for path, asker in list(askers.items()):
            pid, status = os.waitpid(asker, os.WNOHANG)
            if pid:
                del askers[path]
                found[path] = Life.DEAD if os.waitstatus_to_exitcode(status) == DEAD else Life.ANSWERS
        time.sleep(0.005 if askers else 0)
    for asker in askers.values():
        os.kill(asker, signal.SIGKILL)
    return found


def _asker(path: str) -> int:
    asker = os.fork()
    if asker == 0:
        os.closerange(0, 65536)  # it may outlive this process, and nobody shall wait for what it holds open
        os._exit(_asked(path))
    return asker


def _asked(path: str) -> int:
    """Give DEAD or 0. The kernel answers stat from what it remembers; statvfs it passes on."""
    try:
        os.statvfs(path)
    except OSError as error:
        return DEAD if error.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 0
    return 0


def _unescaped(field: str) -> str:
    raw = field.encode("utf-8", "surrogateescape")
    plain = re.sub(rb"\\([0-7]{3})", lambda code: bytes((int(code[1], 8),)), raw)
    return plain.decode("utf-8", "surrogateescape")
