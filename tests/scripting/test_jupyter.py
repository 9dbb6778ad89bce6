"""The same in a real kernel of Jupyter, which interrupts a whole process group, and may be gone without a word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from support.commands import Home
from support.hubs import hub

from dagfs.kernel.mountinfo import is_ours

pytestmark = pytest.mark.integration

SECONDS = 60
LISTS = "assert len(list((data.path / 'data').iterdir())) == 20"


class Kernel:
    def __init__(self, home: Home, where: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(where), env=home.environment())
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def start(self, cell: str) -> str:
        return str(self.client.execute(cell, stop_on_error=False))

    def end_of(self, cell: str) -> str:
        """Give "ok", or the name of the error that ended a cell."""
        while (reply := self.client.get_shell_msg(timeout=SECONDS))["parent_header"].get("msg_id") != cell:
            pass
        content: dict[str, Any] = reply["content"]
        return str(content["status"] if content["status"] == "ok" else content["ename"])

    def run(self, cell: str) -> str:
        return self.end_of(self.start(cell))

    def kill(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def kernel(home: Home, where: Path) -> Iterator[Kernel]:
    one = Kernel(home, where)
    try:
        yield one
    finally:
        one.kill()


@pytest.fixture
def url(many) -> Iterator[str]:
    with hub(many.path) as running:
        yield running


def test_cells_are_interrupted_and_run_again_and_the_kernel_is_killed(url, home, tmp_path):
    data = tmp_path / "data"
    with kernel(home, tmp_path) as one:
        assert one.run("import dagfs, os, time") == "ok"
        block = one.start(f"with dagfs.mount({url!r}, 'data'):\n    open('inside', 'w').close()\n    time.sleep(60)")
        while not (tmp_path / "inside").exists():
            time.sleep(0.05)
        one.manager.interrupt_kernel()
        assert one.end_of(block) == "KeyboardInterrupt"
        assert not is_ours(str(data))

        for delay in (0.1, 0.5):
            cell = one.start(f"data = dagfs.mount({url!r}, 'data')")
            time.sleep(delay)
            one.manager.interrupt_kernel()
            assert one.end_of(cell) in ("KeyboardInterrupt", "ok")
            assert one.run(f"data = dagfs.mount({url!r}, 'data'); {LISTS}") == "ok"
            assert one.run("data.unmount()") == "ok"
            assert not is_ours(str(data))
        assert one.run(f"data = dagfs.mount({url!r}, 'data'); {LISTS}") == "ok"
    deadline = time.monotonic() + 40
    while is_ours(str(data)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
