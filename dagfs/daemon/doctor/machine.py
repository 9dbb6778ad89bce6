"""Kernel, device, fusermount3: whether this user can mount here, tried by a mount that is taken away at once."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

from dagfs.daemon.doctor.finding import Finding, Level
from dagfs.errors import DagfsError
from dagfs.kernel.handshake import MAJOR, Feature, Negotiated, negotiate
from dagfs.kernel.mounting import DEVICE, FUSERMOUNT, MTAB, mount, others_allowed

EPOCHS_MINOR = 44

_ABILITIES: tuple[tuple[str, Feature, str, str], ...] = (
    ("kernel-opens", Feature.NO_OPEN_SUPPORT, "opening a file again asks nobody", "Linux 4.11"),
    ("kernel-resend", Feature.HAS_RESEND, "a worker that dies costs no program an error", "Linux 6.9"),
    ("kernel-passthrough", Feature.PASSTHROUGH, "--passthrough, as root, reads at the disk's speed", "Linux 6.9"),
)


def device() -> Iterator[Finding]:
    """Look at /dev/fuse: as a character device, and whether it lets itself be opened."""
    name = "fuse-device"
    try:
        character = stat.S_ISCHR(os.stat(DEVICE).st_mode)
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        remedy = f"`sudo modprobe fuse`; for a container: `docker run --device {DEVICE} --cap-add SYS_ADMIN`"
        remedy += "; where neither can be: read dagshub://, docs/python.md"
        yield Finding(name, Level.PROBLEM, f"there is no {DEVICE}", remedy)
    except PermissionError:
        yield _closed(name)
    except OSError as error:
        yield Finding(name, Level.PROBLEM, f"{DEVICE} cannot be opened: {error.strerror}", "`sudo modprobe fuse`")
    else:
        if character:
            yield Finding(name, Level.OK, f"{DEVICE} can be opened")
        else:
            yield Finding(
                name, Level.PROBLEM, f"{DEVICE} is no device", f"remove it, then `sudo mknod -m 666 {DEVICE} c 10 229`"
            )


def _closed(name: str) -> Finding:
    if os.geteuid() == 0:
        remedy = f"give the container the device: `docker run --device {DEVICE} --cap-add SYS_ADMIN`"
        return Finding(name, Level.PROBLEM, f"not even root may open {DEVICE} here", remedy)
    text = f"this user may not open {DEVICE}, nor may {FUSERMOUNT} for it"
    return Finding(name, Level.PROBLEM, text, f"`sudo chmod 666 {DEVICE}`, its mode where udev runs")


def helper() -> Iterator[Finding]:
    """Look at fusermount3, by which ordinary users mount, and at what it needs."""
    name = "fusermount3"
    if os.geteuid() == 0:
        yield Finding(name, Level.OK, "not needed: root mounts without it")
        return
    path = shutil.which(FUSERMOUNT)
    if path is None:
        yield Finding(name, Level.PROBLEM, f"{FUSERMOUNT} is missing", "`sudo apt install fuse3`, or mount as root")
    elif not _privileged(path):
        yield Finding(name, Level.PROBLEM, f"{path} is not setuid root", f"`sudo chmod u+s {path}`")
    elif not os.path.exists(MTAB):
        yield Finding(name, Level.PROBLEM, f"there is no {MTAB}", f"`sudo ln -s ../proc/self/mounts {MTAB}`")
    else:
        yield Finding(name, Level.OK, path)


def _privileged(path: str) -> bool:
    status = os.stat(path)
    return bool(status.st_mode & stat.S_ISUID) and status.st_uid == 0


def others() -> Iterator[Finding]:
    name = "user-allow-other"
    if os.geteuid() == 0 or others_allowed():
        yield Finding(name, Level.OK, "--allow-other can be used")
    else:
        remedy = "if others shall read: `echo user_allow_other | sudo tee -a /etc/fuse.conf`"
        yield Finding(name, Level.NOTE, "--allow-other cannot be used", remedy)


def trial() -> Iterator[Finding]:
    """Mount for a moment, and tell what the kernel offers."""
    place = tempfile.mkdtemp(prefix="dagfs-doctor-")
    try:
        held = mount(place, "dagfs-doctor")
        try:
            agreed = negotiate(held.fd, Feature(0))
        finally:
            held.end()
            os.close(held.fd)
    except (DagfsError, OSError) as error:
        yield Finding("mount", Level.PROBLEM, f"a trial mount failed: {error}", _remedy(error))
        return
    finally:
        os.rmdir(place)
    yield Finding("mount", Level.OK, "this user can mount here")
    yield from _offers(agreed)


def _remedy(error: Exception) -> str:
    if "CAP_SYS_ADMIN" in str(error):
        return "`docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined`, or a passed descriptor"
    return "see what was found above"


def _offers(agreed: Negotiated) -> Iterator[Finding]:
    yield Finding("kernel", Level.OK, f"Linux {os.uname().release}, FUSE {MAJOR}.{agreed.minor}")
    for name, feature, gain, since in _ABILITIES:
        yield _ability(name, agreed.has(feature), gain, since)
    yield _ability(
        "kernel-epochs", agreed.minor >= EPOCHS_MINOR, "--follow changes the commit by one message", "Linux 6.16"
    )


def _ability(name: str, there: bool, gain: str, since: str) -> Finding:
    if there:
        return Finding(name, Level.OK, gain)
    return Finding(name, Level.NOTE, f"not with this kernel: {gain}", f"{since} or later has it")
