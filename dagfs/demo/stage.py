"""What the demo starts, and how each of it ends: the server, the mount, the training."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # each call is judged where it is  # nosec B404
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagfs.demo.interrupts import Interrupts
from dagfs.errors import BadMountPoint, UsageError

LATENCY_MS = 20
"""What a hub on the same continent answers in."""
START_SECONDS = 60.0
END_SECONDS = 20.0
"""A process that ignores SIGTERM for so long is killed."""
POLL_SECONDS = 0.05
"""How soon an interrupt is noticed."""


class Stage:
    """Runs the demo's processes from the directory `scratch`, and leaves none of them and no mount behind.

    It can be interrupted while the server starts, a training runs or images are read; not while something is mounted
    or unmounted, since half a mount could appear later.
    """

    def __init__(self, scratch: Path, interrupts: Interrupts) -> None:
        self.scratch = scratch
        self.left_behind: list[Path] = []  # mount points that could not be unmounted
        self._interrupts = interrupts
        # The demo's server wants no token, and its cache is new: the user's settings have no part in it.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSHUB_", "DAGFS_"))}
        # Two threads that wait for each other by spinning make one image up to ten times slower on a busy machine.
        self._environment = {"OMP_NUM_THREADS": "1"} | kept | {"TMPDIR": str(scratch)}

    @contextlib.contextmanager
    def served(self, repository: Path) -> Iterator[str]:
        """Serve a repository as a hub does, and give its URL. Raises UsageError if it does not start."""
        output, errors = self.scratch / "serve.out", self.scratch / "serve.err"
        words = ("serve", str(repository), "--name", "demo/photographs", "--latency-ms", str(LATENCY_MS))
        with output.open("w") as out, errors.open("w") as err, self._process(_dagfs(*words), out, err) as server:
            deadline = time.monotonic() + START_SECONDS
            while not (said := output.read_text()).endswith("\n"):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise UsageError(f"`dagfs serve` does not start: {last_line(errors.read_text())}")
                self._pause()
            yield said.splitlines()[0]

    @contextlib.contextmanager
    def mounted(self, url: str, name: str) -> Iterator[Path]:
        """Mount with a new cache. Raises UsageError, with the exit status of `dagfs mount`."""
        mountpoint = self.scratch / name
        mountpoint.mkdir()
        try:
            self._call("mount", url, str(mountpoint), "--cache-dir", str(self.scratch / f"{name}.cache"))
            yield mountpoint
        finally:
            self._unmount(mountpoint)

    def train(self, data: Path, output: Path, epochs: int) -> dict[str, Any]:
        """Train in a process of its own, as a user does, and give its metrics. Raises UsageError."""
        words = ("training.train", "--data", str(data), "--output", str(output), "--epochs", str(epochs))
        self._module(*words)
        metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
        return metrics

    def reading_seconds(self, data: Path) -> float:
        """Time a pass over all images that does nothing but read and decode."""
        return float(json.loads(self._module("dagfs.demo.reading", str(data)))["seconds"])

    def _module(self, *words: str) -> str:
        """Run a Python module that reads a mount, and give what it printed; its stderr is the user's to see."""
        output = self.scratch / "module.out"
        with output.open("w") as out, self._process([sys.executable, "-m", *words], out, None) as process:
            while process.poll() is None:
                self._pause()
        if process.returncode:
            raise UsageError(f"`python -m {words[0]}` ended with exit status {process.returncode}")
        return output.read_text()

    def _pause(self) -> None:
        self._interrupts.check()
        time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _process(self, words: list[str], out: Any, err: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process outside of the terminal's group, so that Ctrl-C reaches only the demo, which then ends it."""
        process = subprocess.Popen(  # noqa: S603 -- the demo's own commands  # nosec B603
            words, cwd=self.scratch, env=self._environment, stdout=out, stderr=err, start_new_session=True
        )
        try:
            yield process
        finally:
            _end(process)

    def _unmount(self, mountpoint: Path) -> None:
        try:
            self._call("unmount", str(mountpoint))
        except UsageError as error:
            if error.exit_status != BadMountPoint.exit_status:  # that one says that nothing is mounted
                self.left_behind.append(mountpoint)

    def _call(self, *words: str) -> str:
        """Run a short dagfs command and give what it printed. Raises UsageError with its message and exit status."""
        try:
            done = subprocess.run(  # noqa: S603 -- the demo's own commands  # nosec B603
                _dagfs(*words),
                cwd=self.scratch,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"`dagfs {words[0]}` has not ended after {START_SECONDS:.0f} s") from None
        if done.returncode:
            error = UsageError(last_line(done.stderr).removeprefix("dagfs: "))
            error.exit_status = done.returncode
            raise error
        return done.stdout


def last_line(text: str) -> str:
    """Give the line that names an error."""
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def _dagfs(*words: str) -> list[str]:
    return [sys.executable, "-m", "dagfs", *words]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
