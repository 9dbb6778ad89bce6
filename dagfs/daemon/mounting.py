"""Make a mount and hold it until it ends: check, resolve, mount, supervise, tell how it fares."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

from dagfs import __version__, libfuse
from dagfs.daemon import interpreter
from dagfs.daemon.background import Herald, Outcome
from dagfs.daemon.claim import claim
from dagfs.daemon.commits import CommitTable
from dagfs.daemon.core import Handed
from dagfs.daemon.listener import listen
from dagfs.daemon.logs import log_path, start_log
from dagfs.daemon.notify import notify, watchdog_seconds
from dagfs.daemon.plan import MountPlan, ledger_path
from dagfs.daemon.resolving import resolve
from dagfs.daemon.serving import Service, Tables, token_for
from dagfs.daemon.state import MountState, Registry, birth, lives
from dagfs.daemon.successor import renewal
from dagfs.daemon.worker import answering, worker_rooms
from dagfs.hub.auth import Token
from dagfs.kernel.backing import Table
from dagfs.kernel.handshake import Feature, Negotiated, negotiate
from dagfs.kernel.mounting import Mount, check_fuse, check_mount_point, is_automount, mount
from dagfs.kernel.openings import OpenTable
from dagfs.kernel.passed import check_passed, name_of, take
from dagfs.kernel.pulse import Pulse
from dagfs.model import Commit
from dagfs.store.ledger import forget
from dagfs.store.spare import Spare
from dagfs.supervisor.loop import Supervisor, signals_held
from dagfs.supervisor.post import RENEW, Jobs, Ready, Renew
from dagfs.supervisor.watch import MISSED, PERIOD

log = logging.getLogger(__name__)

LOOKS_A_WATCHDOG = 2 * (MISSED + 1)
"""Looks of the watch while systemd waits: half of them find a stuck worker, during the others the next one starts."""


class _Stopped(BaseException):
    """A signal has come before anything was mounted; no error that a room could make something of."""


def serve(plan: MountPlan, herald: Herald, *, foreground: bool) -> int:
    """Mount as planned and return the exit status when the mount has ended. Raises UsageError, DagfsError before."""
    try:
        return _serve(plan, herald, foreground=foreground)
    except _Stopped:
        herald.say(Outcome("it was told to end before it had mounted", 1))
        return 0


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _serve(plan: MountPlan, herald: Herald, *, foreground: bool) -> int:
    os.umask(0o077)
    interpreter.keep_memory_private()
    log_file = log_path(plan.places.state, plan.id)
    formatter = start_log(None if foreground else log_file, plan.log_format)
    if plan.passed is None:
        check_fuse(plan.allow_other)
    signal.signal(signal.SIGTERM, _stop)  # no file may stay behind
    with claim(Registry(plan.places.runtime).lock(plan.id), lambda: _check_place(plan)):
        ledger = ledger_path(plan.places, plan.id)
        forget(ledger)  # of a mount that was killed: no kernel remembers its node ids any more
        listener = listen(plan.metrics) if plan.metrics else None
        token = token_for(plan)
        formatter.hide(token.known)
        commit = resolve(plan, token)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.collect()  # ends SQLite's connections of threads that have ended: a fork may not carry them over
        announcer = Announcer(plan, commit, herald, log_file)
        try:
            if plan.driver == "libfuse":
                status = _serve_libfuse(plan, commit, token, announcer, listener)
            else:
                pulse = None if plan.passed is None else Pulse()
                tables = Tables(Table(), OpenTable(), announcer.shown, Spare(), pulse)
                service = Service(plan, commit, token, tables, listener)
                status = _serve_kernel(service, announcer, renewal(service, foreground=foreground))
        finally:
            announcer.ended()
            forget(ledger)
    herald.say(Outcome(f"the mount ended before it could be read; {log_file} says why", status or 1))
    return status


class Announcer:
    """Tells the starter, systemd and the state file how the mount fares. Used by one thread.

    `shown`: the commits that the mount has shown, written by the worker.
    """

    def __init__(self, plan: MountPlan, commit: Commit, herald: Herald, log_file: Path) -> None:
        self.shown = CommitTable(commit)
        self._registry = Registry(plan.places.runtime)
        self._name = plan.id
        self._herald = herald
        self._state = MountState(
            mountpoint=str(plan.mountpoint),
            repo=plan.repo.slug,
            host=plan.repo.host,
            branch=commit.branch,
            commit=commit.sha,
            driver=plan.driver,
            version=__version__,
            state="starting",
            pid=os.getpid(),
            workers=(),
            generation=0,
            log=str(log_file),
            cache=str(plan.places.cache),
            born=birth(os.getpid()),
            descriptor="" if plan.passed is None else name_of(plan.passed),
            owner=plan.owner[0] if plan.owner else 0,
            owner_born=plan.owner[1] if plan.owner else 0,
        )

    @property
    def generation(self) -> int:
        """How many workers have been started."""
        return self._state.generation

    def alone(self) -> None:
        """This process serves by itself: no worker may be killed."""
        self._publish(self._state.changed(generation=1))

    def worker(self, pid: int) -> None:
        """A worker was started; the first is generation 1."""
        generation = self._state.generation + 1
        state = "recovering" if generation > 1 else "starting"
        self._publish(self._state.changed(workers=(pid,), generation=generation, state=state))

    def ready(self) -> None:
        """The file system answers, or shows another commit from now on."""
        self._publish(self._state.changed(state="serving"))
        what = f"{self._state.host}/{self._state.repo} at {self._state.commit[:12]}"
        notify(f"READY=1\nSTATUS=serving {what}")
        log.info("%s is mounted at %s", what, self._state.mountpoint)
        if not self._herald.say(Outcome(None, detail=f"{what} is mounted at {self._state.mountpoint}")):
            log.warning("the command that asked for the mount was interrupted: ending it")
            os.kill(os.getpid(), signal.SIGTERM)

    def lost(self) -> None:
        """The worker died; another will be started."""
        self._publish(self._state.changed(workers=(), state="recovering"))
        notify("STATUS=recovering: a worker died and another starts")

    def failed(self, reason: str) -> None:
        """No other will be: the mount stays on the tree, dead, and its state tells why."""
        self._publish(self._state.changed(workers=(), state="failed", reason=reason))
        notify(f"STATUS=failed: {reason}")

    def renewing(self) -> None:
        """The next worker will be of the code that is installed now; `ready` is the end of it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=going on with the installed version")

    def looked(self, *, serves: bool) -> None:
        """Now and then: publish anew what could not be written, or whose directory has gone with the login; and see
        whether the process is gone that the mount is for."""
        if serves:
            notify("WATCHDOG=1")
        if self._state.owner and not lives(self._state.owner, self._state.owner_born):
            log.info("process %d, which the mount was for, has ended: ending it", self._state.owner)
            os.kill(os.getpid(), signal.SIGTERM)
        if self._registry.read(self._name) != self._state:
            self._publish(self._state)

    def ending(self) -> None:
        notify("STOPPING=1")

    def ended(self) -> None:
        try:
            if self._state.state == "failed":
                self._registry.socket(self._name).unlink(missing_ok=True)
            else:
                self._registry.remove(self._name)
        except OSError as error:
            log.warning("the mount's state file stays behind: %s", error)

    def _publish(self, state: MountState) -> None:
        """Tell who asks. A disk that is full, or a directory that is gone, must not end what programs read from."""
        self._state = state = state.changed(commit=self.shown.shown.sha)
        try:
            self._registry.write(self._name, state)
        except OSError as error:
            log.warning("`dagfs status` does not know that the mount is %s: %s", state.state, error)


