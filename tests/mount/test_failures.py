"""Failures before anything is mounted: one clear line each, an exit status of its own, no traceback."""

from __future__ import annotations

import os
import socket

import pytest
from support.hubs import hub

from dagfs.devhub.behaviour import Fault
from dagfs.errors import (
    AlreadyMounted,
    BadMountPoint,
    BadToken,
    HubUnreachable,
    MountPointMissing,
    MountPointNotEmpty,
    NoAccess,
    UnknownRepository,
    UnknownRevision,
)


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n") as running:
        yield running


def refusal(home, *words) -> tuple[int, str]:
    done = home.run("mount", *words, check=False)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("dagfs: ")
    assert "Traceback" not in done.stderr
    assert home.status() == []
    return done.returncode, lines[0]


def test_an_unknown_repository(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    status, line = refusal(home, url.replace("/o/n", "/o/other"), tmp_path / "m")
    assert status == UnknownRepository.exit_status
    assert "o/other" in line


def test_an_unknown_branch(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    status, line = refusal(home, url, tmp_path / "m", "--branch", "no/such")
    assert status == UnknownRevision.exit_status
    assert "no/such" in line


def test_no_access_and_a_bad_token(sample, home, tmp_path):
    (tmp_path / "m").mkdir()

    def forbidden(request):
        return Fault(status=403) if request.kind == "rest" else None

    with hub(sample.path, fault=forbidden) as url:
        assert refusal(home, url, tmp_path / "m")[0] == NoAccess.exit_status
    (tmp_path / "token").write_text("wrong")
    (tmp_path / "token").chmod(0o600)
    with hub(sample.path, token="right") as private:
        status, line = refusal(home, private, tmp_path / "m")
        assert status == UnknownRepository.exit_status  # such a hub does not say that it is there
        assert "needs a token" in line
        assert refusal(home, private, tmp_path / "m", "--token-file", tmp_path / "token")[0] == BadToken.exit_status


def test_a_hub_that_does_not_answer(home, tmp_path):
    (tmp_path / "m").mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        status, line = refusal(home, f"http://127.0.0.1:{port}/o/n", tmp_path / "m")
    assert status == HubUnreachable.exit_status
    assert str(port) in line


def test_a_mount_point_that_is_missing_full_or_a_file(url, home, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for name, word, kind in (
        ("missing", "does not exist", MountPointMissing),
        ("full", "not empty", MountPointNotEmpty),
        ("full/x", "not a directory", BadMountPoint),
    ):
        status, line = refusal(home, url, tmp_path / name)
        assert status == kind.exit_status
        assert word in line


def test_a_place_that_is_mounted_already(url, home, tmp_path):
    with home.mounted(url, tmp_path / "m") as data:
        done = home.run("mount", url, data, check=False)
        assert done.returncode == AlreadyMounted.exit_status
        assert "dagfs unmount" in done.stderr
        assert os.path.ismount(data)


def test_status_of_a_place_without_a_mount_of_this_user(home):
    """It cannot see other users' mounts, so it does not say that nothing is mounted there."""
    done = home.run("status", "/proc", check=False)
    assert (done.returncode, done.stdout) == (1, "no mount of yours at /proc\n")


def test_unmounting_what_is_not_mounted(home, tmp_path):
    done = home.run("unmount", tmp_path, check=False)
    assert done.returncode == BadMountPoint.exit_status
    assert done.stderr.strip() == f"dagfs: nothing is mounted at {tmp_path}"


def test_two_revisions_at_once(url, home, tmp_path):
    done = home.run("mount", f"{url}@v1", tmp_path, "--branch", "main", check=False)
    assert done.returncode == 2
    assert "one of" in done.stderr


@pytest.mark.parametrize("size", ["", "ten", "5 parsecs", "-3GB", "50"])  # 50 bytes would be meant by nobody
def test_a_size_that_is_none(url, home, tmp_path, size):
    done = home.run("mount", url, tmp_path, "--cache-size", size, check=False)
    assert done.returncode == 2
    assert "size" in done.stderr
