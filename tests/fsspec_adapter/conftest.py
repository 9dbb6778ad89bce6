from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Home
from support.entry_points import installed_entry_points
from support.repos import Truth, sample_repository

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("sample") / "repo")


@pytest.fixture(scope="session")
def entry_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_entry_points(tmp_path_factory.mktemp("site"))


@pytest.fixture
def home(tmp_path: Path, entry_points: Path) -> Home:
    return Home(tmp_path / "home", {"PYTHONPATH": f"{ROOT}:{entry_points}"})


@pytest.fixture
def run(home: Home) -> Callable[..., str]:
    """Run a program as a user's script, and give what it prints; it must not say anything on stderr."""

    def run(program: str, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            env=home.environment(),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run