def _serve_kernel(service: Service, announcer: Announcer, renew: Renew) -> int:
    def work(fd: int, agreed: Negotiated, ready: Ready) -> int:
        return service.run(fd, agreed, ready, takes_over=announcer.generation > 0)

    plan = service.plan
    unwanted = Feature(0) if plan.passthrough else Feature.PASSTHROUGH
    with signals_held():
        connection = _connect(plan, service.tables.pulse)
        try:
            negotiated = negotiate(connection.fd, unwanted)
        except BaseException:
            connection.end()
            raise
        if plan.passthrough and not negotiated.has(Feature.PASSTHROUGH):
            log.warning("this kernel has no passthrough (Linux 6.9): large files are read through the daemon")
        watchdog = watchdog_seconds(os.environ, os.getpid())
        period = PERIOD if watchdog is None else min(PERIOD, watchdog / LOOKS_A_WATCHDOG)
        return Supervisor(connection, negotiated, Jobs(work, renew), announcer, period).run()


def _check_place(plan: MountPlan) -> None:
    if plan.passed is None:
        check_mount_point(plan.mountpoint)
    else:
        check_passed(plan.passed)


def _connect(plan: MountPlan, pulse: Pulse | None) -> Mount:
    if plan.passed is not None:
        return take(plan.passed, pulse)
    place, source = str(plan.mountpoint), plan.source or str(plan.repo)
    late = is_automount(place)
    connection = mount(place, source, allow_other=plan.allow_other, noexec=plan.noexec)
    if late:
        with contextlib.suppress(PermissionError):  # in the foreground
            os.setsid()
    return connection


def _serve_libfuse(
    plan: MountPlan, commit: Commit, token: Token, announcer: Announcer, listener: socket.socket | None
) -> int:
    signal.signal(RENEW, signal.SIG_IGN)  # there is no supervisor, and nobody should die of asking for one
    announcer.alone()
    signal.pthread_sigmask(signal.SIG_BLOCK, libfuse.ENDING)  # in all threads to come
    notify("WATCHDOG_USEC=0")  # there is nobody to tell a stuck process from one that serves
    if plan.owner is not None:
        threading.Thread(target=_look, args=(announcer,), name="owner", daemon=True).start()
    with worker_rooms(plan, commit, token, Handed()) as core, answering(plan, core, listener):
        calls = libfuse.Calls(announcer.ready, core.disconnect)
        libfuse.serve(core.fs, str(plan.mountpoint), str(plan.repo), allow_other=plan.allow_other, calls=calls)
        announcer.ending()
    return 0


def _look(announcer: Announcer) -> None:
    while True:
        time.sleep(PERIOD)
        announcer.looked(serves=False)
