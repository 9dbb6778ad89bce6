"""Run dagfs as its users do: the installed command, in a home of its own, with nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 60
HASTY = str(Path(__file__).with_name("hasty.py"))
DETACH = ("umount", "-l") if os.geteuid() == 0 else ("fusermount3", "-u", "-z")
"""Takes a mount off the tree, without dagfs."""


@dataclass
class Home:
    """One user's environment: cache, state and runtime directories under `root`. `deadlines`: how long the daemon waits
    for a byte, and for progress, in seconds, where the usual 30 and 120 are too long for a test. `user`: the uid that
    commands are run as, if not the tests' own; it may read what others may not, where Python may be. `prefix`: words
    before every command, as of another network namespace."""

    root: Path
    extra: dict[str, str] = field(default_factory=dict)
    deadlines: tuple[float, float] | None = None
    user: int | None = None
    prefix: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        places = {
            "HOME": str(self.root),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
        }
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DAGSHUB_", "DAGFS_", "XDG_"))
        }
        (self.root / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        return kept | places | self.extra

    def run(
        self, *words: str | Path, check: bool = True, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `dagfs WORDS`; the test fails with what it printed when `check` and its status is not 0."""
        program = ["-m", "dagfs"] if self.deadlines is None else [HASTY, *map(str, self.deadlines)]
        done = subprocess.run(
            [*self.prefix, *_as(self.user), sys.executable, *program, *map(str, words)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            logs = "\n".join(path.read_text()[-4000:] for path in (self.root / "state").rglob("*.log"))
            raise AssertionError(f"dagfs {words} ended with {done.returncode}\n{done.stdout}{done.stderr}\n{logs}")
        return done

    def status(self) -> list[dict[str, Any]]:
        return json.loads(self.run("status", "--json").stdout)

    @contextlib.contextmanager
    def mounted(self, repo: str, mountpoint: Path, *options: str | Path) -> Iterator[Path]:
        """Mount for the length of a block, and leave neither mount nor daemon whatever happens in it."""
        mountpoint.mkdir(exist_ok=True)
        self.run("mount", repo, mountpoint, *options)
        try:
            yield mountpoint
        finally:
            ended = self.run("unmount", mountpoint, check=False)
            if ended.returncode:
                subprocess.run([*DETACH, str(mountpoint)], timeout=10, stderr=subprocess.DEVNULL)


def _as(user: int | None) -> list[str]:
    """Give the words before a command that is run as another user."""
    if user is None:
        return []
    reads = "+dac_read_search"
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["setpriv", *who, f"--inh-caps={reads}", f"--ambient-caps={reads}", "--"]


@contextlib.contextmanager
def served(directory: Path, *options: str) -> Iterator[str]:
    """Run `dagfs serve` in a process of its own; gives the repository's URL."""
    command = [sys.executable, "-m", "dagfs", "serve", str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def asked(url: str, *, reset: bool = False) -> dict[str, Any]:
    """Give what the server counted since the last reset."""
    base = url.rsplit("/", 2)[0]
    if reset:
        urllib.request.urlopen(urllib.request.Request(f"{base}/-/requests/reset", method="POST"), timeout=10).read()
        return {}
    with urllib.request.urlopen(f"{base}/-/requests", timeout=10) as answer:
        return json.load(answer)
