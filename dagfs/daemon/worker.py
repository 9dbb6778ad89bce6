"""The rooms of a serving worker, with the control socket that answers for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from dagfs.daemon import interpreter
from dagfs.daemon.control import ControlServer, Message
from dagfs.daemon.core import Core
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.state import Registry
from dagfs.daemon.warming import Warmer
from dagfs.hub.auth import Token
from dagfs.model import Commit


@contextlib.contextmanager
def worker_rooms(plan: MountPlan, commit: Commit, token: Token) -> Iterator[Core]:
    """Build the rooms, answer on the control socket, and take all down in reverse order."""
    interpreter.settle_heap()
    core = Core(plan, commit, token)
    try:
        warmer = Warmer(core)
        operations = {"status": lambda _: _status(core), "warm": warmer.answer}
        control = ControlServer(Registry(plan.places.runtime).socket(plan.id), operations)
        interpreter.settle()
        try:
            yield core
        finally:
            warmer.stop()
            control.close()
    finally:
        core.close()


def _status(core: Core) -> Iterable[Message]:
    yield {"metrics": core.figures(), **core.hidden()}
