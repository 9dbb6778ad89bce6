"""What a mount is doing at this moment: what `dagfs top` asks for every second, and the metrics now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dagfs import __version__
from dagfs.daemon.control import Message
from dagfs.daemon.core import Core
from dagfs.kernel.session import operation
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
            "path": _path(core, waiter.node, waiter.name),
        }
        for seconds, waiter in core.waiting.now()[:WAITERS_TOLD]
    ]


def _slowest(core: Core) -> list[dict[str, Any]] | None:
    if core.waiting is None:
        return None
    found: dict[str, dict[str, Any]] = {}  # a file may have been waited for by name, for its size, and by node
    for ago, slow in core.waiting.slowest():
        path = _path(core, slow.node, slow.name)
        found.setdefault(path, {"path": path, "seconds": round(slow.seconds, 3), "ago": round(ago, 1)})
    return list(found.values())[:SLOW_TOLD]


def _path(core: Core, node: int, name: bytes) -> str:
    """Give a path; of a LOOKUP that of the name it looks for."""
    path = core.fs.path(node)
    return f"{path}/{printable(name.decode('utf-8', 'backslashreplace'))}".lstrip("/") if name else path
