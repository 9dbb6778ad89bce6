"""Processes of `git cat-file` that live on, asked by any thread."""

from __future__ import annotations

import subprocess  # each call is judged where it is  # nosec B404
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from dagfs.errors import UsageError

_COPY_BYTES = 1 << 20


class Process:
    """One `git cat-file`, used by one thread at a time."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- no shell  # nosec B603
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C is for the server, which ends its processes itself
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both were asked for")
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout

    def ask(self, lines: bytes) -> None:
        self._input.write(lines)
        self._input.flush()

    def answer(self) -> bytes:
        line = self._output.readline()
        if not line:
            raise UsageError("git cat-file ended: the repository is gone or damaged")
        return line.rstrip(b"\n")

    def pour(self, size: int, target: IO[bytes]) -> None:
        """Copy the bytes of the object that was announced, and drop the line feed behind them."""
        left = size
        while left:
            chunk = self._output.read(min(left, _COPY_BYTES))
            if not chunk:
                raise UsageError("git cat-file ended in the middle of an object")
            target.write(chunk)
            left -= len(chunk)
        self._output.read(1)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()


class Pool:
    """Idle processes of one kind. No more run than threads ask at once; a process whose user failed is ended."""

    _KEPT = 4

    def __init__(self, start: tuple[list[str], dict[str, str]]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._idle: list[Process] = []  # under the lock; each has answered all that it was asked
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[Process]:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or Process(*self._start)
        healthy = False
        try:
            yield process
            healthy = True
        finally:
            if not (healthy and self._keep(process)):
                process.end()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _keep(self, process: Process) -> bool:
        with self._lock:
            keep = not self._closed and len(self._idle) < self._KEPT
            if keep:
                self._idle.append(process)
        return keep
