from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

DEVICE = "/dev/fuse"


@pytest.fixture(scope="session")
def device_for_users() -> Iterator[None]:
    """Give /dev/fuse the mode that it has wherever udev runs; bare machines leave it to root."""
    before = os.stat(DEVICE).st_mode & 0o777
    if os.geteuid() == 0:
        os.chmod(DEVICE, 0o666)
    yield
    if os.geteuid() == 0:
        os.chmod(DEVICE, before)
