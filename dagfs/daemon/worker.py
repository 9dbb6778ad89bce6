"""The rooms of a serving worker, the branch that they follow, and the control socket that answers for them."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dagfs import __version__
from dagfs.daemon import interpreter
from dagfs.daemon.activity import activity
from dagfs.daemon.control import ControlServer, Message, Operation
from dagfs.daemon.core import Core, Handed
from dagfs.daemon.following import Follower, Hold
from dagfs.daemon.generation import Change
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.state import Registry
from dagfs.daemon.warming import Warmer
from dagfs.hub.auth import Token
from dagfs.kernel.following import Following
from dagfs.kernel.openings import Openings
from dagfs.model import Commit, RefKind
from dagfs.tree.known import Known

log = logging.getLogger(__name__)


@contextlib.contextmanager
def worker_rooms(plan: MountPlan, commit: Commit, token: Token, handed: Handed) -> Iterator[Core]:
    """Build the rooms, and take them down at the end."""
    interpreter.settle_heap()
    core = Core(plan, commit, token, handed)
    try:
        if core.ways is not None:
            core.ways.begin()
        yield core
    finally:
        core.close()


@contextlib.contextmanager
def answering(plan: MountPlan, core: Core, listener: socket.socket | None) -> Iterator[None]:
    """Answer on the control socket, and scrapes on `listener`, for the length of a block. It is entered last: who asks
    is told all that there is to tell."""
    warmer = Warmer(core)
    operations = {
        "status": lambda _: _status(core),
        "activity": lambda _: activity(core),
        "warm": warmer.answer,
    }
    control = _listen(Registry(plan.places.runtime).socket(plan.id), operations)
    if listener is not None:
        from dagfs.daemon import scrape  # noqa: PLC0415 -- its library takes memory of those that want it only

        scrape.answer(listener, plan, core)
    interpreter.settle()
    try:
        yield
    finally:
        warmer.stop()
        if control is not None:
            control.close()


@contextlib.contextmanager
def follow(
    plan: MountPlan, core: Core, kernel: Following | None, openings: Openings | None, shown: Callable[[], None]
) -> Iterator[None]:
    """Follow the branch, if the plan says so, for the length of a block. `shown` is called after each change."""
    generations, followed = core.generations, core.followed
    if plan.follow is None or generations is None or followed is None or kernel is None:
        yield
        return
    branch = generations.commit.branch
    change = Change(generations, plan.subdir, kernel.changed)
    known = Known(core.store, plan.repo)

    def changed() -> None:
        known.remember(plan.revision, generations.commit)
        shown()

    hold = Hold(openings.quiet_for, plan.follow) if openings is not None else Hold()
    follower = Follower(lambda: core.source.resolve(branch, RefKind.BRANCH), change, plan.follow, hold, changed)
    core.told = lambda: {
        "commit": generations.commit.sha,
        "follow": {"since": followed.shown.since, **follower.report()},
    }
    kernel.epoch_begins = follower.epoch_begins
    kernel.changed()  # a worker before this one may have died between the change and its word to the kernel
    follower.start()
    try:
        yield
    finally:
        follower.stop()


def _listen(path: Path, operations: dict[str, Operation]) -> ControlServer | None:
    """Answer on a socket; without one, on a full disk for example, programs read all the same."""
    try:
        return ControlServer(path, operations)
    except OSError as error:
        log.warning("this worker answers neither `dagfs status` nor `dagfs warm`: %s", error)
        return None


def _status(core: Core) -> Iterable[Message]:
    yield {
        "version": __version__,
        "metrics": core.figures(),
        "hub": core.hub_state(),
        "ways": core.way_reports(),
        "not_kept": core.store.refusal,
        "missing": core.rooms.vfs.missing.report(),
        **core.hidden(),
        **core.told(),
    }
