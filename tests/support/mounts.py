"""Mounts for tests: the adapter runs in a process of its own, and nothing of it outlives the test."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagfs.errors import BadMountPoint
from dagfs.kernel.following import Following
from dagfs.kernel.handshake import Feature, Negotiated, negotiate
from dagfs.kernel.mountinfo import find_mount
from dagfs.kernel.mounting import Mount, check_mount_point, mount
from dagfs.kernel.openings import Openings, OpenTable
from dagfs.kernel.operations import Opening
from dagfs.kernel.protocol import Owner
from dagfs.kernel.session import Session
from dagfs.model import Commit
from dagfs.supervisor.loop import Supervisor
from dagfs.supervisor.post import Jobs
from dagfs.supervisor.watch import PERIOD
from dagfs.vfs.generations import Generations
from dagfs.vfs.seam import FileSystem

DRIVERS = ("kernel", "libfuse")
NOBODY = 65534
ORDINARY = NOBODY if os.geteuid() == 0 else None
"""Whom to mount as where an ordinary user is meant; None: the tests themselves run as one."""
START_SECONDS = 20.0
DEADLINE = 100
"""Seconds after which a mount's processes kill themselves, so that a wedged mount fails a test and not the suite."""


@dataclass
class Mounted:
    """A mount under test. `pid`: the process that holds it; `workers`: the pids under a supervisor, the newest last."""

    path: Path
    pid: int
    driver: str
    _control: socket.socket
    workers: list[int] = field(default_factory=list)

    def ask(self, question: str) -> Any:
        """Put a question to the process that serves: "release", "counts", "calls", "failures" or "set NAME JSON"."""
        self._control.sendall(question.encode() + b"\n")
        word = self._hear()
        while "answer" not in word:
            word = self._hear()
        return word["answer"]

    def await_ready(self, workers: int = 0) -> None:
        """Wait until the mount serves, under a supervisor by its worker number `workers`."""
        while "ready" not in self._hear() or len(self.workers) < workers:
            pass

    def await_failure(self) -> str:
        """Wait until the supervisor gives up; gives its reason."""
        word = self._hear()
        while "failed" not in word:
            word = self._hear()
        return str(word["failed"])

    def _hear(self) -> dict[str, Any]:
        word: dict[str, Any] = json.loads(_line(self._control))
        if "worker" in word:
            self.workers.append(word["worker"])
        elif "error" in word:
            raise AssertionError(f"the mount is broken: {word}")
        return word

    def counts(self) -> dict[str, int]:
        """Requests that the kernel has sent, by operation (kernel driver only)."""
        return self.ask("counts")

    def calls(self, operation: str) -> int:
        """How often the MemoryFs was asked for an operation."""
        return sum(count for name, _, count in self.ask("calls") if name == operation)

    def await_calls(self, operation: str, count: int) -> None:
        """Wait until the MemoryFs has been asked for an operation `count` times."""
        deadline = time.monotonic() + START_SECONDS
        while self.calls(operation) < count:
            assert time.monotonic() < deadline, f"{self.calls(operation)} of {count} calls of {operation}"
            time.sleep(0.01)

    def show(self, sha: str) -> None:
        """Show another commit; the file system is a Generations."""
        assert self.ask(f"show {sha}") is True

    def set(self, name: str, value: Any) -> None:
        """Switch a behaviour of the MemoryFs."""
        self.ask(f"set {name} {json.dumps(value)}")

    def wait(self, seconds: float) -> int | None:
        """Give the exit status of the holding process, None when it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None


@contextlib.contextmanager
def mounted(
    build: Callable[[], FileSystem],
    driver: str = "kernel",
    path: Path | None = None,
    *,
    user: int | None = None,
    supervised: bool = False,
    resend: bool = True,
    allow_other: bool = False,
    minor: int | None = None,
    counted: bool = False,
    period: float = PERIOD,
) -> Iterator[Mounted]:
    """Mount what `build` makes; `build` is called in the process that serves, once for each worker.

    `minor`: as on a kernel with that older protocol; `counted`: openings are seen, where `build` makes Generations.
    `user`: the uid to mount as, with fusermount3. `resend` False: as on a kernel that cannot repeat requests. `period`:
    seconds between two questions of the watch. Without `path` a directory of that user's is made and removed.
    """
    place = path or Path(tempfile.mkdtemp(prefix="dagfs-mount-"))
    if user is not None and path is None:
        os.chown(place, user, user)
    ours, theirs = socket.socketpair()
    ours.settimeout(START_SECONDS)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(Plan(build, driver, str(place), user, supervised, resend, allow_other, minor, counted, period), theirs)
    theirs.close()
    one = Mounted(place, pid, driver, ours)
    try:
        one.await_ready()
        yield one
    finally:
        _clean_up(one)
        ours.close()
        if path is None:
            shutil.rmtree(place, ignore_errors=True)


def run_as(user: int | None) -> dict[str, Any]:
    """Options of subprocess.run for a program that runs as `user`."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def _clean_up(one: Mounted) -> None:
    present = find_mount(str(one.path))
    if present and present.ours:
        with contextlib.suppress(BadMountPoint):  # it went by itself
            Mount(-1, present.path, present.connection).end()
    if one.pid and one.wait(6.0) is None:
        os.kill(one.pid, signal.SIGKILL)  # its worker dies with it
        os.waitpid(one.pid, 0)


