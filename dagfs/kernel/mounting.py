"""Mount and unmount: by mount(2) as root, by fusermount3 as an ordinary user."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import shutil
import socket
import subprocess  # each call is judged where it is  # nosec B404
import sys
from dataclasses import dataclass

from dagfs.errors import AlreadyMounted, BadMountPoint, MountPointMissing, MountPointNotEmpty, NoFuse, NoFusermount
from dagfs.kernel.mountinfo import FILE_SYSTEM, MountPoint, abort, find_mount, is_dead, mount_points
from dagfs.kernel.pulse import Pulse

log = logging.getLogger(__name__)

DEVICE = "/dev/fuse"
AUTOMOUNT = "autofs"
FUSERMOUNT = "fusermount3"
MTAB = "/etc/mtab"  # fusermount3 mounts without it, but then refuses to unmount
SUBTYPE = FILE_SYSTEM.partition(".")[2]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 1, 2, 4, 8, 1024
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8

FUSE_DEV_IOC_CLONE = 0x8004E500  # _IOR(229, 0, uint32_t)

FUSERMOUNT_NEEDS = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""Of the environment. All that it starts would inherit the rest, tokens and keys of other tools among it."""

FUSERMOUNT_SECONDS = 10.0
"""It answers in milliseconds; only a broken machine needs longer."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted, not yet negotiated connection. `connection` is its number in the kernel, None when unknown.

    `pulse`: that of its dispatcher, where there is no path to ask it by.
    """

    fd: int
    path: str
    connection: int | None
    pulse: Pulse | None = None

    def end(self) -> bool:
        """Take it off the tree, in use or not, and tell whether the connection has ended for whoever waits on it.

        Does nothing once it is unmounted: the path and the connection's number may be somebody else's by then. What
        cannot be taken off is logged, and stays `mounted`.
        """
        if not self.reachable:
            return False
        aborted = False
        try:
            if os.geteuid() == 0:
                _umount(self.path, MNT_FORCE | MNT_DETACH)  # FORCE aborts, also where the control files are missing
                return True
            aborted = abort(self.connection)
            unmount(self.path)
        except (BadMountPoint, NoFuse) as error:
            if self.mounted:  # else somebody else was faster
                log.warning("%s cannot be unmounted: %s", self.path, error)
        return aborted

    @property
    def reachable(self) -> bool:
        """Whether its path leads to it: it is on the tree, and nothing is mounted over it."""
        present = find_mount(self.path)
        return present is not None and self._is(present)

    @property
    def mounted(self) -> bool:
        """Whether it is on the tree, also under another mount."""
        return any(at.path == self.path and self._is(at) for at in mount_points())

    def _is(self, there: MountPoint) -> bool:
        """The number alone proves nothing: it was free once this had ended, and an automount that was put in its place
        may have it. To unmount that would wait for a mount that waits for this one's end."""
        return there.ours and there.connection == self.connection


def check_mount_point(path: str | os.PathLike[str]) -> str:
    """Give the absolute path of a directory that can be mounted on; a dead mount of ours is taken away first.

    Raises BadMountPoint.
    """
    absolute = os.path.abspath(path)
    present = find_mount(absolute)
    if present is None:  # else a look at it could wait for a stuck daemon
        absolute = os.path.realpath(path)
        present = find_mount(absolute)
    if present and present.ours and is_dead(absolute):
        unmount(absolute)
        present = find_mount(absolute)
    if present and present.file_system == AUTOMOUNT:
        return absolute
    if present:
        advice = f"`dagfs unmount {path}` first" if present.ours else "choose another directory"
        raise AlreadyMounted(f"{path} is a mount point already ({present.file_system}): {advice}")
    check_directory(absolute)
    return absolute


def is_automount(path: str) -> bool:
    """Tell whether a mount at an absolute path is made when somebody looks, by systemd as a rule.

    Whoever looks then waits for that mount, also the one who makes it, unless its process group is the automounter's:
    mount(8) is started in it, so a daemon has to leave it after it has mounted, and not before.
    """
    present = find_mount(path)
    return present is not None and present.file_system == AUTOMOUNT


def check_fuse(allow_other: bool = False) -> None:
    """Raise NoFuse, with what to do about it, when this machine or this user cannot mount."""
    if not os.path.exists(DEVICE):
        remedies = f"`modprobe fuse`, or start the container with `--device {DEVICE}`"
        raise NoFuse(f"no {DEVICE} here: {remedies}; dagshub:// is read without it, docs/python.md")
    if os.geteuid() == 0:
        return
    if shutil.which(FUSERMOUNT) is None:
        raise NoFusermount(f"{FUSERMOUNT} is missing: `apt install fuse3`, or mount as root")
    if not os.path.exists(MTAB):
        raise NoFuse(f"no {MTAB}: {FUSERMOUNT} could not unmount: `ln -s ../proc/self/mounts {MTAB}` as root first")
    if allow_other and not others_allowed():
        raise NoFuse("--allow-other needs the line `user_allow_other` in /etc/fuse.conf, or root")


