"""The conversation with the kernel: one thread reads requests and never waits for the network.

What is known now is answered at once; the rest is answered by the thread that completes the promise, in any order.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from dagfs.answers import then
from dagfs.errors import DagfsError, NotFound
from dagfs.kernel.backing import OPENED, Backings
from dagfs.kernel.dirents import Streams
from dagfs.kernel.following import Following
from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.killed import Killed
from dagfs.kernel.notify import drop_pages
from dagfs.kernel.protocol import (
    BODY,
    BUFFER_SIZE,
    FOPEN_CACHE_DIR,
    FOPEN_KEEP_CACHE,
    IN_START,
    NEGATIVE_ENTRY,
    OPEN_OUT,
    OUT_HEADER,
    READ_IN,
    XATTR_IN,
    XATTR_OUT,
    Op,
    Owner,
    RefusedError,
    encode_attr_out,
    encode_entry,
    encode_statfs,
    error_reply,
)
from dagfs.kernel.pulse import Pulse
from dagfs.kernel.waiting import Waiting
from dagfs.model import Answer
from dagfs.vfs.errnos import report
from dagfs.vfs.seam import ROOT, FileSystem
from dagfs.vfs.sizing import recover

log = logging.getLogger(__name__)

Handler = Callable[[int, bytes], Answer[bytes]]
"""From a node and the whole message to the body of the answer."""

AGAIN = (errno.EINTR, errno.ENOENT, errno.EAGAIN)  # the request was taken back between two steps of the kernel
GONE = (errno.ENODEV, errno.ECONNABORTED)  # unmounted, or the connection was aborted
UNWANTED = (errno.ENOENT, errno.EINTR, errno.EPERM, *GONE)  # nobody waits for this reply any more

NAME_MAX = 255  # bytes; FUSE alone would allow 1024, which no local disk does

PROBE = b"user.dagfs.probe"
"""The watch's own question: an extended attribute of the root, which the dispatcher answers alone and the kernel never
remembers. A lookup would not do: it waits for whoever holds the directory, who may wait for the network."""

SILENT = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY))
"""Operations without a reply. Node ids are never used again, so nothing needs to be forgotten."""

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


class Session:
    """Serves a file system on a negotiated connection.

    `fd` stays the caller's, who must keep it open until no promise of the file system can be completed any more: a
    late reply on a number that was used again would go into another file.
    """

    def __init__(
        self, fd: int, fs: FileSystem, negotiated: Negotiated, owner: Owner, opening: Opening = Opening()
    ) -> None:
        """`opening.backings`: only with passthrough agreed on."""
        self._fd = fd
        self._fs = fs
        self._backings = opening.backings
        self._following = opening.following
        self._brief_root = opening.following is not None and opening.following.brief
        self._entry = partial(encode_entry, owner=owner)
        self._brief_entry = partial(encode_entry, owner=owner, name_valid=0)
        self._attr_out = partial(encode_attr_out, owner=owner)
        self._streams = Streams(owner)
        self._counts: Counter[int] = Counter()  # written by the dispatching thread only
        self.waiting = Waiting()
        self._killed = Killed(self.waiting, self._let_go)
        self._refusals = self._refused(negotiated)
        self._handlers = self._table()
        self.pulse: Pulse | None = None  # counts what is dispatched, where nobody can ask for PROBE

    def run(self) -> None:
        """Serve until the mount or its connection has ended, or the descriptor reads as at its end."""
        self._killed.start()
        try:
            self._read_on()
        finally:
            self._killed.stop()

    def _read_on(self) -> None:
        serve = self._serve if self.pulse is None else self.pulse.around(self._serve)
        while True:
            try:
                message = os.read(self._fd, BUFFER_SIZE)
            except OSError as error:
                if error.errno in AGAIN:
                    continue
                if error.errno in GONE:
                    return
                raise
            if not message:  # never from the device: its holder has put another in its place
                return
            serve(message)

    def drop_pages(self, node: int) -> None:
        """Have the kernel forget a file's bytes; in a thread of its own, since pages that are read are waited for."""
        threading.Thread(target=self._drop_pages, args=(node,), name="drop-pages", daemon=True).start()

    def _drop_pages(self, node: int) -> None:
        try:
            drop_pages(self._fd, node)
        except OSError as error:
            if error.errno not in UNWANTED:
                log.warning("pages of node %d stay in the kernel: %s", node, error)

    def counts(self) -> dict[str, int]:
        """Give how many requests of each operation the kernel has sent."""
        return {operation(op): count for op, count in dict(self._counts).items() if count}

    def _table(self) -> dict[int, Handler]:
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

    def _refused(self, negotiated: Negotiated) -> dict[int, int]:
        """Operations that are refused unseen. IOCTL comes with each `open()` of Python, so it is looked for first.

        Where the kernel takes ENOSYS for "always succeeds", opening costs no message from then on.
        """
        refusals: dict[int, int] = {Op.IOCTL: errno.ENOTTY, **dict.fromkeys(WRITES, errno.EROFS)}
        counted = self._following is not None and self._following.counts
        if negotiated.has(Feature.NO_OPEN_SUPPORT) and not negotiated.has(Feature.PASSTHROUGH) and not counted:
            refusals[Op.OPEN] = errno.ENOSYS
        if negotiated.has(Feature.NO_OPENDIR_SUPPORT) and self._following is None:
            refusals[Op.OPENDIR] = errno.ENOSYS
        return refusals

    def _serve(self, message: bytes) -> None:
        if len(message) < BODY:  # never from the kernel; there is nobody to answer
            log.error("a request of %d bytes has no header", len(message))
            return
        _, op, unique, node = IN_START.unpack_from(message)
        self._counts[op] += 1
        if refusal := self._refusals.get(op):
            self._write(error_reply(unique, refusal))
            return
        handler = self._handlers.get(op)
        if handler is None:
            if op == Op.INTERRUPT:
                self._killed.interrupted(int.from_bytes(message[BODY : BODY + 8], sys.byteorder))
            elif op not in SILENT:
                self._write(error_reply(unique, errno.ENOSYS))
            return
        try:
            answer = handler(node, message)
        except Exception as error:  # noqa: BLE001 -- every request gets a reply, or its program hangs
            self._refuse(op, unique, node, error)
            return
        if isinstance(answer, Future):
            self.waiting.begin(unique, op, node, message, message[BODY:-1] if op == Op.LOOKUP else b"")
            self._killed.begin(unique, op, message)
            answer.add_done_callback(partial(self._complete, op, unique, node))
        else:
            self._reply(unique, answer)

    def _complete(self, op: int, unique: int, node: int, done: Future[bytes]) -> None:
        self._end_wait(unique)
        try:
            body = done.result()
        except BaseException as error:  # noqa: BLE001 -- the waiting program must hear of it, whatever it is
            self._refuse(op, unique, node, error)
            return
        self._reply(unique, body)

    def _end_wait(self, unique: int) -> None:
        self.waiting.end(unique)
        self._killed.end(unique)

    def _let_go(self, unique: int) -> None:
        self._write(error_reply(unique, errno.EINTR))
        self._end_wait(unique)

    def _refuse(self, op: int, unique: int, node: int, error: BaseException) -> None:
        if isinstance(error, RefusedError):
            self._write(error_reply(unique, error.number))
        elif op == Op.LOOKUP and type(error) is NotFound:
            brief = self._brief_root and node == ROOT
            self._write(error_reply(unique, errno.ENOENT)) if brief else self._reply(unique, NEGATIVE_ENTRY)
        else:
            self._write(error_reply(unique, report(self._fs, node, operation(op), error)))

    def _reply(self, unique: int, body: bytes) -> None:
        try:
            os.writev(self._fd, (OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique), body))
        except OSError as error:
            if error.errno not in UNWANTED:
                log.exception("the kernel refused a reply of %d bytes; the program gets EIO", len(body))
                self._write(error_reply(unique, errno.EIO))

    def _write(self, message: bytes) -> None:
        try:
            os.write(self._fd, message)
        except OSError as error:
            if error.errno not in UNWANTED:
                log.exception("the kernel refused a reply")

    def _lookup(self, node: int, message: bytes) -> Answer[bytes]:
        name = message[BODY:-1]
        if len(name) > NAME_MAX:
            raise RefusedError(errno.ENAMETOOLONG)
        brief = self._brief_root and node == ROOT
        return then(self._fs.lookup(node, name), self._brief_entry if brief else self._entry)

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
        if name == PROBE:
            self._counts[Op.GETXATTR] -= 1  # no program has asked
            raise RefusedError(errno.ENODATA)
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


def operation(op: int) -> str:
    """Give an operation's name, in lower case."""
    return Op(op).name.lower() if op in Op._value2member_map_ else f"operation {op}"
