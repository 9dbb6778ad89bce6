from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home
from support.repos import commit_all, new_repository, write_files

from dagfs.devhub.serve import Hub

TOKEN = "d" * 40


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = new_repository(tmp_path_factory.mktemp("login") / "repo")
    write_files(root, {"a.txt": b"hello"})
    commit_all(root, "one file")
    return root


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    """A hub whose repository is for who has TOKEN."""
    with Hub(repository, "ada/data", token=TOKEN) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, hub: Hub) -> Home:
    return Home(tmp_path / "home", {"DAGSHUB_CLIENT_HOST": hub.host, "GIT_CONFIG_GLOBAL": "/dev/null"})
