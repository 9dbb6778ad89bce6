"""Messages to the kernel that no request asked for."""

from __future__ import annotations

import os

from dagfs.kernel.protocol import OUT_HEADER

RESEND = 7  # Linux 6.9


def resend(fd: int) -> None:
    """Ask for every request again that was read and not answered: what a worker that died left behind."""
    os.write(fd, OUT_HEADER.pack(OUT_HEADER.size, RESEND, 0))