@dataclass(frozen=True)
class Plan:
    """What `mounted` was asked for."""

    build: Callable[[], FileSystem]
    driver: str
    path: str
    user: int | None
    supervised: bool
    resend: bool
    allow_other: bool
    minor: int | None
    counted: bool
    period: float


def _child(plan: Plan, control: socket.socket) -> None:
    status = 70
    try:
        if plan.driver == "libfuse":
            _load_libfuse()
        _settle_in(plan.user)
        status = _serve_libfuse(plan, control) if plan.driver == "libfuse" else _serve_kernel(plan, control)
    except BaseException as error:  # noqa: BLE001 -- the test is told, whatever it is
        with contextlib.suppress(OSError):
            _send(control, {"error": type(error).__name__, "text": str(error)})
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _settle_in(user: int | None) -> None:
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(DEADLINE)
    faulthandler.disable()
    sys.setswitchinterval(0.0005)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def _serve_kernel(plan: Plan, control: socket.socket) -> int:
    held = mount(check_mount_point(plan.path), "dagfs-test", allow_other=plan.allow_other)
    agreed = negotiate(held.fd)
    if not plan.resend:
        agreed = dataclasses.replace(agreed, features=agreed.features & ~Feature.HAS_RESEND)
    if plan.minor is not None:
        agreed = dataclasses.replace(agreed, minor=plan.minor)
    table = OpenTable()
    if not plan.supervised:
        return _work(plan, table, control, held.fd, agreed, lambda: _send(control, {"ready": True}))
    return Supervisor(
        held,
        agreed,
        Jobs(lambda fd, negotiated, ready: _work(plan, table, control, fd, negotiated, ready)),
        Telling(control),
        period=plan.period,
    ).run()


class Unheeding:
    """Is told how a supervisor's workers fare, and does nothing."""

    def worker(self, _pid: int) -> None:
        pass

    def ready(self) -> None:
        pass

    def lost(self) -> None:
        pass

    def failed(self, _reason: str) -> None:
        pass

    def renewing(self) -> None:
        pass

    def looked(self, *, serves: bool) -> None:
        pass

    def ending(self) -> None:
        pass


@dataclass(frozen=True)
class Telling(Unheeding):
    """Tells the test how the workers fare."""

    control: socket.socket

    def worker(self, pid: int) -> None:
        _send(self.control, {"worker": pid})

    def ready(self) -> None:
        _send(self.control, {"ready": True})

    def failed(self, reason: str) -> None:
        _send(self.control, {"failed": reason})


def _work(
    plan: Plan,
    table: OpenTable,
    control: socket.socket,
    fd: int,
    negotiated: Negotiated,
    ready: Callable[[], None],
) -> int:
    signal.alarm(DEADLINE)
    fs = plan.build()
    following = None
    if isinstance(fs, Generations):
        following = Following(fd, fs, negotiated.minor, Openings(table) if plan.counted else None)
        following.changed()
    session = Session(fd, fs, negotiated, Owner(os.getuid(), os.getgid()), Opening(following=following))
    threading.Thread(target=_answer, args=(control, fs, session, following), daemon=True).start()
    ready()
    session.run()
    return 0


def _load_libfuse() -> None:
    """While it may: another user perhaps cannot read where Python is installed."""
    from dagfs.libfuse import load_binding

    load_binding()


def _serve_libfuse(plan: Plan, control: socket.socket) -> int:
    from dagfs.libfuse import Calls, serve

    fs = plan.build()
    threading.Thread(target=_answer, args=(control, fs, None), daemon=True).start()
    path = check_mount_point(plan.path)
    calls = Calls(ready=lambda: _send(control, {"ready": True}))
    serve(fs, path, "dagfs-test", allow_other=plan.allow_other, calls=calls)
    return 0


def _answer(control: socket.socket, fs: Any, session: Session | None, following: Following | None = None) -> None:
    while question := _line(control):
        try:
            changed = following.changed if following is not None else None
            _send(control, {"answer": _reply(question, fs, session, changed)})
        except Exception as error:  # noqa: BLE001 -- as above
            _send(control, {"error": repr(error)})


def _reply(question: str, fs: Any, session: Session | None, changed: Callable[[], None] | None) -> Any:
    word, _, rest = question.partition(" ")
    if word == "show":
        ordinal, one = fs.prepare(Commit(rest, 0.0))
        return fs.switch(ordinal, one, lambda: True, changed)
    if word == "release":
        fs.release()
    elif word == "counts":
        return session.counts() if session else {}
    elif word == "waiting":
        return len(session.waiting.now()) if session else 0
    elif word == "calls":
        return [(name, path, count) for (name, path), count in dict(fs.calls).items()]
    elif word == "failures":
        return fs.failures
    elif word == "set":
        name, _, value = rest.partition(" ")
        old = getattr(fs, name)
        setattr(fs, name, type(old)(json.loads(value)))
    else:
        raise ValueError(question)
    return None


def _send(control: socket.socket, value: Any) -> None:
    control.sendall(json.dumps(value).encode() + b"\n")


def _line(control: socket.socket) -> str:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = control.recv(1)
        if not byte:
            return json.dumps({"error": "the mount's process has ended"}) if not line else line.decode()
        line += byte
    return line.decode().rstrip("\n")
