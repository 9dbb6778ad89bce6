from __future__ import annotations

from pathlib import Path

import pytest

from dagfs.demo.dataset import build_repository

COUNT = 32


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's repository at its smallest, to be read only."""
    return build_repository(tmp_path_factory.mktemp("demo") / "repository", COUNT)


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache, logs and sockets out of it."""
    for kind in ("CACHE_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{kind}", str(tmp_path_factory.mktemp(kind.lower())))
