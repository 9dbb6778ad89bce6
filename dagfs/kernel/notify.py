"""Messages to the kernel that no request asked for. It takes each at once: none waits for a lock of a file or name."""

from __future__ import annotations

import os
import struct

from dagfs.kernel.protocol import OUT_HEADER

INVAL_INODE = 2
RESEND = 7  # Linux 6.9
INC_EPOCH = 8  # Linux 6.16

EPOCH_MINOR = 44
"""The first protocol in which INC_EPOCH exists; no INIT flag tells of it."""

_INVAL_INODE_OUT = struct.Struct("=Qqq")  # node, offset, length
_NO_PAGES = -1  # as an offset: the attributes only. Pages might be locked until this very process fills them.


def resend(fd: int) -> None:
    """Ask for every request again that was read and not answered: what a worker that died left behind."""
    _send(fd, RESEND)


def expire_names(fd: int) -> None:
    """Let the kernel look up every name again, absent ones too, when it is used next."""
    _send(fd, INC_EPOCH)


def forget_attributes(fd: int, node: int) -> None:
    """Let the kernel ask for a node's attributes when they are used next."""
    _send(fd, INVAL_INODE, _INVAL_INODE_OUT.pack(node, _NO_PAGES, 0))


def drop_pages(fd: int, node: int) -> None:
    """Have the kernel forget a file's bytes. Waits for pages that are being read: never call it in a thread that a
    read may wait for. Raises OSError, ENOENT where the kernel does not know the node."""
    _send(fd, INVAL_INODE, _INVAL_INODE_OUT.pack(node, 0, 0))


def _send(fd: int, what: int, body: bytes = b"") -> None:
    os.write(fd, OUT_HEADER.pack(OUT_HEADER.size + len(body), what, 0) + body)
