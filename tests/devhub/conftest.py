from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from support.repos import Truth, sample_repository

from dagfs.devhub.serve import Hub


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """A repository of real git and real DVC; nobody may change it."""
    return sample_repository(tmp_path_factory.mktemp("repositories") / "sample")


@pytest.fixture(scope="session")
def hub(sample: Truth) -> Iterator[Hub]:
    """A hub in its default behaviour over the sample."""
    with Hub(sample.path) as running:
        yield running


class Caller:
    """A client that keeps one connection and speaks the API by paths."""

    def __init__(self, hub: Hub, **headers: str) -> None:
        self.api = f"{hub.host}/api/v1/repos/{hub.name}"
        self.host = hub.host
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update(headers)

    def get(self, what: str, ref: str = "", path: str | bytes = "", **options: object) -> requests.Response:
        url = f"{self.api}/{what}"
        if ref:
            url += f"/{quote(ref)}/{quote(path)}"
        return self.session.get(url, timeout=30, **options)

    def raw(self, ref: str, path: str | bytes, **headers: str) -> requests.Response:
        return self.get("raw", ref, path, headers=headers)

    def listing(self, ref: str, path: str = "", *, sized: bool = False) -> list[dict[str, object]]:
        answer = self.get("content", ref, path, params={"include_size": "true"} if sized else {})
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def call(hub: Hub) -> Iterator[Caller]:
    caller = Caller(hub)
    yield caller
    caller.session.close()


@pytest.fixture
def caller_of() -> Iterator[object]:
    """Make clients of other hubs; they are closed at the end."""
    made: list[Caller] = []

    def make(hub: Hub, **headers: str) -> Caller:
        made.append(Caller(hub, **headers))
        return made[-1]

    yield make
    for caller in made:
        caller.session.close()


@pytest.fixture
def copy(tmp_path: Path, sample: Truth) -> Path:
    """A working tree of the sample that a test may change."""
    import shutil

    shutil.copytree(sample.path, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"
