"""What systemd hears on a real socket, from the start of a mount to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home
from support.hubs import hub
from support.repos import Truth, sample_repository

from dagfs.daemon.notify import watchdog_seconds

WATCHDOG = 2.0


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("notify") / "repo")


class Manager:
    """The service manager's end. `heard`: every message, in order."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.heard: list[str] = []

    def hear(self, wanted: str, seconds: float = 30) -> str:
        """Wait for a message that begins so."""
        deadline = time.monotonic() + seconds
        while True:
            self._channel.settimeout(max(0.01, deadline - time.monotonic()))
            self.heard.append(self._channel.recv(4096).decode())
            if self.heard[-1].startswith(wanted):
                return self.heard[-1]

    def forget(self) -> None:
        """Leave out what was said so far."""
        self._channel.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._channel.recv(4096):
                pass
        self.heard.clear()


@contextlib.contextmanager
def service(sample: Truth, place: Path) -> Iterator[tuple[Manager, subprocess.Popen[bytes], Home]]:
    home = Home(place / "home", {"NOTIFY_SOCKET": str(place / "socket"), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))})
    (place / "m").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, hub(sample.path, name="o/n") as url:
        channel.bind(str(place / "socket"))
        words = [sys.executable, "-m", "dagfs", "mount", url, str(place / "m"), "--foreground"]
        daemon = subprocess.Popen(words, env=home.environment(), stderr=subprocess.DEVNULL)
        try:
            yield Manager(channel), daemon, home
        finally:
            daemon.send_signal(signal.SIGCONT)
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.mark.mount
def test_a_service_says_ready_reloading_recovering_and_stopping_when_it_is(sample, tmp_path):
    with service(sample, tmp_path) as (manager, daemon, home):
        ready = manager.hear("READY=1")
        assert f"STATUS=serving {home.status()[0]['host']}/o/n at {sample.head[:12]}" in ready
        assert (tmp_path / "m/README.md").exists()
        before = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
        daemon.send_signal(signal.SIGUSR2)
        reloading = dict(line.split("=", 1) for line in manager.hear("RELOADING=1").splitlines())
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
        manager.hear("READY=1")
        os.kill(home.status()[0]["workers"][0], signal.SIGKILL)
        manager.hear("STATUS=recovering")
        manager.hear("READY=1")
        daemon.terminate()
        manager.hear("STOPPING=1")
        assert daemon.wait(5) == 0


@pytest.mark.mount
def test_the_watchdog_hears_of_a_worker_that_serves_and_of_no_other(sample, tmp_path):
    with service(sample, tmp_path) as (manager, _, home):
        manager.hear("READY=1")
        for _ in range(3):
            manager.hear("WATCHDOG=1", seconds=4 * WATCHDOG)
        (worker,) = home.status()[0]["workers"]
        os.kill(worker, signal.SIGSTOP)
        manager.forget()
        manager.hear("STATUS=recovering")  # the watch has found it
        assert manager.heard.count("WATCHDOG=1") <= 1  # one that was on its way
        manager.hear("READY=1")
        manager.hear("WATCHDOG=1", seconds=4 * WATCHDOG)


def test_a_watchdog_is_asked_for_by_the_environment_of_this_very_process():
    assert watchdog_seconds({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "7"}, 7) == 180.0
    assert watchdog_seconds({"WATCHDOG_USEC": "180000000"}, 7) == 180.0
    assert watchdog_seconds({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "8"}, 7) is None
    for text in ("", "0", "soon", "-1"):
        assert watchdog_seconds({"WATCHDOG_USEC": text}, 7) is None
