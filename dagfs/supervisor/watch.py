"""Finds a worker that lives and does not answer: a deadlock, the interpreter's lock never given back, SIGSTOP.

The supervisor itself never touches the mount: it would wait with everybody else. A process of its own, the asker, puts
a question to the mount again and again; the two share a few bytes of memory in which it notes question and answer.
A mount that somebody else has made may have no path here: then the dispatcher's pulse takes the asker's place.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import time
from typing import NoReturn

from dagfs.kernel.mounting import Mount
from dagfs.kernel.session import PROBE
from dagfs.supervisor.policy import stopped
from dagfs.supervisor.post import STACKS, die_with

PERIOD = 10.0
"""Seconds between two questions, and between two looks at the answers."""

MISSED = 3
"""Looks in a row that find the same question open. One look proves nothing: supervisor, asker and worker may all have
been stopped or suspended. The dispatcher waits for nothing, so a worker that is merely busy answers in milliseconds."""

STACKS_SECONDS, STACKS_STEP = 1.0, 0.05  # to write some stacks; a machine that is that slow shows a part of them

_NOTES = struct.Struct("=QQ")  # questions put, questions answered


class Watch:
    """Watches one mount for a supervisor, whose single thread calls everything here.

    `served`: the last look has found an answer, or that nobody waits.
    """

    def __init__(self, mount: Mount, period: float, libc: ctypes.CDLL) -> None:
        self.served = False
        self.stacks = os.memfd_create("dagfs-stacks")
        self.last_answer = time.monotonic()  # when the worker was last known not to owe one
        self._pulse = mount.pulse  # looked at instead of an asker's notes
        self._mount = mount
        self._period = period
        self._libc = libc
        self._notes = mmap.mmap(-1, _NOTES.size)
        self._seen = (0, 0)  # at the last look
        self._missed = 0
        self._asker = 0  # pid; 0 iff none runs or waits to be reaped

    def begin(self) -> None:
        """A worker is about to start."""
        os.ftruncate(self.stacks, 0)
        os.lseek(self.stacks, 0, os.SEEK_SET)
        self._excuse()

    def look(self) -> bool:
        """Tell whether the worker is stuck. To be called once a period."""
        self.served = False
        if self._pulse is None and not self._asker:
            self._send_asker()
            return False
        notes = _NOTES.unpack(self._notes[:]) if self._pulse is None else self._pulse.notes(self._mount.fd)
        nothing_owed = notes[0] == notes[1]
        self.served = notes[1] != self._seen[1] or (nothing_owed and self._pulse is not None)
        if nothing_owed or notes != self._seen or stopped(self._asker):
            self._seen = notes
            self._excuse()
            return False
        self._missed += 1
        return self._missed >= MISSED

    def reap(self) -> None:
        """See whether the asker has died; the next look sends another."""
        if self._asker and os.waitpid(self._asker, os.WNOHANG)[0]:
            self._asker = 0

    def end(self) -> None:
        """End the asker. Nothing may hold the mount's connection any more, or it could wait in it."""
        if self._asker:
            os.kill(self._asker, signal.SIGKILL)
            os.waitpid(self._asker, 0)
            self._asker = 0
        os.close(self.stacks)

    def stacks_of(self, worker: int) -> str:
        """Have a worker write down what its threads do, also one that was stopped."""
        os.kill(worker, STACKS)
        os.kill(worker, signal.SIGCONT)  # a stopped process runs no handler
        deadline = time.monotonic() + STACKS_SECONDS
        size = -1
        while time.monotonic() < deadline and (size <= 0 or size != os.fstat(self.stacks).st_size):
            size = os.fstat(self.stacks).st_size
            time.sleep(STACKS_STEP)
        return self.written() or "(it wrote no stacks)"

    def written(self) -> str:
        """Give what the last worker has left in the file of stacks."""
        return os.pread(self.stacks, 1 << 20, 0).decode("utf-8", "replace").rstrip()

    def _excuse(self) -> None:
        self._missed = 0
        self.last_answer = time.monotonic()

    def _send_asker(self) -> None:
        supervisor = os.getpid()
        self._notes[:] = bytes(_NOTES.size)
        self._asker = os.fork()
        if self._asker == 0:
            try:
                die_with(supervisor, self._libc)
                os.closerange(0, 65536)  # above all the device: who holds it keeps a dead mount's programs waiting
                self._ask()
            finally:
                os._exit(1)

    def _ask(self) -> NoReturn:
        asked = 0
        while True:
            asked += 1
            if self._mount.reachable:  # not what lies over it: it has its own reasons to be slow
                _NOTES.pack_into(self._notes, 0, asked, asked - 1)
                try:
                    os.getxattr(self._mount.path, PROBE)
                except OSError:  # any answer is one
                    pass
            _NOTES.pack_into(self._notes, 0, asked, asked)
            time.sleep(self._period)
