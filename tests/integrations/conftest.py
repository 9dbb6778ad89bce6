"""Fixtures of the tests that read a mount with the libraries of the `integrations` extra; a missing one fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import Home, asked
from support.formats import Formats, formats_repository
from support.hubs import hub
from support.snippets import INTEGRATIONS, snippets

QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("integration")
            item.add_marker("mount")
            item.add_marker(pytest.mark.timeout(600))  # TensorFlow alone takes seconds to import


@dataclass(frozen=True)
class Reading:
    """What a program printed, and what it made the hub send: path -> requests, and bytes of content."""

    lines: list[str]
    fetched: dict[str, int]
    bytes: int


@pytest.fixture(scope="session")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Formats:
    return formats_repository(tmp_path_factory.mktemp("formats") / "repo")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def read(formats: Formats, home: Home, tmp_path: Path) -> Callable[..., Reading]:
    """Run the code under a heading of docs/integrations.md beside a mount, `data`, whose cache is empty."""

    def run(heading: str, number: int = 0, before: str = "") -> Reading:
        program = before + snippets(INTEGRATIONS)[heading][number]
        with hub(formats.path) as url, home.mounted(url, tmp_path / "data"):
            asked(url, reset=True)
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=tmp_path,
                env={**home.environment(), **QUIET},
                capture_output=True,
                text=True,
                timeout=300,
            )
            counted = asked(url)
        assert done.returncode == 0, done.stderr[-4000:]
        return Reading(done.stdout.splitlines(), counted["raw_paths"], counted["bytes"].get("raw", 0))

    return run


@pytest.fixture(scope="session")
def declared() -> str:
    """Give what a program needs before it imports torchvision here: nothing, or what the document says."""
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return ""
    assert "operator torchvision::nms does not exist" in done.stderr
    return snippets(INTEGRATIONS)["torchvision"][1]
