"""What each operation of the kernel asks of the file system, and how its answer is put into bytes."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dagfs.answers import then
from dagfs.errors import DagfsError
from dagfs.kernel.backing import OPENED, Backings
from dagfs.kernel.dirents import Streams
from dagfs.kernel.following import Following
from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.protocol import (
    BODY,
    FOPEN_CACHE_DIR,
    FOPEN_KEEP_CACHE,
    OPEN_OUT,
    READ_IN,
    XATTR_IN,
    XATTR_OUT,
    Op,
    Owner,
    RefusedError,
    encode_attr_out,
    encode_entry,
    encode_statfs,
)
from dagfs.model import Answer
from dagfs.vfs.seam import ROOT, FileSystem
from dagfs.vfs.sizing import recover

Handler = Callable[[int, bytes], Answer[bytes]]
"""From a node and the whole message to the body of the answer."""

NAME_MAX = 255  # bytes; FUSE alone would allow 1024, which no local disk does

WRITES = (
    *(Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.RENAME2, Op.LINK, Op.WRITE),
    *(Op.SETXATTR, Op.REMOVEXATTR, Op.CREATE, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.TMPFILE),
)

OPENED_DIRECTORY = OPEN_OUT.pack(0, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR, 0)


@dataclass(frozen=True, slots=True)
class Opening:
    """What makes opening cost a message: large files that the kernel reads by itself, or a commit that may change."""

    backings: Backings | None = None
    following: Following | None = None


FREE = Opening()
"""Where the kernel allows it, opening costs no message."""


class Operations:
    """The file system's answers, as the bodies of the kernel's replies. Called in the dispatching thread."""

    def __init__(self, fs: FileSystem, owner: Owner, opening: Opening) -> None:
        self._fs = fs
        self._backings = opening.backings
        self._following = opening.following
        self._brief_root = opening.following is not None and opening.following.brief
        self._entry = partial(encode_entry, owner=owner)
        self._brief_entry = partial(encode_entry, owner=owner, name_valid=0)
        self._attr_out = partial(encode_attr_out, owner=owner)
        self._streams = Streams(owner)

    def brief(self, node: int) -> bool:
        """Say whether the kernel may remember no name in a directory."""
        return self._brief_root and node == ROOT

    def table(self) -> dict[int, Handler]:
        return {
            Op.READ: self._read,
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.READDIRPLUS: self._readdirplus,
            Op.READDIR: self._readdir,
            Op.READLINK: self._readlink,
            Op.GETXATTR: self._getxattr,
            Op.LISTXATTR: self._listxattr,
            Op.STATFS: self._statfs,
            Op.OPEN: self._open,
            Op.OPENDIR: self._opendir,
            Op.RELEASE: self._release,
            Op.RELEASEDIR: _nothing,
            Op.DESTROY: _nothing,
        }

    def refused(self, negotiated: Negotiated) -> dict[int, int]:
        """Give the errno of what is refused unseen. IOCTL comes with each `open()` of Python, so it is found first.

        Where the kernel takes ENOSYS for "always succeeds", opening costs no message from then on.
        """
        refusals: dict[int, int] = {Op.IOCTL: errno.ENOTTY, **dict.fromkeys(WRITES, errno.EROFS)}
        counted = self._following is not None and self._following.counts
        if negotiated.has(Feature.NO_OPEN_SUPPORT) and not negotiated.has(Feature.PASSTHROUGH) and not counted:
            refusals[Op.OPEN] = errno.ENOSYS
        if negotiated.has(Feature.NO_OPENDIR_SUPPORT) and self._following is None:
            refusals[Op.OPENDIR] = errno.ENOSYS
        return refusals

    def _lookup(self, node: int, message: bytes) -> Answer[bytes]:
        name = message[BODY:-1]
        if len(name) > NAME_MAX:
            raise RefusedError(errno.ENAMETOOLONG)
        return then(self._fs.lookup(node, name), self._brief_entry if self.brief(node) else self._entry)

    def _getattr(self, node: int, _message: bytes) -> Answer[bytes]:
        return then(self._fs.getattr(node), self._attr_out)

    def _read(self, node: int, message: bytes) -> Answer[bytes]:
        _, offset, size = READ_IN.unpack_from(message, BODY)
        return self._fs.read(node, offset, size)

    def _open(self, node: int, message: bytes) -> Answer[bytes]:
        handle = 0 if self._following is None else self._following.open(node, message)
        return then(handle, lambda handle: then(self._opened(node), partial(_with_handle, handle=handle)))

    def _opened(self, node: int) -> Answer[bytes]:
        """Answer an opening. It must not fail: it is counted by now."""
        if self._backings is None:
            return OPENED
        file = recover(lambda: self._fs.whole(node), DagfsError, lambda _: None)  # the read will tell
        return then(file, partial(self._backings.open, node))

    def _release(self, node: int, message: bytes) -> bytes:
        if self._backings is not None:
            self._backings.release(node)
        if self._following is not None:
            self._following.release(READ_IN.unpack_from(message, BODY)[0])
        return b""

    def _opendir(self, node: int, _message: bytes) -> bytes:
        return OPENED_DIRECTORY if self._following is None else self._following.open_directory(node)

    def _readdir(self, node: int, message: bytes) -> Answer[bytes]:
        handle, offset, size = READ_IN.unpack_from(message, BODY)
        return then(self._fs.readdir(handle or node), partial(self._streams.plain, offset=offset, size=size))

    def _readdirplus(self, node: int, message: bytes) -> Answer[bytes]:
        handle, offset, size = READ_IN.unpack_from(message, BODY)
        return then(self._fs.readdir(handle or node), partial(self._streams.plus, offset=offset, size=size))

    def _readlink(self, node: int, _message: bytes) -> Answer[bytes]:
        return self._fs.readlink(node)

    def _statfs(self, _node: int, _message: bytes) -> bytes:
        return encode_statfs(self._fs.statfs())

    def _getxattr(self, node: int, message: bytes) -> Answer[bytes]:
        size, _ = XATTR_IN.unpack_from(message, BODY)
        name = message[BODY + XATTR_IN.size : -1]
        if not name.startswith(b"user."):  # `ls -l` then stops to ask for the ACL of every single file
            raise RefusedError(errno.EOPNOTSUPP)
        return then(self._fs.getxattr(node, name), partial(_sized, size=size))

    def _listxattr(self, node: int, message: bytes) -> bytes:
        size, _ = XATTR_IN.unpack_from(message, BODY)
        return _sized(b"".join(name + b"\0" for name in self._fs.listxattr(node)), size)


def _with_handle(opened: bytes, handle: int) -> bytes:
    """Put a handle into the answer to OPEN."""
    return handle.to_bytes(8, sys.byteorder) + opened[8:]


def _nothing(_node: int, _message: bytes) -> bytes:
    return b""


def _sized(value: bytes | None, size: int) -> bytes:
    """Answer GETXATTR and LISTXATTR: a `size` of 0 asks how long the value is."""
    if value is None:
        raise RefusedError(errno.ENODATA)
    if size == 0:
        return XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise RefusedError(errno.ERANGE)
    return value
