"""Make a mount and hold it until it ends: check, resolve, mount, supervise, tell how it fares."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dagfs import __version__, libfuse
from dagfs.daemon.background import Herald, Outcome
from dagfs.daemon.claim import claim
from dagfs.daemon.core import resolve
from dagfs.daemon.logs import log_path, start_log
from dagfs.daemon.notify import notify
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.state import MountState, Registry, birth
from dagfs.daemon.worker import worker_rooms
from dagfs.hub.auth import Token, find_token
from dagfs.kernel.backing import Backings, Table
from dagfs.kernel.handshake import Feature, Negotiated, negotiate
from dagfs.kernel.mounting import check_fuse, check_mount_point, mount
from dagfs.kernel.protocol import Owner
from dagfs.kernel.session import Session
from dagfs.model import Commit
from dagfs.supervisor import Ready, Supervisor, signals_held

log = logging.getLogger(__name__)


def serve(plan: MountPlan, herald: Herald, *, foreground: bool) -> int:
    """Mount as planned and return the exit status when the mount has ended. Raises UsageError, DagfsError before."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the token
    log_file = log_path(plan.places.state, plan.id)
    start_log(None if foreground else log_file)
    check_fuse(plan.allow_other)
    with claim(Registry(plan.places.runtime).lock(plan.id), lambda: check_mount_point(plan.mountpoint)):
        token_file = str(plan.token_file) if plan.token_file else None
        token = find_token(token_file, os.environ, plan.places.client_tokens, plan.repo.host, time.time())
        commit = resolve(plan, token)
        gc.collect()  # ends SQLite's connections of threads that have ended: a fork may not carry them over
        announcer = Announcer(plan, commit, herald, log_file)
        driver = {"kernel": _serve_kernel, "libfuse": _serve_libfuse}[plan.driver]
        try:
            status = driver(plan, commit, token, announcer)
        finally:
            announcer.ended()
    herald.say(Outcome(f"the mount ended before it could be read; {log_file} says why", status or 1))
    return status


class Announcer:
    """Tells the starter, systemd and the state file how the mount fares. Used by one thread."""

    def __init__(self, plan: MountPlan, commit: Commit, herald: Herald, log_file: Path) -> None:
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
        """The file system answers."""
        self._publish(self._state.changed(state="serving"))
        what = f"{self._state.host}/{self._state.repo} at {self._state.commit[:12]}"
        notify(f"READY=1\nSTATUS=serving {what}")
        if not self._herald.say(Outcome(None, detail=f"{what} is mounted at {self._state.mountpoint}")):
            log.warning("the command that asked for the mount was interrupted: ending it")
            os.kill(os.getpid(), signal.SIGTERM)

    def ended(self) -> None:
        notify("STOPPING=1")
        self._registry.remove(self._name)

    def _publish(self, state: MountState) -> None:
        self._state = state
        self._registry.write(self._name, state)


def _serve_kernel(plan: MountPlan, commit: Commit, token: Token, announcer: Announcer) -> int:
    def work(fd: int, agreed: Negotiated, ready: Ready) -> int:
        with worker_rooms(plan, commit, token) as core:
            through = agreed.has(Feature.PASSTHROUGH)
            backings = Backings(fd, table, takes_over=announcer.generation > 0) if through else None
            session = Session(fd, core.vfs, agreed, Owner(os.getuid(), os.getgid()), backings)
            core.observe("kernel", session.counts)
            core.vfs.on_disproved = session.drop_pages
            ready()
            session.run()
        return 0

    table = Table()
    unwanted = Feature(0) if plan.passthrough else Feature.PASSTHROUGH
    with signals_held():
        connection = mount(str(plan.mountpoint), str(plan.repo), allow_other=plan.allow_other)
        try:
            negotiated = negotiate(connection.fd, unwanted)
        except BaseException:
            connection.end()
            raise
        if plan.passthrough and not negotiated.has(Feature.PASSTHROUGH):
            log.warning("this kernel has no passthrough (Linux 6.9): large files are read through the daemon")
        return Supervisor(connection, negotiated, work, announcer.worker, announcer.ready).run()


def _serve_libfuse(plan: MountPlan, commit: Commit, token: Token, announcer: Announcer) -> int:
    announcer.alone()
    with worker_rooms(plan, commit, token) as core:
        ready: Callable[[], None] = announcer.ready
        libfuse.serve(core.vfs, str(plan.mountpoint), str(plan.repo), allow_other=plan.allow_other, ready=ready)
    return 0
