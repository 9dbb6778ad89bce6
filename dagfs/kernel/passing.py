"""Make mounts for those who may not, and pass them: the privileged part of a mount that `kernel.passed` takes over.

It serves nothing, reads nothing of what is served, and needs neither network nor token.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from dagfs.errors import BadMountPoint
from dagfs.kernel.mountinfo import find_mount
from dagfs.kernel.mounting import mount_as_root, unmount

log = logging.getLogger(__name__)

TAKE_SECONDS, TAKE_STEP = 60.0, 0.1
"""How long a daemon waits for the other part, which may be started after it."""


def give(target: str, address: Path, user: int) -> NoReturn:
    """Mount anew at `target` for each process of `user` that connects to the socket `address`, and pass the descriptor.

    The mount before is taken away: its daemon has gone, or it would not ask. No copy of the descriptor is kept: who
    holds one keeps a dead mount's programs waiting. Ends by an exception, and takes its mount along.
    """
    with _listening(address, user) as listener:
        try:
            while True:
                channel, _ = listener.accept()
                with channel:
                    _serve(channel, target, user)
        finally:
            _clear(target)


def take(address: Path) -> int:
    """Give the descriptor of a mount that is made now. Raises BadMountPoint when nobody gives one."""
    deadline = time.monotonic() + TAKE_SECONDS
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(TAKE_SECONDS)
                channel.connect(str(address))
                said, fds, _, _ = socket.recv_fds(channel, 1 << 12, 1)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise BadMountPoint(f"nobody passes mounts at {address}") from None
            time.sleep(TAKE_STEP)
            continue
        if not fds:
            raise BadMountPoint(
                f"no mount was passed at {address}: {said.decode('utf-8', 'replace') or 'not this user'}"
            )
        return fds[0]


def _serve(channel: socket.socket, target: str, user: int) -> None:
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, peer, group = struct.unpack("3i", credentials)
    if peer != user:
        log.warning("user %d asked for a mount that is for user %d", peer, user)
        return
    try:
        _clear(target)
        fd = mount_as_root(target, "dagfs", allow_other=True, owner=(user, group))
    except BadMountPoint as error:
        log.warning("%s", error)
        channel.sendall(str(error).encode())
        return
    try:
        with contextlib.suppress(OSError):  # it has gone: the mount is dead, until the next one asks
            socket.send_fds(channel, [b"."], [fd])
    finally:
        os.close(fd)


def _clear(target: str) -> None:
    while (present := find_mount(target)) is not None and present.ours:
        unmount(target)


@contextlib.contextmanager
def _listening(address: Path, user: int) -> Iterator[socket.socket]:
    """Listen where nobody but that user can connect. The socket has its name when it is that user's: who waits for it
    would be refused before."""
    coming = address.with_name(f"{address.name}~")
    coming.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(coming))
        finally:
            os.umask(before)
        os.chown(coming, user, -1)
        listener.listen()
        coming.rename(address)
        try:
            yield listener
        finally:
            address.unlink(missing_ok=True)
