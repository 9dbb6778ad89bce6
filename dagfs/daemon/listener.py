"""The socket of `--metrics`: bound before there is a mount, so that a port in use is told at once, and held while
workers come and go. Scrapes wait in its backlog for the next worker, whose counters begin at zero, which `rate()` is
made for."""

from __future__ import annotations

import socket

from dagfs.errors import UsageError

BACKLOG = 16


def listen(address: str) -> socket.socket:
    """Bind "HOST:PORT". Raises UsageError when it cannot be had."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--metrics {address} cannot be used: {reason}; choose another address") from None
