from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mounts import DRIVERS, Mounted, mounted
from support.trees import tree


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DRIVERS, scope="module")
def held(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """The tree, mounted once for a module's tests that only look."""
    with mounted(tree, request.param) as one:
        yield one


@pytest.fixture
def kernel() -> Iterator[Mounted]:
    """The tree, freshly mounted with the kernel driver."""
    with mounted(tree) as one:
        yield one
