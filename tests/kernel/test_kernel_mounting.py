"""What is checked before a mount, who may see it, and how it goes away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import needs_root, small_disk
from support.mounts import NOBODY, ORDINARY, Mounted, mounted, run_as
from support.trees import FILES, tree

from dagfs.errors import BadMountPoint, NoFuse
from dagfs.kernel import mounting
from dagfs.kernel.mountinfo import find_mount, mount_points
from dagfs.kernel.mounting import check_fuse, check_mount_point, is_automount, unmount

pytestmark = pytest.mark.mount

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, and only root can become one")


def test_an_empty_directory_is_accepted_by_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert check_mount_point("here") == str((tmp_path / "here").resolve())


def test_a_missing_path_a_file_and_a_full_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadMountPoint, match="does not exist: `mkdir"):
        check_mount_point(tmp_path / "none")
    with pytest.raises(BadMountPoint, match="not a directory"):
        check_mount_point(tmp_path / "file")
    with pytest.raises(BadMountPoint, match="not empty"):
        check_mount_point(tmp_path)


def test_a_mount_point_is_refused_and_told_how_to_free(driver: str) -> None:
    with mounted(tree, driver) as one:
        with pytest.raises(BadMountPoint, match=r"already.*dagfs unmount"):
            check_mount_point(one.path)
        assert (one.path / "small.txt").exists()


def test_another_file_systems_mount_point_is_refused() -> None:
    with pytest.raises(BadMountPoint, match=r"already \(proc\)"):
        check_mount_point("/proc")


def test_a_dead_mount_of_ours_is_taken_away(tmp_path: Path, driver: str) -> None:
    with mounted(tree, driver, tmp_path) as one:
        os.stat(tmp_path)
        os.listdir(tmp_path)
        os.kill(one.pid, signal.SIGKILL)
        one.wait(10)
        assert os.stat(tmp_path)  # the kernel remembers what it has shown
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(tmp_path)
        assert check_mount_point(tmp_path) == str(tmp_path)
        assert os.listdir(tmp_path) == []


def test_the_mount_table_shows_type_source_and_flags(tmp_path: Path) -> None:
    place = tmp_path / "a b\n\\c\rd #\x85\u2028é"
    place.mkdir()
    with mounted(tree, path=place):
        found = find_mount(str(place))
        assert found in list(mount_points())
        assert found is not None
        assert found.ours
        assert found.connection == os.minor(os.stat(place).st_dev)
        table = Path("/proc/self/mounts").read_bytes().decode().split("\n")
        line = next(line for line in table if f" {tmp_path}/" in line)
        source, _, kind, options, *_ = line.split(" ")
        assert (source, kind) == ("dagfs-test", "fuse.dagfs")
        assert {"ro", "nosuid", "nodev", "noatime", "default_permissions"} <= set(options.split(","))
        assert "allow_other" not in options
        unmount(place)
    assert find_mount(str(place)) is None


def test_a_place_that_is_mounted_when_somebody_looks_is_not_looked_into(tmp_path: Path, monkeypatch) -> None:
    """Whoever looked would wait for the very mount that is to be made."""
    from dagfs.kernel import mountinfo

    (tmp_path / "would be refused").touch()
    waits = mountinfo.MountPoint(str(tmp_path), "autofs", 1)
    monkeypatch.setattr("dagfs.kernel.mounting.find_mount", lambda _: waits)
    assert check_mount_point(tmp_path) == str(tmp_path)
    assert is_automount(str(tmp_path))


@needs_root
def test_what_took_the_place_and_the_number_of_a_mount_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    """The kernel gives the number to the next mount of any kind; systemd puts its automount there again at once."""
    with small_disk(tmp_path / "m", 1 << 20) as disk:
        one = mounting.Mount(-1, str(disk), find_mount(str(disk)).connection)
        assert not one.reachable
        assert not one.mounted
        assert not one.end()
        assert os.path.ismount(disk)


def test_unmounting_what_is_not_mounted_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadMountPoint, match=r"cannot be unmounted|not found"):
        unmount(tmp_path)


def test_a_machine_without_the_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounting, "DEVICE", str(tmp_path / "none"))
    with pytest.raises(NoFuse, match="modprobe fuse"):
        check_fuse()


def test_a_user_without_fusermount_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoFuse, match="apt install fuse3"):
        check_fuse()


def test_a_user_who_could_mount_but_not_unmount_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setattr(mounting, "MTAB", str(tmp_path / "none"))
    with pytest.raises(NoFuse, match="ln -s"):
        check_fuse()


def test_a_user_may_share_a_mount_only_where_the_machine_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setattr(mounting, "others_allowed", lambda: False)
    with pytest.raises(NoFuse, match="user_allow_other"):
        check_fuse(allow_other=True)
    check_fuse(allow_other=False)


@pytest.fixture(params=["kernel", "supervised", "libfuse"])
def users(request: pytest.FixtureRequest, device_for_users: None) -> Iterator[Mounted]:
    """The tree, mounted by an ordinary user."""
    kind = str(request.param)
    driver = "libfuse" if kind == "libfuse" else "kernel"
    with mounted(tree, driver, user=ORDINARY, supervised=kind == "supervised") as one:
        yield one


def test_an_ordinary_user_mounts_reads_and_owns_the_files(users: Mounted) -> None:
    for name in ("small.txt", "images/b.bin"):
        done = subprocess.run(
            ["cat", users.path / name], capture_output=True, timeout=20, check=True, **run_as(ORDINARY)
        )
        assert done.stdout == FILES[name]
    words = ["stat", "-c", "%u:%g", users.path / "small.txt"]
    owner = subprocess.run(words, capture_output=True, timeout=20, check=True, **run_as(ORDINARY))
    assert owner.stdout.decode() == f"{ORDINARY or os.getuid()}:{ORDINARY or os.getgid()}\n"


@as_root
def test_nobody_else_sees_a_users_mount_not_even_root(users: Mounted) -> None:
    with pytest.raises(PermissionError) as caught:
        os.listdir(users.path)
    assert caught.value.errno == errno.EACCES


@as_root
def test_a_shared_mount_can_be_read_by_others(driver: str) -> None:
    with mounted(tree, driver, allow_other=True) as one:
        done = subprocess.run(["cat", one.path / "small.txt"], capture_output=True, timeout=20, **run_as(NOBODY))
        assert done.stdout == FILES["small.txt"]


def test_a_user_unmounts_with_fusermount(users: Mounted) -> None:
    subprocess.run(["fusermount3", "-u", users.path], check=True, timeout=20, **run_as(ORDINARY))
    assert users.wait(10) == 0
    assert find_mount(str(users.path)) is None


@pytest.mark.usefixtures("device_for_users")
def test_a_signal_ends_a_users_mount() -> None:
    with mounted(tree, user=ORDINARY, supervised=True) as one:
        with subprocess.Popen(
            ["tail", "-f", one.path / "small.txt"], stdout=subprocess.PIPE, **run_as(ORDINARY)
        ) as reader:
            assert reader.stdout
            assert reader.stdout.readline() == b"hello\n"  # it holds the file open from here on
            os.kill(one.pid, signal.SIGTERM)
            assert one.wait(5.0) == 0
            reader.kill()
        assert find_mount(str(one.path)) is None


@pytest.mark.usefixtures("device_for_users")
def test_a_directory_that_a_user_may_not_write_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        with pytest.raises(AssertionError, match="BadMountPoint"), mounted(tree, path=Path(name), user=ORDINARY):
            pass


@as_root
def test_a_user_who_may_not_use_the_device_is_told_so(device_for_root_alone: None) -> None:
    with pytest.raises(AssertionError, match=r"NoFuse.*chmod 666"), mounted(tree, user=NOBODY):
        pass


def test_the_helper_that_mounts_is_not_given_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is set-user-id root, and everything that it starts would inherit its environment."""
    helper = tmp_path / "fusermount3"
    helper.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("DAGSHUB_USER_TOKEN", "DAGSHUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    mounting._fusermount("-u", "--", "/nowhere")
    seen = (tmp_path / "seen").read_text()
    assert "s3cret" not in seen
    assert "LC_ALL=C.UTF-8" in seen
