"""A worker's side of its supervisor: what it is given, and how it starts, tells that it serves, and ends."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from dagfs.kernel.handshake import Negotiated

log = logging.getLogger(__name__)

Ready = Callable[[], None]
Work = Callable[[int, Negotiated, Ready], int]
"""Runs in a worker process: serves the descriptor, calls `ready` once it does, and returns an exit status, 0 when the
mount has ended."""

READY = signal.SIGUSR1  # from the worker: it serves
RENEW = signal.SIGUSR2  # from a user: go on with the code that is installed now
STACKS = signal.SIGUSR2  # to the worker: write down what every thread does
ENDING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
LISTENED = ENDING | {signal.SIGCHLD, READY, RENEW}
"""What a supervisor waits for; blocked in it otherwise."""

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker gets: the device's descriptor, a file that its stacks go to, its supervisor's pid."""

    fd: int
    stacks: int
    supervisor: int
    negotiated: Negotiated


Renew = Callable[[Post], NoReturn]
"""Runs in a worker process instead of `Work`: executes the code that is installed now, which takes the post."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """What worker processes do: `work`, or `renew` once that was asked for; None: never."""

    work: Work
    renew: Renew | None = None


def run_worker(post: Post, work: Work, libc: ctypes.CDLL, renew: Renew | None = None) -> NoReturn:
    """Work until the mount ends. What this process had prepared for its own exit, as a supervisor, does not run."""
    status = 1
    try:
        if renew is not None:  # signals wait until the other program listens to them
            die_with(post.supervisor, libc)
            renew(post)
        leash = _take(post, libc)
        status = work(post.fd, post.negotiated, lambda: os.kill(post.supervisor, READY))
        status = 128 + signal.SIGTERM if leash.pulled else status
    except Exception:
        log.exception("the worker failed")
    finally:
        os._exit(status)


def die_with(parent: int, libc: ctypes.CDLL) -> None:
    """Have this process killed when its parent dies."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl
        os._exit(1)


class _Leash:
    """Ends a worker's session on SIGTERM: the device is exchanged for one that is always at its end.

    An exception from a signal handler could hit any line, and be taken for a failed read by those that catch all.
    """

    def __init__(self, fd: int) -> None:
        self.pulled = False
        self._fd = fd
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def pull(self, _number: int, _frame: object) -> None:
        self.pulled = True
        os.dup2(self._null, self._fd, inheritable=False)


def _take(post: Post, libc: ctypes.CDLL) -> _Leash:
    """Die with the supervisor, and leave Ctrl-C, which the terminal sends to both, to it."""
    die_with(post.supervisor, libc)
    leash = _Leash(post.fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leash.pull)
    faulthandler.register(STACKS, post.stacks)  # its handler needs neither the interpreter nor its lock
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED)
    return leash
