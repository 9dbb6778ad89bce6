from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.mounts import DRIVERS, Mounted, mounted
from support.trees import tree

from dagfs.kernel.mounting import DEVICE


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DRIVERS, scope="module")
def held(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """The tree, mounted once for a module's tests that only look."""
    with mounted(tree, request.param) as one:
        yield one


@pytest.fixture(scope="session")
def device_for_users() -> Iterator[None]:
    """Give /dev/fuse the mode that it has wherever udev runs; bare machines leave it to root."""
    before = os.stat(DEVICE).st_mode
    os.chmod(DEVICE, 0o666)
    yield
    os.chmod(DEVICE, before & 0o777)


@pytest.fixture
def kernel() -> Iterator[Mounted]:
    """The tree, freshly mounted with the kernel driver."""
    with mounted(tree) as one:
        yield one
