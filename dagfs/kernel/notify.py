"""Messages to the kernel that no request asked for."""

from __future__ import annotations

import os
import struct

from dagfs.kernel.protocol import OUT_HEADER

INVAL_INODE = 2
_INVAL = struct.Struct("=Qqq")  # node, offset, length; 0 is to the end
RESEND = 7  # Linux 6.9


def resend(fd: int) -> None:
    """Ask for every request again that was read and not answered: what a worker that died left behind."""
    os.write(fd, OUT_HEADER.pack(OUT_HEADER.size, RESEND, 0))


def drop_pages(fd: int, node: int) -> None:
    """Have the kernel forget a file's bytes. Waits for pages that are being read: never call it in a thread that a
    read may wait for. Raises OSError, ENOENT where the kernel does not know the node."""
    os.write(fd, OUT_HEADER.pack(OUT_HEADER.size + _INVAL.size, INVAL_INODE, 0) + _INVAL.pack(node, 0, 0))
