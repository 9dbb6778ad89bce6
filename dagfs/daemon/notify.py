"""Tell systemd how the service fares (sd_notify's datagram protocol): ready, reloading, stopping, status, watchdog."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send `message` ("READY=1") to the manager that asked for it; False when nobody did or it cannot be reached."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Give how long systemd waits for WATCHDOG=1 before it restarts this service; None when it does not wait at all."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None
