"""Go to the background, and let the command that started the daemon wait until it serves or has failed."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from dagfs.errors import DagfsError, UsageError
from dagfs.model import printable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the start went: `error` is None when the mount serves, else one line for the user."""

    error: str | None
    status: int = 0
    detail: str = ""


class Herald:
    """The daemon's end of the pipe: says once how the start went. Without a pipe, in the foreground, on stderr."""

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe
        self._said = False

    def say(self, outcome: Outcome) -> bool:
        """Tell the outcome unless one was told before; False when nobody listens any more."""
        if self._said:
            return True
        self._said = True
        if self._pipe is None:
            if outcome.error is not None:
                sys.stderr.write(f"dagfs: {printable(outcome.error)}\n")
            return True
        message = json.dumps([outcome.error, outcome.status, outcome.detail]).encode()
        try:
            os.write(self._pipe, message + b"\n")
        except BrokenPipeError:
            return False
        finally:
            os.close(self._pipe)
        return True


def detach(daemon: Callable[[Herald], int], keep: int | None = None, *, leave: bool = True) -> Outcome:
    """Run `daemon` in a session of its own and give back what it says of its start.

    `keep`: a descriptor for it. Without `leave` the session is left by the daemon, when it has mounted.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        if leave:
            os.setsid()
        _become_daemon(daemon, writing, {writing} if keep is None else {writing, keep})
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.readline()  # not to its end: the daemon's workers hold it open, too
    finally:
        os.waitpid(child, 0)
    if not said:
        return Outcome("the daemon ended before it served; its log says why", 1)
    return Outcome(*json.loads(said))


def _become_daemon(daemon: Callable[[Herald], int], writing: int, kept: set[int]) -> NoReturn:
    """Fork again from a session of its own, so that neither a terminal nor a notebook's interrupt reaches it."""
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for below, above in itertools.pairwise([2, *sorted(kept), 65536]):
        os.closerange(below + 1, above)
    os.chdir("/")
    os.umask(0o077)
    os._exit(guarded(daemon, Herald(writing)))


def guarded(daemon: Callable[[Herald], int], herald: Herald) -> int:
    """Run `daemon` and turn whatever ends it before it serves into one line and an exit status."""
    try:
        return daemon(herald)
    except UsageError as error:
        herald.say(Outcome(str(error), error.exit_status))
        return error.exit_status
    except DagfsError as error:
        herald.say(Outcome(str(error), 1))
        return 1
    except Exception as error:
        log.exception("the daemon ends")
        herald.say(Outcome(_line(error), 1))
        return 1


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}"
    return f"{type(error).__name__}: {error}"
