"""The process that holds a mount: it mounts, negotiates, forks the worker that serves, and waits.

It has one thread and does nothing else, so there is little in it that could fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Protocol

from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.mountinfo import abort
from dagfs.kernel.mounting import Mount, clone
from dagfs.kernel.notify import resend
from dagfs.supervisor.policy import Ended, Restarts, oom_kills
from dagfs.supervisor.post import ENDING, LISTENED, READY, RENEW, Jobs, Post, run_worker
from dagfs.supervisor.watch import PERIOD, Watch

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds that a worker gets to put its cache in order once the mount has ended, before it is killed."""


class Observer(Protocol):
    """Is told how a supervisor's workers fare."""

    def worker(self, pid: int) -> None:
        """A worker was started."""

    def ready(self) -> None:
        """It serves."""

    def lost(self) -> None:
        """It died; another will be started."""

    def failed(self, reason: str) -> None:
        """No other will be: programs get ENOTCONN."""

    def renewing(self) -> None:
        """The next worker will be of the code that is installed now."""

    def looked(self, *, serves: bool) -> None:
        """A period is over; `serves`: the worker has answered in it, or nobody waits for it."""

    def ending(self) -> None:
        """The mount is about to end."""


class Supervisor:
    """Runs workers on a mount until it ends. Construct and run it in a process with one thread.

    `period`: seconds between two questions of the watch.
    """

    def __init__(
        self,
        mount: Mount,
        negotiated: Negotiated,
        jobs: Jobs,
        observer: Observer,
        period: float = PERIOD,
    ) -> None:
        self._mount = mount
        self._negotiated = negotiated
        self._observer = observer
        self._jobs = jobs
        self._period = period
        self._libc = ctypes.CDLL(None, use_errno=True)  # here: a worker must not need a lock that a fork can break
        self._watch = Watch(mount, period, self._libc)
        self._restarts = Restarts(time.monotonic())
        self._worker = 0  # pid; 0 iff none runs or waits to be reaped
        self._start_at = 0.0  # when the next worker is due; of no meaning while one runs
        self._look_at = 0.0  # when the watch is due
        self._kill_at: float | None = None  # a worker that was told to end is killed then
        self._stuck = False  # the worker was killed because it did not answer
        self._oom_kills = 0  # when the worker was started
        self._recovers = True  # a worker's death leaves no request behind that nobody answers
        self._started = False  # a worker has been started once
        self._serves = False  # the worker that runs is ready
        self._served = False  # a worker has been ready once
        self._given_up = False  # after it has served
        self._renewed = False  # workers run the code that is installed now, not that of this process

    def run(self) -> int:
        """Return when the mount has ended: 0 when it was unmounted or told to end, else the last worker's failure.

        A mount that nobody could take off the tree is a failure, too. One that was given up stays there, dead: an empty
        directory in its place would tell programs that the files do not exist.
        """
        with signals_held():
            status = 1
            try:
                status = self._supervise()
            finally:
                self._observer.ending()
                self._end_worker(told=abort(self._mount.connection) if self._given_up else self._mount.end())
                os.close(self._mount.fd)  # the last holder of the descriptor: whatever still waits gets ENOTCONN
                self._watch.end()
            return status or self._left_behind()

    def _left_behind(self) -> int:
        """Give the exit status for a mount that is still, or is not any more, on the tree."""
        if not self._mount.mounted:
            return 0
        log.error("%s is still mounted, without a daemon: `sudo umount -l` takes it away", self._mount.path)
        return 1

    def _supervise(self) -> int:
        self._look_at = time.monotonic() + self._period
        while True:
            self._act()
            event = signal.sigtimedwait(LISTENED, self._patience())
            number = event.si_signo if event else 0
            if number in ENDING:
                log.info("%s: ending the mount", signal.Signals(number).name)
                return 0
            if event and number == READY and event.si_pid == self._worker:
                self._ready()
            elif number == RENEW:
                self._begin_renewal()
            self._watch.reap()
            ended = self._reap()
            if ended and (status := self._judge(ended)) is not None:
                return status

    def _act(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if not self._worker and now >= self._start_at:
            self._start()
        if self._worker and self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            os.kill(self._worker, signal.SIGKILL)
        if now >= self._look_at:
            self._look_at = now + self._period
            watched = self._worker and not self._stuck
            stuck = watched and self._watch.look()
            self._observer.looked(serves=bool(watched and self._serves and self._watch.served))
            if stuck:
                self._end_stuck()

    def _patience(self) -> float:
        """Seconds until something is due."""
        due = [self._look_at]
        if not self._worker:
            due.append(self._start_at)
        elif self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min(due) - time.monotonic())

    def _ready(self) -> None:
        self._serves = self._served = True
        self._restarts.ready(time.monotonic())
        self._observer.ready()

    def _start(self) -> None:
        if self._started and self._negotiated.has(Feature.HAS_RESEND):
            resend(self._mount.fd)
        self._started = True
        fd = self._descriptor()
        self._watch.begin()
        self._oom_kills = oom_kills()
        self._serves = self._stuck = False
        self._kill_at = None
        post = Post(fd, self._watch.stacks, os.getpid(), self._negotiated)
        self._worker = os.fork()
        if self._worker == 0:
            run_worker(post, self._jobs.work, self._libc, self._jobs.renew if self._renewed else None)
        if fd != self._mount.fd:
            os.close(fd)
        self._observer.worker(self._worker)

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

    def _begin_renewal(self) -> None:
        """End the worker in good order; the next one is of the code that is installed now."""
        if self._jobs.renew is None:
            log.warning("%s: this mount cannot be renewed", RENEW.name)
            return
        log.info("%s: going on with the code that is installed now", RENEW.name)
        self._renewed = True
        self._observer.renewing()
        if self._worker:
            os.kill(self._worker, signal.SIGTERM)
            self._kill_at = time.monotonic() + GRACE

    def _end_stuck(self) -> None:
        waiting = time.monotonic() - self._watch.last_answer
        stacks = self._watch.stacks_of(self._worker)
        log.error("the worker has not answered for %.0f s and is killed; its stacks:\n%s", waiting, stacks)
        self._stuck = True
        os.kill(self._worker, signal.SIGKILL)

    def _reap(self) -> Ended | None:
        if not self._worker:
            return None
        pid, status = os.waitpid(self._worker, os.WNOHANG)
        if pid == 0:
            return None
        self._worker = 0
        code = os.waitstatus_to_exitcode(status)
        return Ended(max(code, 0), max(-code, 0), oom_kills() > self._oom_kills, self._stuck)

    def _judge(self, ended: Ended) -> int | None:
        """Give the exit status when the mount ends with this worker; None when another is due."""
        if not ended.crashed:
            return 0
        reason = self._reason_to_end(ended)
        if reason is not None:
            log.error("%s: giving up", reason)
            self._given_up = self._served
            if self._given_up:
                self._observer.failed(reason)
            return ended.status or 128 + ended.signal
        if self._renewed and not ended.from_outside and not self._restarts.settled:
            log.error(
                "the installed code failed (%s): going on with that of the mount\n%s", ended, self._watch.written()
            )
            self._renewed = False
        self._start_at = time.monotonic() + self._restarts.pause
        log.warning("the worker died (%s): starting another in %.2f s", ended, self._restarts.pause)
        self._observer.lost()
        return None

    def _reason_to_end(self, ended: Ended) -> str | None:
        if not self._served and not ended.signal:
            return f"the worker could not start ({ended})"
        if not self._recovers:
            return f"the worker died ({ended}) and programs would wait for ever for what it had in hand"
        now = time.monotonic()
        return self._restarts.died(ended, self._watch.last_answer if ended.stuck else now, now)

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


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep the signals that a supervisor listens to until it does: one that ended the process between mounting and
    supervising would leave a dead mount behind. At the end, what asks for the end is answered. May be nested."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED)
    try:
        yield
    finally:
        while signal.sigtimedwait(ENDING | {RENEW}, 0):  # `dagfs unmount` sends one after the kernel's own word
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
