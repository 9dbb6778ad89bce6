"""Several machines share what one of them has fetched: `dagfs mount --shared-cache`, against a real S3 server."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home, asked, served
from support.repos import Truth
from support.s3server import BUCKET, S3Server, s3_server

TIER = f"s3://{BUCKET}/shared"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def tier(server: S3Server, tmp_path: Path) -> Iterator[str]:
    """A tier of this test's own."""
    server.fail(None)
    server.counts()
    yield f"{TIER}/{hashlib.md5(str(tmp_path).encode()).hexdigest()[:8]}"
    server.fail(None)


def node(tmp_path: Path, name: str, server: S3Server) -> Home:
    return Home(tmp_path / name, extra=server.environment)


def read_all(mountpoint: Path, truth: Truth, paths: list[str]) -> None:
    for path in paths:
        assert (mountpoint / path).read_bytes() == truth.files[path], path


def way(home: Home, number: int = 0) -> dict:
    return home.status()[0]["ways"][number]


def stored(home: Home, count: int) -> dict:
    """Wait until a mount has brought so many files to the tier."""
    deadline = time.monotonic() + 20
    while way(home)["writing"]["stored"] < count:
        assert time.monotonic() < deadline, way(home)
        time.sleep(0.05)
    return way(home)


def contents_of(truth: Truth, paths: list[str]) -> set[str]:
    """The MD5s of what is read from the tier; an empty file needs nobody."""
    return {hashlib.md5(truth.files[path]).hexdigest() for path in paths if truth.files[path]}


def dvc_paths(truth: Truth) -> list[str]:
    return sorted(path for path in truth.dvc[truth.head] if not path.startswith("legacy/"))


def test_a_second_machine_reads_what_the_first_has_fetched_without_the_hub(
    tmp_path: Path, sample: Truth, server: S3Server, tier: str
) -> None:
    paths = dvc_paths(sample)
    with served(sample.path) as url:
        first, second = node(tmp_path, "first", server), node(tmp_path, "second", server)
        options = ("--shared-cache", tier, "--no-prefetch")
        with first.mounted(url, tmp_path / "a", *options) as mountpoint:
            read_all(mountpoint, sample, paths)
            stored(first, len(contents_of(sample, paths)))
        asked(url, reset=True)
        with second.mounted(url, tmp_path / "b", *options) as mountpoint:
            read_all(mountpoint, sample, paths)
            assert way(second)["hits"] == len(contents_of(sample, paths))
        fetched = [path for path in asked(url)["raw_paths"] if sample.files.get(path)]
    assert fetched == []
