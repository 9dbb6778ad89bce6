"""A worker of the code that is installed now, under a supervisor of the code that the mount was made with.

The two may be of different versions, so what passes between them is JSON, by name, with a format number. It lies in a
file without a name: it ends with its readers.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import json
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from dagfs.daemon import interpreter
from dagfs.daemon.commits import CommitTable
from dagfs.daemon.logs import log_path, start_log
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.serving import Service, Tables, token_for
from dagfs.kernel.backing import Table
from dagfs.kernel.handshake import Negotiated
from dagfs.kernel.openings import OpenTable
from dagfs.kernel.pulse import Pulse
from dagfs.model import Commit
from dagfs.store.spare import Spare
from dagfs.supervisor.post import Post, Renew, run_worker

FORMAT = 1
"""To be raised when a worker could not go on where one of the version before has ended: other node ids, other rows in
the table of backings, another meaning of a field. Then a mount is renewed by mounting again."""


BEGIN = f"""
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({interpreter.PR_SET_DUMPABLE}, ctypes.c_ulong(0), 0, 0, 0)
import runpy
runpy.run_module({__name__!r}, run_name="__main__")
"""
"""What the interpreter does first: a program that is begun can be traced, by its own user, until it says otherwise."""


def renewal(service: Service, *, foreground: bool) -> Renew:
    """Give what makes a worker process one of the installed code."""

    tables = service.tables
    shared = {
        "backings": tables.backings.fd,
        "openings": tables.openings.fd,
        "commits": tables.commits.fd,
        "spare": tables.spare.fd,
    }
    if tables.pulse is not None:
        shared["pulse"] = tables.pulse.fd
    if service.listener is not None:
        shared["metrics"] = service.listener.fileno()

    def renew(post: Post) -> NoReturn:
        told: dict[str, Any] = {
            "format": FORMAT,
            "plan": encode(service.plan),
            "commit": encode(service.commit),
            "device": post.fd,
            "stacks": post.stacks,
            "supervisor": post.supervisor,
            "negotiated": post.negotiated.to_json(),
            "tables": shared,
            "foreground": foreground,
        }
        message = os.memfd_create("dagfs-post")
        os.write(message, json.dumps(told).encode())
        os.lseek(message, 0, os.SEEK_SET)
        for fd in (message, post.fd, post.stacks, *shared.values()):
            os.set_inheritable(fd, True)
        if not foreground:
            os.dup2(post.stacks, 2)  # why it cannot even start: the supervisor logs it
        os.chdir("/")  # modules are looked for there first
        os.execv(sys.executable, [sys.executable, "-c", BEGIN, str(message)])  # noqa: S606 -- our own interpreter  # nosec B606

    return renew


def main(message: int) -> NoReturn:
    """Take a post. Ends with status 1 when it was left by a version that cannot be followed."""
    with os.fdopen(message, encoding="utf-8") as file:
        told = json.load(file)
    if told["format"] != FORMAT:
        sys.exit(f"format {told['format']} of a worker's post, not {FORMAT}: unmount, and mount again")
    plan, commit = decode(MountPlan, told["plan"]), decode(Commit, told["commit"])
    formatter = start_log(None if told["foreground"] else log_path(plan.places.state, plan.id), plan.log_format)
    post = Post(told["device"], told["stacks"], told["supervisor"], Negotiated.from_json(told["negotiated"]))
    given = told["tables"]
    for fd in (post.fd, post.stacks, *given.values()):
        os.set_inheritable(fd, False)
    tables = Tables(
        Table(given["backings"]),
        OpenTable(given["openings"]),
        CommitTable(commit, given["commits"]),
        Spare(given["spare"]),
        Pulse(given["pulse"]) if "pulse" in given else None,
    )
    token = token_for(plan)
    formatter.hide(token.known)
    listener = socket.socket(fileno=given["metrics"]) if "metrics" in given else None
    service = Service(plan, commit, token, tables, listener)
    if not told["foreground"]:
        os.dup2(0, 2)
    run_worker(post, lambda fd, agreed, ready: service.run(fd, agreed, ready, takes_over=True), ctypes.CDLL(None))


def encode(value: Any) -> Any:
    """Turn a dataclass of plain values, paths, enums and such dataclasses into what JSON knows."""
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def decode(kind: Any, value: Any) -> Any:
    """Undo `encode`. A field that the other version did not have gets its default; one that it alone has is dropped."""
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(choice for choice in get_args(kind) if choice is not type(None))
    if dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.name in value]
        return kind(**{name: decode(kinds[name], value[name]) for name in names})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[value]
    return Path(value) if kind is Path else value


if __name__ == "__main__":
    main(int(sys.argv[1]))
