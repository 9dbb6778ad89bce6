"""Keeps the kernel's descriptor while workers come and go: a worker that dies is a pause for programs, not an error.

The supervisor mounts, negotiates, and forks the worker that serves. It has one thread and does nothing else, so there
is little in it that could fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.mounting import Mount, clone
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

    `on_worker` is told the pid of each worker, and `on_ready` that it serves.
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
        self._recovers = True  # a worker's death leaves no request behind that nobody answers
        self._served = False  # a worker has been ready once
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)  # monotonic times, the oldest first

    def run(self) -> int:
        """Return when the mount has ended: 0 when it was unmounted or told to end, else the last worker's failure.

        A mount that nobody could take off the tree is a failure, too.
        """
        libc = ctypes.CDLL(None, use_errno=True)  # loaded here: a worker must not need a lock that a fork can break
        with signals_held():
            try:
                status = self._supervise(libc)
            finally:
                self._end_worker(told=self._mount.end())
                os.close(self._mount.fd)  # the last holder of the descriptor: whatever still waits gets ENOTCONN
            return status or self._left_behind()

    def _left_behind(self) -> int:
        """Give the exit status for a mount that is still, or is not any more, on the tree."""
        if not self._mount.mounted:
            return 0
        log.error("%s is still mounted, without a daemon: `sudo umount -l` takes it away", self._mount.path)
        return 1

    def _supervise(self, libc: ctypes.CDLL) -> int:
        self._start(libc)
        while True:
            event = signal.sigwaitinfo(LISTENED)
            if event.si_signo in ENDING:
                log.info("%s: ending the mount", signal.Signals(event.si_signo).name)
                return 0
            if event.si_signo == READY and event.si_pid == self._worker:
                self._served = True
                self._on_ready()
            ended = self._reap()
            if ended is None:
                continue
            if not ended.crashed:
                return 0
            if self._gives_up(ended):
                return ended.status or 128 + ended.signal
            self._restart(libc)

    def _start(self, libc: ctypes.CDLL) -> None:
        fd = self._descriptor()
        supervisor = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            status = 1
            try:
                leash = _become_worker(libc, supervisor, fd)
                status = self._work(fd, self._negotiated, lambda: os.kill(supervisor, READY))
                status = 128 + signal.SIGTERM if leash.pulled else status
            except Exception:
                log.exception("the worker failed")
            finally:
                os._exit(status)  # what the supervisor had prepared for its own exit must not run twice
        if fd != self._mount.fd:
            os.close(fd)
        self._on_worker(self._worker)

    def _descriptor(self) -> int:
        """Give the descriptor of the next worker. What it has in hand when it dies is repeated, or fails at least."""
        if self._negotiated.has(Feature.HAS_RESEND):
            return self._mount.fd
        try:
            return clone(self._mount.fd)
        except OSError as error:
            log.warning("no descriptor of its own for the worker (%s): the mount ends if it dies", error)
            self._recovers = False
            return self._mount.fd

    def _restart(self, libc: ctypes.CDLL) -> None:
        if self._negotiated.has(Feature.HAS_RESEND):
            resend(self._mount.fd)
        self._start(libc)

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
        if not self._recovers:
            log.error("the worker died and programs would wait for ever for what it had in hand: the mount ends")
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


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep the signals that a supervisor listens to until it does: one that ended the process between mounting and
    supervising would leave a dead mount behind. At the end, what asks for the end is answered. May be nested."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED)
    try:
        yield
    finally:
        while signal.sigtimedwait(ENDING, 0):  # `dagfs unmount` sends one after the kernel's own word
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_worker(libc: ctypes.CDLL, supervisor: int, fd: int) -> _Leash:
    """Die with the supervisor, and leave Ctrl-C, which the terminal sends to both, to it."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != supervisor:  # it died before prctl
        os._exit(1)
    leash = _Leash(fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leash.pull)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED)
    return leash
