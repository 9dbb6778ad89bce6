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
from concurrent.futures import Future
from functools import partial

from dagfs.errors import NotFound
from dagfs.kernel.handshake import Negotiated
from dagfs.kernel.killed import Killed
from dagfs.kernel.notify import drop_pages
from dagfs.kernel.operations import FREE, Handler, Opening, Operations
from dagfs.kernel.protocol import (
    BODY,
    BUFFER_SIZE,
    IN_START,
    NEGATIVE_ENTRY,
    OUT_HEADER,
    XATTR_IN,
    Op,
    Owner,
    RefusedError,
    error_reply,
)
from dagfs.kernel.pulse import Pulse
from dagfs.kernel.waiting import Waiting
from dagfs.model import Answer
from dagfs.vfs.errnos import report
from dagfs.vfs.seam import FileSystem

log = logging.getLogger(__name__)

AGAIN = (errno.EINTR, errno.ENOENT, errno.EAGAIN)  # the request was taken back between two steps of the kernel
GONE = (errno.ENODEV, errno.ECONNABORTED)  # unmounted, or the connection was aborted
UNWANTED = (errno.ENOENT, errno.EINTR, errno.EPERM, *GONE)  # nobody waits for this reply any more

PROBE = b"user.dagfs.probe"
"""The watch's own question: an extended attribute of the root, which the dispatcher answers alone and the kernel never
remembers. A lookup would not do: it waits for whoever holds the directory, who may wait for the network."""

SILENT = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY))
"""Operations without a reply. Node ids are never used again, so nothing needs to be forgotten."""


class Session:
    """Serves a file system on a negotiated connection.

    `fd` stays the caller's, who must keep it open until no promise of the file system can be completed any more: a
    late reply on a number that was used again would go into another file.
    """

    def __init__(self, fd: int, fs: FileSystem, negotiated: Negotiated, owner: Owner, opening: Opening = FREE) -> None:
        """`opening.backings`: only with passthrough agreed on."""
        self._fd = fd
        self._fs = fs
        self._operations = Operations(fs, owner, opening)
        self._handlers = self._operations.table()
        self._handlers[Op.GETXATTR] = partial(self._getxattr, self._handlers[Op.GETXATTR])
        self._refusals = self._operations.refused(negotiated)
        self._counts: Counter[int] = Counter()  # written by the dispatching thread only
        self.waiting = Waiting()
        self._killed = Killed(self.waiting, self._let_go)
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
        # One buffer, whose pages are in memory: none is made for a process under SIGKILL that is given a request, and
        # who waits for it would get EIO (the kernel's fuse_dev_do_read) instead of the next worker's answer.
        buffer = bytearray(b"\1") * BUFFER_SIZE
        view = memoryview(buffer)
        while True:
            try:
                size = os.readv(self._fd, (buffer,))
            except OSError as error:
                if error.errno in AGAIN:
                    continue
                if error.errno in GONE:
                    return
                raise
            if not size:  # never from the device: its holder has put another in its place
                return
            serve(bytes(view[:size]))

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

    def _getxattr(self, ask: Handler, node: int, message: bytes) -> Answer[bytes]:
        if message[BODY + XATTR_IN.size : -1] == PROBE:
            self._counts[Op.GETXATTR] -= 1  # no program has asked
            raise RefusedError(errno.ENODATA)
        return ask(node, message)

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
            brief = self._operations.brief(node)
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


def operation(op: int) -> str:
    """Give an operation's name, in lower case."""
    return Op(op).name.lower() if op in Op._value2member_map_ else f"operation {op}"
