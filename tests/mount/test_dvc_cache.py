"""One directory with DVC: what dagfs read need not be pulled, and what DVC pulled need not be fetched."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Home, asked
from support.hubs import hub
from support.repos import (
    add_legacy_directory,
    add_legacy_file,
    commit_all,
    dvc,
    environment,
    git,
    new_repository,
    write_files,
)

NAMES = [f"images/{i:02}.png" for i in range(18)] + ["images/05/more é.png", 'images/05-"quoted".png']
IMAGES = {name: hashlib.sha256(name.encode()).digest() * 1000 for name in NAMES}
LEGACY = {f"old/{i}.txt": b"%d\n" % i for i in range(5)}
MODEL = hashlib.sha256(b"model").digest() * 400_000  # 12.8 MB: larger than what is hashed while its reader waits
OLD = b"written by DVC 2" * 1000


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = new_repository(tmp_path_factory.mktemp("dvc-cache") / "repo")
    write_files(root, {**IMAGES, "model.bin": MODEL, "one.bin": b"one" * 30_000})
    dvc(root, "repo = Repo.init(); repo.add(['images', 'model.bin', 'one.bin'])")
    add_legacy_file(root, "old.bin", OLD)
    add_legacy_directory(root, "old", {name[4:]: data for name, data in LEGACY.items()})
    write_files(root, {".gitignore": b"/images\n/model.bin\n/one.bin\n/old.bin\n/old\n"})
    commit_all(root, "data")
    return root


@pytest.fixture
def url(origin: Path):
    with hub(origin) as running:
        yield running


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


def run_dvc(where: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=where,
        env=environment(DVC_NO_ANALYTICS="1"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dvc_checks_out_what_was_read_on_a_mount_without_any_remote(
    url: str, clone: Path, home: Home, tmp_path: Path
) -> None:
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone) as data:
        for name, right in (("model.bin", MODEL), ("one.bin", b"one" * 30_000), ("old.bin", OLD)):
            assert (data / name).read_bytes() == right
        (state,) = home.status()
        assert "left there" in home.run("status", data).stdout
        assert state["metrics"]["dvc_cache.given"] == 3
    run_dvc(clone, "checkout", "model.bin.dvc", "one.bin.dvc", "old.bin.dvc")
    assert (clone / "model.bin").read_bytes() == MODEL
    assert (clone / "old.bin").read_bytes() == OLD


def test_dvc_checks_out_a_directory_whose_files_were_read(url: str, clone: Path, home: Home, tmp_path: Path) -> None:
    """Its manifest is made from the listings, the one of its sub-directory among them."""
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone) as data:
        for name, right in IMAGES.items():
            assert (data / name).read_bytes() == right
        assert sorted(path.name for path in (data / "images").iterdir()) == sorted(
            {name.split("/")[1] for name in IMAGES}
        )
        for name, right in LEGACY.items():
            assert (data / name).read_bytes() == right
        assert len(list((data / "old").iterdir())) == len(LEGACY)
    run_dvc(clone, "checkout", "images.dvc", "old.dvc")
    assert {name: (clone / name).read_bytes() for name in (*IMAGES, *LEGACY)} == {**IMAGES, **LEGACY}


def test_after_a_pull_a_mount_downloads_nothing(
    url: str, origin: Path, clone: Path, home: Home, tmp_path: Path
) -> None:
    run_dvc(clone, "remote", "add", "-d", "there", str(origin / ".dvc/cache"))
    run_dvc(clone, "remote", "modify", "there", "url", str(origin / ".dvc/cache"))
    run_dvc(clone, "pull")
    asked(url, reset=True)
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone) as data:
        for name, right in {**IMAGES, "model.bin": MODEL, "one.bin": b"one" * 30_000, "old.bin": OLD}.items():
            assert (data / name).read_bytes() == right, name
            assert (data / name).stat().st_size == len(right)
        (state,) = home.status()
        assert state["metrics"]["dvc_cache.hits"] == len(IMAGES) + 3
    assert asked(url)["requests"].get("raw", 0) == 0
    # And by the directory itself, on the next mount, with no network at all.
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone / ".dvc/cache", "--offline") as data:
        assert (data / "model.bin").read_bytes() == MODEL
        assert (data / "images/07.png").read_bytes() == IMAGES["images/07.png"]


def test_a_large_file_that_is_damaged_in_dvcs_cache_comes_from_the_hub(
    url: str, clone: Path, home: Home, tmp_path: Path
) -> None:
    digest = hashlib.md5(MODEL).hexdigest()
    wrong = clone / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(MODEL[:-1] + b"?")
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone) as data:
        assert (data / "model.bin").read_bytes() == MODEL
        assert "1 of its files are damaged" in home.run("status", data).stdout
    assert wrong.read_bytes() == MODEL[:-1] + b"?"


def test_the_cache_is_where_the_settings_of_the_repository_say(
    url: str, clone: Path, home: Home, tmp_path: Path
) -> None:
    run_dvc(clone, "cache", "dir", "--local", str(tmp_path / "shared"))
    with home.mounted(url, tmp_path / "data", "--dvc-cache", clone) as data:
        (data / "one.bin").read_bytes()
        digest = hashlib.md5(b"one" * 30_000).hexdigest()
        assert home.status()[0]["metrics"]["dvc_cache.given"] == 1
    assert (tmp_path / "shared/files/md5" / digest[:2] / digest[2:]).exists()


def test_a_directory_that_does_not_exist_is_refused_in_one_line(url: str, home: Home, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    refused = home.run("mount", url, tmp_path / "data", "--dvc-cache", tmp_path / "nowhere", check=False)
    assert refused.returncode != 0
    assert refused.stderr.count("\n") == 1
    assert "no such directory" in refused.stderr
