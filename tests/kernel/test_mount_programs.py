"""Programs written in C see the tree as a local one; both drivers."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.mounts import Mounted
from support.trees import BIG, FILES, LINKS

pytestmark = pytest.mark.mount


def run(*command: str | Path, cwd: Path | None = None) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.fail(f"{command[0]} is needed by the tests: `apt install {command[0]}`")
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, b""), command
    return os.fsdecode(done.stdout)


def check_copy(copy: Path) -> None:
    for name, data in FILES.items():
        assert (copy / name).read_bytes() == data, name
    for name, target in LINKS.items():
        assert os.readlink(copy / name) == target
    assert (copy / "hollow").is_dir()


PARTS: Sequence[str] = ("small.txt", "empty", "images", "odd", "hollow", "link", "dangling")


def test_cp(held: Mounted, tmp_path: Path) -> None:
    run("cp", "-r", *PARTS, tmp_path, cwd=held.path)
    check_copy(tmp_path)


def test_cp_keeps_times(held: Mounted, tmp_path: Path) -> None:
    run("cp", "-a", *PARTS, tmp_path, cwd=held.path)
    check_copy(tmp_path)
    assert os.stat(tmp_path / "small.txt").st_mtime_ns == os.stat(held.path / "small.txt").st_mtime_ns
    run("chmod", "-R", "u+w", tmp_path)


def test_rsync(held: Mounted, tmp_path: Path) -> None:
    run("rsync", "-a", "--exclude=huge", f"{held.path}/", tmp_path / "copy")
    check_copy(tmp_path / "copy")
    again = run("rsync", "-ai", "--exclude=huge", f"{held.path}/", tmp_path / "copy")
    assert again == ""
    run("chmod", "-R", "u+w", tmp_path)


def test_tar(held: Mounted, tmp_path: Path) -> None:
    run("tar", "-cf", tmp_path / "all.tar", "-C", held.path, *PARTS)
    run("tar", "-xf", tmp_path / "all.tar", "-C", tmp_path)
    check_copy(tmp_path)
    run("chmod", "-R", "u+w", tmp_path)


def test_find(held: Mounted) -> None:
    found = run("find", held.path, "-type", "f", "-printf", "%P\\0%s\\0").split("\0")[:-1]
    assert dict(zip(found[::2], map(int, found[1::2]), strict=True)) == {
        **{name: len(data) for name, data in FILES.items()},
        "huge": BIG,
    }


def test_du(held: Mounted) -> None:
    total = int(run("du", "-sb", held.path / "images").split()[0])
    images = sum(len(data) for name, data in FILES.items() if name.startswith("images/"))
    assert total == images + len(LINKS["images/up"])


def test_sha256sum(held: Mounted) -> None:
    for name in ("images/a.bin", "images/deep/er/c.bin", "empty"):
        assert run("sha256sum", held.path / name).split()[0] == hashlib.sha256(FILES[name]).hexdigest()


def test_cmp_and_diff(held: Mounted, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(FILES["images/b.bin"])
    run("cmp", held.path / "images/b.bin", tmp_path / "b.bin")
    assert filecmp.cmp(held.path / "images/b.bin", tmp_path / "b.bin", shallow=False)


def test_ls_shows_every_entry_without_a_complaint(held: Mounted) -> None:
    lines = run("ls", "-la", held.path).splitlines()
    assert len(lines) == 1 + 2 + len(os.listdir(held.path))


def test_getfattr(held: Mounted) -> None:
    assert (
        run("getfattr", "--absolute-names", "--only-values", "-n", "user.dagfs.commit", held.path / "link") == "0" * 40
    )
    assert "user.dagfs.commit" in run("getfattr", "--absolute-names", held.path / "small.txt")
