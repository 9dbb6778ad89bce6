"""Days in short: readers of every kind, bad weather, remounts, and what is used must not grow."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from support.hubs import hub
from support.repos import Truth, big_directory, commit_all, git_files, put_legacy, write_files
from support.soaking import Course, Scene, soak, weather

pytestmark = pytest.mark.mount

MiB = 1 << 20
LIMIT = 60 * MiB
"""Of the cache: less than the repository has, so that something is evicted all the time."""

MINUTES = float(os.environ.get("DAGFS_SOAK_MINUTES", "30"))


def dvc_file(root: Path, path: str, data: bytes) -> dict[str, bytes]:
    """Add a file of DVC 3, and give what git has of it."""
    digest = hashlib.md5(data).hexdigest()
    put_legacy(root / ".dvc/cache/files/md5", digest, data)
    return {f"{path}.dvc": f"outs:\n- md5: {digest}\n  size: {len(data)}\n  hash: md5\n  path: {path}\n".encode()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Truth:
    """40 MB of images, 32 MB in one file, some files of git, and one that the hub never finishes."""
    made = big_directory(tmp_path_factory.mktemp("soak") / "repo", 400, size=100_000)
    noise = random.Random(4)
    held = {"large.bin": noise.randbytes(32 * MiB), "stuck.bin": noise.randbytes(MiB)}
    for path, data in held.items():
        write_files(made.path, dvc_file(made.path, path, data))
    write_files(made.path, {f"code/{number}.py": noise.randbytes(3000) for number in range(40)})
    write_files(made.path, {".gitignore": b"/data\n/large.bin\n/stuck.bin\n"})
    head = commit_all(made.path, "mixed")
    files = {path: data for path, data in made.files.items() if path.startswith("data/")}
    return Truth(made.path, head, {head: git_files(made.path, head) | files | held}, {}, {"main": head})


def soaked(mixed: Truth, home, scratch: Path, seconds: float) -> Course:
    with hub(mixed.path, fault=weather("stuck.bin", "large.bin")) as url:
        scene = Scene(url, mixed, home, scratch, large="large.bin", stuck="stuck.bin", probed="code/0.py")
        course = soak(scene, seconds, "--cache-size", str(LIMIT))
    print(course.table())
    assert course.failures == {}
    assert course.reads > 20 * seconds
    assert set(course.stuck) <= {"ETIMEDOUT", "EIO"}
    assert course.remounts
    highest = course.highest(slice(None))
    assert highest.memory < 300 * MiB
    assert highest.threads < 64
    assert highest.descriptors < 400
    assert highest.connections < 64
    assert highest.disk < LIMIT + 16 * MiB
    return course


def test_readers_of_every_kind_in_bad_weather_see_no_error_and_leave_bounds(mixed, home, tmp_path):
    soaked(mixed, home, tmp_path, 15)


@pytest.mark.stress
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_nothing_grows_in_a_soak(mixed, home, tmp_path):
    """Half an hour, or DAGFS_SOAK_MINUTES."""
    course = soaked(mixed, home, tmp_path, MINUTES * 60)
    third = len(course.samples) // 3
    middle, last = course.highest(slice(third, 2 * third)), course.highest(slice(2 * third, None))
    assert last.memory <= 1.1 * middle.memory + 8 * MiB
    assert last.threads <= middle.threads + 4
    assert last.descriptors <= middle.descriptors + 32
    assert last.connections <= middle.connections + 16
