"""Programs that are killed while they wait for an answer: some waits of the kernel end with the answer only.

A read through the page cache is not one of them: who is killed in it is gone at once. Look-ups, listings, attributes,
links and reads with O_DIRECT are, and so is a READ for a single page, which the kernel tells by an INTERRUPT. The
kernel sends one INTERRUPT a request, at its first signal, be it SIGKILL or a Ctrl-C that the program handles, and
none at all for O_DIRECT. So now and then it is looked whether who waits has been killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dagfs.kernel.protocol import BODY, Op
from dagfs.kernel.waiting import Waiting

PERIOD = 1.0
"""Seconds between two looks. What is answered sooner costs none."""

_READ_FLAGS = slice(BODY + 32, BODY + 36)  # of `struct fuse_read_in`: the flags that the file was opened with
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_SIGKILL = 1 << (signal.SIGKILL - 1)
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_HARMLESS = sum(1 << (n - 1) for n in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, *_STOPS))
_MASKS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")


class Killed:
    """Which of the waiting requests are watched. Thread-safe; `_changed` is a leaf: nothing is told under it."""

    def __init__(self, waiting: Waiting, let_go: Callable[[int], None]) -> None:
        """`let_go` answers a request, by its number, for a thread that is to die and reads no answer any more, and
        ends its wait."""
        self._waiting = waiting
        self._let_go = let_go
        self._changed = threading.Condition(threading.Lock())  # guards everything below
        self._watched: dict[int, bool] = {}  # request whose wait only an answer ends -> whether to look at once
        self._idle = False  # the looking thread sleeps until there is something to watch
        self._ended = False
        self._looking = threading.Thread(target=self._run, name="killed", daemon=True)

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        """When this returns, nobody is let go any more."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._looking.join()

    def begin(self, unique: int, op: int, message: bytes) -> None:
        """A request waits. An opening is answered in any case: it counts, and only a program that has its handle can
        close it."""
        if op == Op.OPEN:
            return
        if op == Op.READ and not int.from_bytes(message[_READ_FLAGS], sys.byteorder) & _O_DIRECT:
            return
        with self._changed:
            self._watched[unique] = False
            if self._idle:
                self._changed.notify()

    def end(self, unique: int) -> None:
        if unique in self._watched:  # most never are, and need no lock
            with self._changed:
                self._watched.pop(unique, None)

    def interrupted(self, unique: int) -> None:
        """Who waits for a request got a signal."""
        waiter = self._waiting.find(unique)
        if waiter is None or waiter.op == Op.OPEN:
            return
        with self._changed:
            self._watched[unique] = True
            self._changed.notify()

    def _run(self) -> None:
        while (suspects := self._suspects()) is not None:
            for unique, thread in suspects.items():
                if killed(thread):
                    self._let_go(unique)

    def _suspects(self) -> dict[int, int] | None:
        """Wait for a period, or an interrupt; give the requests to look at, with their threads. None at the end."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._watched or self._ended)
            self._idle = False
            before = set(self._watched)
            self._changed.wait_for(lambda: self._ended or any(self._watched.values()), PERIOD)
            if self._ended:
                return None
            known = {unique: waiter.pid for unique in self._watched if (waiter := self._waiting.find(unique))}
            found = {unique: pid for unique, pid in known.items() if self._watched[unique] or unique in before}
            self._watched = dict.fromkeys(known, False)  # not those answered while their interrupt was on its way
            return found


def killed(thread: int) -> bool:
    """Tell whether a thread does nothing any more but die: a signal is pending that it neither handles nor survives."""
    try:
        lines = Path(f"/proc/{thread}/status").read_text("ascii", "replace").splitlines()
    except OSError:  # hidden from this user, or of another container
        return False
    told = dict(line.split(":\t", 1) for line in lines if line.startswith(("Sig", "ShdPnd", "Tracer")))
    own, shared, blocked, ignored, caught = (int(told.get(name, "0"), 16) for name in _MASKS)
    if own & _SIGKILL or told.get("TracerPid", "0") != "0":  # a debugger may keep any other from it
        return own & _SIGKILL != 0
    return (own | shared) & ~(blocked | ignored | caught | _HARMLESS) != 0
