"""What a mount whose commit may change needs of the kernel: names that expire, listings that do not mix, and, where
an open file holds the commit, word of each opening."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from dagfs.answers import then
from dagfs.kernel.notify import EPOCH_MINOR, expire_names, forget_attributes
from dagfs.kernel.openings import Epoch, Openings
from dagfs.kernel.protocol import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, IN_HEADER, OPEN_OUT, RefusedError
from dagfs.model import Answer
from dagfs.tree.numbers import Recent
from dagfs.vfs.seam import ROOT

log = logging.getLogger(__name__)

_SENT_BACK = 1024  # openings remembered that were sent back to look their name up


class Room(Protocol):
    """What is asked of `vfs.generations.Generations`."""

    def admit(self, node: int, note: Callable[[], None]) -> bool: ...
    def root_of(self, node: int) -> int: ...


class Following:
    """The kernel's side of `Generations`. Thread-safe; `_lock` is a leaf."""

    def __init__(self, fd: int, generations: Room, minor: int, openings: Openings | None = None) -> None:
        """`minor`: of the protocol agreed on; `openings`: only where open files hold the commit."""
        self.epoch_begins: Callable[[], Answer[None]] = lambda: None
        """Asked when an epoch begins; its answer comes when it was tried to show what open files held back."""
        self._fd = fd
        self._generations = generations
        self._openings = openings
        self._epoch = Epoch()  # used by the dispatcher only, as is the next
        self._trying: Answer[None] = None  # openings wait for it: none may slip in between
        self._lock = threading.Lock()
        self._sent_back: Recent[int, bool] = Recent(_SENT_BACK)  # thread -> its last opening was sent back
        self.brief = minor < EPOCH_MINOR
        """Names in the root are asked for each time: this kernel cannot be told that they have changed, or only by a
        message that waits for who is looking a name up, and that misses a reply on its way."""

    @property
    def counts(self) -> bool:
        """Whether each opening of a file must be seen."""
        return self._openings is not None

    def changed(self) -> None:
        """Make the kernel forget what it knows of the root. Does not wait; never fails."""
        try:
            if not self.brief:
                expire_names(self._fd)
            forget_attributes(self._fd, ROOT)
        except OSError as error:  # the mount has ended
            log.info("the kernel was not told of the new commit: %s", error)

    def open_directory(self, node: int) -> bytes:
        """Answer OPENDIR. The root's handle names its commit, and the kernel keeps no listing of the root: one that it
        is putting together could have two commits in it."""
        root = self._generations.root_of(node)
        return OPEN_OUT.pack(root, 0 if root else FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR, 0)

    def open(self, node: int, message: bytes) -> Answer[int]:
        """Count an opening if openings count, and give its handle.

        Raises RefusedError: ENFILE when there are too many; ESTALE, when the mount shows another commit by now, unless
        the thread's last opening ended so. The kernel then looks the path up again. Who comes with an old node once
        more has not come from the root, or the commit has changed again: it gets the old commit's file.
        """
        openings = self._openings
        if openings is None:
            return 0
        if self._epoch.begins_with(node):
            self._trying = self.epoch_begins()
        return then(self._trying, lambda _: self._count(openings, node, message))

    def _count(self, openings: Openings, node: int, message: bytes) -> int:
        _, _, unique, _, _, _, thread, _, _ = IN_HEADER.unpack_from(message)
        handles: list[int | None] = []
        admitted = self._generations.admit(node, lambda: handles.append(openings.opened(unique)))
        with self._lock:
            sent_back = self._sent_back.pop(thread)
            if not admitted and not sent_back:
                self._sent_back.put(thread, True)
                raise RefusedError(errno.ESTALE)
        if not admitted:
            handles.append(openings.opened(unique))
        if handles[0] is None:
            raise RefusedError(errno.ENFILE)
        return handles[0]

    def release(self, handle: int) -> None:
        """A file was closed."""
        if self._openings is not None:
            self._openings.closed(handle)
