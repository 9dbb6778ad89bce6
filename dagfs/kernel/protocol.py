"""The FUSE protocol: numbers, layouts and encodings, only what a read-only tree needs of them.

All integers are in the machine's byte order. Sizes in bytes.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass
from functools import lru_cache

from dagfs.model import Kind
from dagfs.vfs.seam import Attributes, Figures


class Op(enum.IntEnum):
    """The operations that the kernel may send."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51
    STATX = 52


IN_HEADER = struct.Struct("=IIQQIIIHH")  # length, operation, unique, node, uid, gid, pid, extensions, padding
IN_START = struct.Struct("=IIQQ")  # the fields of IN_HEADER that are used by all
OUT_HEADER = struct.Struct("=IiQ")  # length, -errno or notification, unique
BODY = IN_HEADER.size

READ_IN = struct.Struct("=QQI")  # handle, offset, size, and fields that do not matter here
XATTR_IN = struct.Struct("=II")  # size of the caller's buffer, padding
XATTR_OUT = struct.Struct("=II")
OPEN_OUT = struct.Struct("=QII")  # handle, FOPEN flags, backing id

ATTR = struct.Struct("=6Q10I")
ATTR_HEAD = struct.Struct("=QII")  # seconds valid, nanoseconds, padding
ENTRY_HEAD = struct.Struct("=QQQQII")  # node, generation, seconds valid of name and attributes, nanoseconds of both
STATFS_OUT = struct.Struct("=5Q10I")
DIRENT = struct.Struct("=QQII")  # inode, offset of the next entry, length of the name, type

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7

VALID_SECONDS = 10 * 365 * 86400
"""How long the kernel may keep names, absences and attributes: a commit never changes, so longer than any mount."""

BUFFER_SIZE = 12 << 10
"""Bytes read from the device at once: the largest request is a name or a write of MAX_WRITE, and the kernel refuses
buffers under 8 KiB."""

MAX_WRITE = 4096
PERMISSIONS = {Kind.DIRECTORY: 0o040555, Kind.FILE: 0o100444, Kind.SYMLINK: 0o120777}
BLOCK = 512  # what st_blocks counts in

NEGATIVE_ENTRY = ENTRY_HEAD.pack(0, 0, VALID_SECONDS, 0, 0, 0) + bytes(ATTR.size)
"""The answer to LOOKUP by which the kernel remembers that a name does not exist."""

NO_ENTRY = bytes(ENTRY_HEAD.size + ATTR.size)
"""Stands in READDIRPLUS before an entry whose attributes are not known: the kernel asks when it needs them."""

MASK64 = (1 << 64) - 1


class RefusedError(Exception):
    """An ordinary answer of a local disk that happens to be an errno: not a failure, not logged."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the files of a mount belong to."""

    uid: int
    gid: int


def encode_attr(attributes: Attributes, owner: Owner) -> bytes:
    """Encode `struct fuse_attr`."""
    seconds, nanoseconds = _time(attributes.mtime)
    return ATTR.pack(
        attributes.inode,
        attributes.size,
        (attributes.size + BLOCK - 1) // BLOCK,
        seconds,
        seconds,
        seconds,
        nanoseconds,
        nanoseconds,
        nanoseconds,
        PERMISSIONS[attributes.kind],
        attributes.links,
        owner.uid,
        owner.gid,
        0,
        4096,
        0,
    )


def encode_entry(attributes: Attributes, owner: Owner, name_valid: int = VALID_SECONDS) -> bytes:
    """Encode `struct fuse_entry_out`: the answer to LOOKUP. `name_valid`: seconds that the kernel may keep the name."""
    head = ENTRY_HEAD.pack(attributes.node, 0, name_valid, VALID_SECONDS, 0, 0)
    return head + encode_attr(attributes, owner)


def encode_attr_out(attributes: Attributes, owner: Owner) -> bytes:
    """Encode `struct fuse_attr_out`: the answer to GETATTR."""
    return ATTR_HEAD.pack(VALID_SECONDS, 0, 0) + encode_attr(attributes, owner)


def encode_statfs(figures: Figures) -> bytes:
    """Encode `struct fuse_kstatfs`; nothing is free on a read-only tree."""
    size = figures.block_size
    return STATFS_OUT.pack(figures.blocks, 0, 0, figures.files, 0, size, figures.name_max, size, *(0,) * 7)


@lru_cache(maxsize=1024)
def _time(mtime: float) -> tuple[int, int]:
    seconds = math.floor(mtime)
    return seconds & MASK64, int((mtime - seconds) * 1e9)


def error_reply(unique: int, number: int) -> bytes:
    """Encode the refusal of a request by an errno; 0 is an answer without a body."""
    return OUT_HEADER.pack(OUT_HEADER.size, -number, unique)
