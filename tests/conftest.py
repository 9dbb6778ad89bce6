from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

DEVICE = "/dev/fuse"
AS_UDEV_HAS_IT = 0o666


@pytest.fixture
def device_for_users() -> Iterator[None]:
    """Give /dev/fuse the mode that it has wherever udev runs; bare machines leave it to root."""
    with _device(AS_UDEV_HAS_IT, fcntl.LOCK_SH):
        yield


@pytest.fixture
def device_for_root_alone() -> Iterator[None]:
    with _device(0o600, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _device(mode: int, lock: int) -> Iterator[None]:
    """Set the device's mode while a lock is held that other test processes respect; the last one sets it back."""
    if os.geteuid() != 0:
        yield
        return
    with open(Path(tempfile.gettempdir()) / "dagfs-tests-device.lock", "a+") as file:
        fcntl.flock(file, lock)
        before = os.stat(DEVICE).st_mode & 0o777
        if before != mode:
            os.chmod(DEVICE, mode)
            file.truncate(0)
            file.write(f"{before:o}")
            file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):  # others still need it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.seek(0)
                if found := file.read():
                    os.chmod(DEVICE, int(found, 8))
                file.truncate(0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that mount come first: they take long, and no process should end with one while the others have nothing."""
    mounting = {item.path for item in items if item.get_closest_marker("mount")}
    items.sort(key=lambda item: item.path not in mounting)
