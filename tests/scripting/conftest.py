from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import Home
from support.repos import Truth, big_directory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return big_directory(tmp_path_factory.mktemp("many") / "repo", 20, size=1000)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", {"PYTHONPATH": str(ROOT)})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("mount")