def mount(path: str, source: str, *, allow_other: bool = False, noexec: bool = False) -> Mount:
    """Mount on a checked path; `source` is what the mount table shows. Raises NoFuse, BadMountPoint."""
    check_fuse(allow_other)
    if os.geteuid() == 0:
        fd = mount_as_root(path, source, allow_other, noexec)
    else:
        fd = _mount_as_user(path, source, allow_other, noexec)
    present = find_mount(path)
    return Mount(fd, path, present.connection if present else None)


def unmount(path: str | os.PathLike[str]) -> None:
    """Take a mount off the tree, also when it is in use. Raises BadMountPoint with the reason, NoFuse."""
    if os.geteuid() == 0:
        _umount(os.fspath(path), MNT_DETACH)
    else:
        _fusermount("-u", "-z", "--", os.fspath(path))


def clone(fd: int) -> int:
    """Open another descriptor of a connection: requests read from it fail, and only those, once it is closed.

    Raises OSError where the kernel (before 4.2) or the device's mode does not allow it.
    """
    copy = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(copy, FUSE_DEV_IOC_CLONE, fd.to_bytes(4, sys.byteorder))
    except OSError:
        os.close(copy)
        raise
    return copy


def check_directory(path: str) -> None:
    """Raise BadMountPoint, with what to do about it, when a path is no empty directory."""
    try:
        with os.scandir(path) as entries:
            if next(entries, None):
                raise MountPointNotEmpty(f"{path} is not empty: choose an empty directory")
    except FileNotFoundError:
        raise MountPointMissing(f"{path} does not exist: `mkdir -p {path}` first") from None
    except NotADirectoryError:
        raise BadMountPoint(f"{path} is not a directory") from None
    except OSError as error:
        raise BadMountPoint(f"{path} cannot be used: {error.strerror}") from error


def others_allowed() -> bool:
    """Tell whether an ordinary user may mount for others, too."""
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def mount_as_root(
    path: str, source: str, allow_other: bool, noexec: bool = False, owner: tuple[int, int] = (0, 0)
) -> int:
    """Mount for `owner`, a uid and gid, and give the descriptor that whoever serves it needs. Raises as `mount`."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NoFuse(f"{DEVICE} cannot be opened: {error.strerror}") from error
    options = f"fd={fd},rootmode=40000,user_id={owner[0]},group_id={owner[1]},default_permissions"
    options += ",allow_other" if allow_other else ""
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME | (MS_NOEXEC if noexec else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (os.fsencode(source), os.fsencode(path), FILE_SYSTEM.encode(), ctypes.c_ulong(flags), options.encode())
    if libc.mount(*arguments) == 0:
        return fd
    number = ctypes.get_errno()
    os.close(fd)
    if number in (errno.EPERM, errno.ENODEV):
        raise NoFuse(f"mount(2) failed: {os.strerror(number)}; in a container, CAP_SYS_ADMIN is needed")
    raise BadMountPoint(f"{path} cannot be mounted on: {os.strerror(number)}")


def _mount_as_user(path: str, source: str, allow_other: bool, noexec: bool) -> int:
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    options = f"ro,nosuid,nodev,noatime,default_permissions,fsname={escaped},subtype={SUBTYPE}"
    options += (",allow_other" if allow_other else "") + (",noexec" if noexec else "")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _fusermount("-o", options, "--", path, channel=theirs.fileno())
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise NoFuse(f"{FUSERMOUNT} gave no descriptor for {path}")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _umount(path: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), UMOUNT_NOFOLLOW | flags) != 0:
        raise BadMountPoint(f"{path} cannot be unmounted: {os.strerror(ctypes.get_errno())}")


def _fusermount(*arguments: str, channel: int | None = None) -> None:
    environment = {name: os.environ[name] for name in FUSERMOUNT_NEEDS if name in os.environ}  # and no secret
    if channel is not None:
        environment["_FUSE_COMMFD"] = str(channel)
    try:
        done = subprocess.run(  # noqa: S603 -- our own arguments, no shell, and `--` before the path  # nosec B603
            (FUSERMOUNT, *arguments),
            env=environment,
            pass_fds=() if channel is None else (channel,),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FUSERMOUNT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise NoFusermount(f"{FUSERMOUNT} is missing: `apt install fuse3`") from None
    except subprocess.TimeoutExpired:
        raise NoFuse(f"{FUSERMOUNT} did not answer within {FUSERMOUNT_SECONDS:.0f} s") from None
    if done.returncode != 0:
        if not os.access(DEVICE, os.R_OK | os.W_OK):
            raise NoFuse(f"this user may not use {DEVICE}: `sudo chmod 666 {DEVICE}`, its mode where udev runs")
        raise BadMountPoint(done.stderr.strip().replace("\n", "; ") or f"{FUSERMOUNT} failed")
