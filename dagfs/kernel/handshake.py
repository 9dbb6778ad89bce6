"""The first exchange on a new mount: versions, features and limits, kept as a value for workers that come later."""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import os
import struct
from dataclasses import dataclass

from dagfs.errors import NoFuse
from dagfs.kernel.protocol import BODY, BUFFER_SIZE, IN_START, MAX_WRITE, OUT_HEADER, Op, error_reply

MAJOR = 7
OLDEST_MINOR = 19
"""Linux 3.5. Older protocols have shorter structures everywhere."""

NEWEST_MINOR = 45
"""The newest protocol that was tried."""

INIT_IN = struct.Struct("=IIII")  # major, minor, read-ahead, flags; flags2 follow where INIT_EXT is set
INIT_OUT = struct.Struct("=IIIIHHIIHHI7I")
INIT_OUT_OLD = 24  # bytes of the answer that protocols before 7.23 know

MAX_PAGES = 256
"""Pages of 4 KiB in one READ: 1 MiB, the kernel's own limit for ordinary users."""

MAX_BACKGROUND = 1024
"""Requests of the kernel's read-ahead under way at once; above it they queue, so one stuck download could hold
cached reads back. Each may pin 1 MiB at most, 128 KiB as a rule."""

CONGESTION = MAX_BACKGROUND * 3 // 4  # above it the kernel skips optional read-ahead


class Feature(enum.IntFlag):
    """The INIT flags that are used when the kernel offers them."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    INIT_EXT = 1 << 30
    HAS_EXPIRE_ONLY = 1 << 35
    PASSTHROUGH = 1 << 37
    HAS_RESEND = 1 << 39


WANTED = sum(Feature)

STACK_DEPTH = 1
"""File systems below a file that the kernel reads by itself: a cache on an overlay is one too many."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What kernel and daemon agreed on; a worker that takes over a mount needs it, since INIT comes only once."""

    minor: int
    features: Feature
    max_readahead: int

    def has(self, feature: Feature) -> bool:
        return feature in self.features

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"features": int(self.features)})

    @classmethod
    def from_json(cls, text: str) -> Negotiated:
        values = json.loads(text)
        return cls(values["minor"], Feature(values["features"]), values["max_readahead"])


def negotiate(fd: int, unwanted: Feature = Feature.PASSTHROUGH) -> Negotiated:
    """Answer INIT, the first request on a new mount. Raises NoFuse when the kernel is too old."""
    while True:
        message = os.read(fd, BUFFER_SIZE)
        _, op, unique, _ = IN_START.unpack_from(message)
        if op != Op.INIT:
            raise NoFuse(f"the kernel opened the conversation with operation {op}, not with INIT")
        major, minor, readahead, flags = INIT_IN.unpack_from(message, BODY)
        if major > MAJOR:  # the kernel then asks again with the major version that it is told
            os.write(fd, _answer(unique, INIT_OUT.pack(MAJOR, NEWEST_MINOR, *(0,) * 16)))
            continue
        if (major, minor) < (MAJOR, OLDEST_MINOR):
            os.write(fd, error_reply(unique, errno.EPROTO))
            raise NoFuse(f"the kernel speaks FUSE {major}.{minor}; {MAJOR}.{OLDEST_MINOR} (Linux 3.5) is needed")
        agreed = Negotiated(min(minor, NEWEST_MINOR), Feature(_offered(message, flags) & WANTED & ~unwanted), readahead)
        os.write(fd, _answer(unique, encode_init(agreed)))
        return agreed


def encode_init(agreed: Negotiated) -> bytes:
    """Encode `struct fuse_init_out` in the length that the kernel's protocol knows."""
    flags = int(agreed.features)
    pages = MAX_PAGES if agreed.has(Feature.MAX_PAGES) else 0
    body = INIT_OUT.pack(
        MAJOR,
        agreed.minor,
        agreed.max_readahead,
        flags & 0xFFFFFFFF,
        MAX_BACKGROUND,
        CONGESTION,
        MAX_WRITE,
        1,  # nanosecond: the grain of time stamps
        pages,
        0,
        flags >> 32,
        STACK_DEPTH if agreed.has(Feature.PASSTHROUGH) else 0,
        *(0,) * 6,
    )
    return body if agreed.minor >= 23 else body[:INIT_OUT_OLD]


def _offered(message: bytes, flags: int) -> int:
    if not flags & Feature.INIT_EXT:
        return flags
    (high,) = struct.unpack_from("=I", message, BODY + INIT_IN.size)
    return flags | int(high) << 32


def _answer(unique: int, body: bytes) -> bytes:
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + body
