from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import Home
from support.entry_points import installed_entry_points
from support.repos import Truth, big_directory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return big_directory(tmp_path_factory.mktemp("many") / "repo", 20, size=1000)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "site").mkdir()
    return Home(tmp_path / "home", {"PYTHONPATH": f"{ROOT}:{installed_entry_points(tmp_path / 'site')}"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("mount")
