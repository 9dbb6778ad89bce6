"""What a mount is doing at this moment: what `dagfs top` asks for every second, and the metrics now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dagfs import __version__
from dagfs.daemon.control import Message
from dagfs.daemon.core import Core
from dagfs.kernel.protocol import Op
from dagfs.kernel.session import operation
from dagfs.kernel.waiting import Waiter
from dagfs.model import printable

WAITERS_TOLD = 50
SLOW_TOLD = 10


def activity(core: Core) -> Iterable[Message]:
    """Answer the question "activity". Times in seconds; a `pid` is that of a thread, 0 for one that this pid namespace
    does not have. `waiting` and `slowest` are None where the driver is libfuse, which tells nobody."""
    info = core.store.info()
    yield {
        "version": __version__,
        "metrics": core.figures(),
        "queue": queue(core),
        "waiting_count": len(core.waiting.now()) if core.waiting else None,
        "waiting": _waiting(core),
        "slowest": _slowest(core),
        "cached": {"bytes": info.bytes, "limit": info.limit, "files": info.files},
        "hub": core.hub_state(),
    }


def queue(core: Core) -> dict[str, int]:
    """Count transfers under way, and loads that wait for their turn."""
    running, waiting = core.fetcher.in_flight()
    return {"running": running, "waiting": waiting}


def _waiting(core: Core) -> list[dict[str, Any]] | None:
    if core.waiting is None:
        return None
    return [
        {
            "pid": waiter.pid,
            "seconds": round(seconds, 3),
            "operation": operation(waiter.op),
            "path": _path(core, waiter),
        }
        for seconds, waiter in core.waiting.now()[:WAITERS_TOLD]
    ]


def _path(core: Core, waiter: Waiter) -> str:
    """Give the path that a program waits for; of a LOOKUP that of the name it looks for."""
    path = core.fs.path(waiter.node)
    if waiter.op != Op.LOOKUP:
        return path or "."
    name = printable(waiter.name.decode("utf-8", "backslashreplace"))
    return f"{path}/{name}" if path else name


def _slowest(core: Core) -> list[dict[str, Any]] | None:
    if core.waiting is None:
        return None
    return [
        {"path": core.fs.path(slow.node) or ".", "seconds": round(slow.seconds, 3), "ago": round(ago, 1)}
        for ago, slow in list(core.waiting.slowest())[:SLOW_TOLD]
    ]
