"""Keeps the kernel's descriptor while workers come and go: a worker that dies is a pause for programs, not an error.

The supervisor mounts, negotiates, and forks the worker that serves. It has one thread and does nothing else, so there
is little in it that could fail.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.mounting import Mount
from dagfs.kernel.notify import resend

log = logging.getLogger(__name__)

Ready = Callable[[], None]
Work = Callable[[int, Negotiated, Ready], int]
"""Runs in a worker process: serves the descriptor, calls `ready` once it does, and returns an exit status, 0 when the
mount has ended."""

MAX_CRASHES = 5
CRASH_WINDOW = 60.0
"""Seconds. More than MAX_CRASHES in that time and the cause will not go away by itself: programs get ENOTCONN."""

GRACE = 3.0
"""Seconds that a worker gets to put its cache in order once the mount has ended, before it is killed."""

Mask = set[Union[int, signal.Signals]]
PR_SET_PDEATHSIG = 1
READY = signal.SIGUSR1  # from the worker: it serves
ENDING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
LISTENED = ENDING | {signal.SIGCHLD, READY}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended: its exit `status`, or the number of the `signal` that killed it."""

    status: int
    signal: int

    @property
    def crashed(self) -> bool:
        return self.signal != 0 or self.status != 0


class Supervisor:
    """Runs workers on a mount until it ends. Construct and run it in a process with one thread.

    `on_worker` is told the pid of each worker, `on_ready` that the first one serves.
    """

    def __init__(
        self,
        mount: Mount,
        negotiated: Negotiated,
        work: Work,
        on_worker: Callable[[int], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._mount = mount
        self._negotiated = negotiated
        self._work = work
        self._on_worker = on_worker
        self._on_ready = on_ready
        self._worker = 0  # pid; 0 iff none runs or waits to be reaped
        self._served = False  # a worker has been ready once
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)  # monotonic times, the oldest first

    def run(self) -> int:
        """Return when the mount has ended: 0 when it was unmounted or told to end, else the last worker's failure."""
        libc = ctypes.CDLL(None, use_errno=True)  # loaded here: a worker must not need a lock that a fork can break
        before = signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED)
        try:
            return self._supervise(libc, before)
        finally:
            self._end_worker(told=self._mount.end())
            os.close(self._mount.fd)  # the last holder of the descriptor: whatever still waits gets ENOTCONN
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _supervise(self, libc: ctypes.CDLL, mask: Mask) -> int:
        self._start(libc, mask)
        while True:
            event = signal.sigwaitinfo(LISTENED)
            if event.si_signo in ENDING:
                log.info("%s: ending the mount", signal.Signals(event.si_signo).name)
                return 0
            if event.si_signo == READY and event.si_pid == self._worker:
                self._note_ready()
            ended = self._reap()
            if ended is None:
                continue
            if not ended.crashed:
                return 0
            if self._gives_up(ended):
                return ended.status or 128 + ended.signal
            self._restart(libc, mask)

    def _start(self, libc: ctypes.CDLL, mask: Mask) -> None:
        supervisor = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            _become_worker(libc, mask, supervisor)
            status = 1
            try:
                status = self._work(self._mount.fd, self._negotiated, lambda: os.kill(supervisor, READY))
            except SystemExit:
                status = 128 + signal.SIGTERM
            except Exception:
                log.exception("the worker failed")
            finally:
                os._exit(status)  # what the supervisor had prepared for its own exit must not run twice
        self._on_worker(self._worker)

    def _restart(self, libc: ctypes.CDLL, mask: Mask) -> None:
        if self._negotiated.has(Feature.HAS_RESEND):
            resend(self._mount.fd)
        self._start(libc, mask)

    def _note_ready(self) -> None:
        if not self._served:
            self._served = True
            self._on_ready()

    def _reap(self) -> Ended | None:
        pid, status = os.waitpid(self._worker, os.WNOHANG)
        if pid == 0:
            return None
        self._worker = 0
        code = os.waitstatus_to_exitcode(status)
        return Ended(max(code, 0), max(-code, 0))

    def _gives_up(self, ended: Ended) -> bool:
        if not self._served and not ended.signal:
            log.error("the worker could not start (exit status %d)", ended.status)
            return True
        if not self._negotiated.has(Feature.HAS_RESEND):
            log.error("the worker died; this kernel (before 6.9) cannot repeat what it had in hand, so the mount ends")
            return True
        self._crashes.append(time.monotonic())
        if len(self._crashes) == MAX_CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_WINDOW:
            log.error("%d workers died within %.0f s: giving up", MAX_CRASHES, CRASH_WINDOW)
            return True
        log.warning("the worker died (%s): starting another", ended)
        return False

    def _end_worker(self, *, told: bool) -> None:
        if not self._worker:
            return
        if not told:  # by the kernel, at the end of the connection
            os.kill(self._worker, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._worker and (left := deadline - time.monotonic()) > 0:
            if self._reap() is None:
                signal.sigtimedwait({signal.SIGCHLD}, left)
        if self._worker:
            log.warning("the worker did not end within %.0f s: killing it", GRACE)
            os.kill(self._worker, signal.SIGKILL)
            os.waitpid(self._worker, 0)
            self._worker = 0


def _become_worker(libc: ctypes.CDLL, mask: Mask, supervisor: int) -> None:
    """Die with the supervisor, and leave Ctrl-C, which the terminal sends to both, to it."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != supervisor:  # it died before prctl
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # wherever it is, so that its rooms are closed
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
