"""Fixtures of the tests that mount a served repository with the installed command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import Home
from support.kinds import every_kind_of_content
from support.repos import Truth, sample_repository

DRIVERS = ("kernel", "libfuse")


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("sample") / "repo")


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return every_kind_of_content(tmp_path_factory.mktemp("contents") / "repo")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("mount")
