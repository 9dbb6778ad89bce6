"""Beginnings and ends that go wrong or cross each other, and where mounts are found."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import DETACH, asked
from support.hubs import hub
from support.users import NOBODY, run_as
from support.waiting import until

from dagfs.config import places
from dagfs.daemon import ending
from dagfs.devhub.behaviour import Fault
from dagfs.errors import AlreadyMounted, BadMountPoint, DagfsError, UnknownRepository
from dagfs.kernel.mountinfo import find_mount


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n") as running:
        yield running


def started(home, *words) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dagfs", *map(str, words)],
        env=home.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_failure_in_the_foreground_is_told_as_well(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    done = home.run("mount", url.replace("/o/n", "/o/other"), tmp_path / "m", "--foreground", check=False)
    assert done.returncode == UnknownRepository.exit_status
    assert "dagfs: no repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_foreground_tells_what_is_mounted_and_at_which_commit(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    with started(home, "mount", url, tmp_path / "m", "--foreground") as daemon:
        until(lambda: any(report["state"] == "serving" for report in home.status()))
        (report,) = home.status()
        daemon.terminate()
        _, said = daemon.communicate(timeout=10)
    assert f"{url} at {report['commit'][:12]} is mounted at {tmp_path / 'm'}" in said.splitlines()[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_would_unmount_anothers_mount_is_told_whose_it_is(url, home, tmp_path):
    def try_it() -> None:
        with pytest.raises(DagfsError, match=r"a mount of user root: only that user and root can unmount it"):
            ending.end(tmp_path / "m", places({"HOME": "/nowhere"}))

    with home.mounted(url, tmp_path / "m"):
        assert run_as(NOBODY, try_it) == 0
        assert home.status()[0]["state"] == "serving"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_foreground_with_status_0(url, home, tmp_path, number, driver):
    (tmp_path / "m").mkdir()
    with started(home, "mount", url, tmp_path / "m", "--foreground", "--driver", driver) as daemon:
        until(lambda: any(report["state"] == "serving" for report in home.status()))
        daemon.send_signal(number)
        _, said = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert "Traceback" not in said
    assert find_mount(str(tmp_path / "m")) is None
    assert list((home.root / "run/dagfs").iterdir()) == []


def test_a_signal_before_anything_is_mounted_leaves_no_file(sample, home, tmp_path):
    (tmp_path / "m").mkdir()
    with hub(sample.path, latency=0.5) as slow:
        for words in ((), ("--foreground",)):
            with started(home, "mount", slow, tmp_path / "m", *words) as starter:
                until(lambda: any((home.root / "run/dagfs").glob("*.lock")))
                (lock,) = (home.root / "run/dagfs").glob("*.lock")
                os.kill(holder(lock), signal.SIGTERM)
                _, said = starter.communicate(timeout=10)
            assert starter.returncode == (0 if words else 1)
            assert said == "dagfs: it was told to end before it had mounted\n"
            assert [*(home.root / "run/dagfs").iterdir(), *(home.root / "state/dagfs/mounts").glob("*")] == []
            assert find_mount(str(tmp_path / "m")) is None


def holder(lock: Path) -> int:
    """Give the process that holds a lock file."""
    inode = lock.stat().st_ino
    until(lambda: f":{inode} " in Path("/proc/locks").read_text())
    rows = [row.split() for row in Path("/proc/locks").read_text().splitlines()]
    return next(int(row[4]) for row in rows if row[5].endswith(f":{inode}"))


def test_a_mount_point_behind_a_link_is_found_by_either_name(url, home, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with home.mounted(url, tmp_path / "real"):
        done = home.run("mount", url, tmp_path / "link", check=False)
        assert done.returncode == AlreadyMounted.exit_status
    home.run("mount", url, tmp_path / "link")
    assert home.status()[0]["mountpoint"] == str(tmp_path / "real")
    home.run("unmount", f"{tmp_path}/link/")
    assert find_mount(str(tmp_path / "real")) is None


def test_of_two_that_mount_at_one_place_at_once_one_is_refused(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    both = [started(home, "mount", url, tmp_path / "m") for _ in range(2)]
    ends = [one.communicate(timeout=40) and one.returncode for one in both]
    try:
        assert sorted(ends) == [0, AlreadyMounted.exit_status]
        assert [report["state"] for report in home.status()] == ["serving"]
    finally:
        home.run("unmount", tmp_path / "m")
    assert find_mount(str(tmp_path / "m")) is None


def test_who_mounts_after_an_unmount_from_outside_is_not_undone_by_the_old_daemon(url, home, tmp_path):
    (tmp_path / "m").mkdir()
    home.run("mount", url, tmp_path / "m")
    old = home.status()[0]["pid"]
    subprocess.run([*DETACH, tmp_path / "m"], check=True, timeout=10)
    with home.mounted(url, tmp_path / "m") as data:
        (report,) = home.status()
        assert report["state"] == "serving"
        assert report["pid"] != old
        assert (data / "README.md").exists()
        home.run("warm", data / "README.md")


def test_two_mounts_of_one_repository_share_a_cache_and_end_apart(url, sample, home, tmp_path):
    with home.mounted(url, tmp_path / "one") as one:
        with home.mounted(url, tmp_path / "two") as two, ThreadPoolExecutor(2) as pool:
            paths = [place / path for path in sample.files for place in (one, two)]
            found = list(pool.map(lambda path: path.read_bytes(), paths))
            assert found == [data for data in sample.files.values() for _ in range(2)]
            assert len(home.status()) == 2
        assert (one / "README.md").read_bytes() == sample.files["README.md"]
        assert len(home.status()) == 1


def test_a_start_that_is_interrupted_leaves_no_mount(sample, home, tmp_path):
    (tmp_path / "m").mkdir()
    with hub(sample.path, latency=0.3) as slow:
        with started(home, "mount", slow, tmp_path / "m") as starter:
            until((home.root / "state/dagfs/logs").exists)
            starter.kill()
        until(lambda: any((home.root / "run/dagfs").glob("*.lock")))
        until(lambda: not any((home.root / "run/dagfs").iterdir()))
        assert find_mount(str(tmp_path / "m")) is None


def test_a_dead_mount_is_shown_and_replaced(url, home, tmp_path):
    with home.mounted(url, tmp_path / "m") as data:
        os.stat(data)
        os.kill(home.status()[0]["pid"], signal.SIGKILL)
        until(lambda: home.status()[0]["state"] == "dead")
        assert "dagfs unmount" in home.run("status").stdout
        home.run("mount", url, data)
        assert home.status()[0]["state"] == "serving"


def test_a_mount_point_may_have_any_name(url, home, tmp_path):
    place = tmp_path / os.fsdecode(b"a b\n\\040\rc\xff\xe2\x80\xa8d")
    with home.mounted(url, place) as data:
        assert (data / "README.md").exists()
        said = home.run("status", place)
        assert "serving" in said.stdout
        assert home.status()[0]["mountpoint"] == str(place)
    assert home.status() == []


def test_status_finds_the_mount_of_any_path_in_it(url, home, tmp_path, monkeypatch):
    with home.mounted(url, tmp_path / "m") as data:
        monkeypatch.chdir(data / "images")
        for path in (data / "images/001.jpg", data / "no/such", ".", f"{data}/"):
            assert str(data) in home.run("status", path).stdout
        assert home.run("status", tmp_path, check=False).returncode == 1
        refused = home.run("unmount", data / "images", check=False)
        assert refused.returncode == BadMountPoint.exit_status
        assert f"it lies in {data}" in refused.stderr
        monkeypatch.chdir("/")


def test_status_counts_as_from_the_cache_what_was_read_from_it(sample, home, tmp_path):
    def counted() -> tuple[int, int]:
        return tuple(map(int, re.search(r"from cache  (\d+) of (\d+) reads\n", home.run("status").stdout).groups()))

    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        paths = [data / f"images/{n:03d}.jpg" for n in range(1, 6)]
        home.run("warm", *paths)
        hits, reads = counted()  # by `warm`
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                assert file.read(1 << 20) == sample.files[f"images/{path.name}"]
            os.getxattr(path, "user.dagfs.cached")  # a look at the cache is no read
        assert counted() == (hits + 5, reads + 5)


def test_what_is_not_ours_is_not_unmounted(home):
    done = home.run("unmount", "/proc", check=False)
    assert done.returncode == BadMountPoint.exit_status
    assert "no dagfs mount: it is proc" in done.stderr


def test_a_token_of_the_environment_that_was_not_used_is_named(sample, home, tmp_path):
    (tmp_path / "m").mkdir()
    home.extra["DAGSHUB_USER_TOKEN"] = "0123456789abcdef"
    with hub(sample.path, token="0123456789abcdef") as private:
        done = home.run("mount", private, tmp_path / "m", check=False)
        assert done.returncode == UnknownRepository.exit_status
        assert "DAGSHUB_USER_TOKEN was not used: it is for https://dagshub.com" in done.stderr
        assert "DAGSHUB_CLIENT_HOST=" in done.stderr


def test_warm_names_what_it_cannot_find(url, home, tmp_path):
    with home.mounted(url, tmp_path / "m") as data:
        for path in (data / "no/such", data / "README.md/below"):
            done = home.run("warm", path, check=False)
            assert done.returncode == 1
            assert "no such path" in done.stderr
    outside = home.run("warm", tmp_path, check=False)
    assert outside.returncode == BadMountPoint.exit_status


def stall_images(request):
    if request.kind == "raw" and request.path.startswith("images/"):
        return Fault(stall_after=10, stall_seconds=None)
    return None


def images_asked(url: str) -> bool:
    return any(path.startswith("images/") for path in asked(url)["raw_paths"])


def test_a_warm_up_that_is_cut_off_is_no_success(sample, home, tmp_path):
    with hub(sample.path, fault=stall_images) as stalling:
        with home.mounted(stalling, tmp_path / "m") as data, started(home, "warm", data / "images") as warming:
            until(lambda: images_asked(stalling), seconds=60)
            assert warming.poll() is None
            home.run("unmount", data)
            _, said = warming.communicate(timeout=20)
            (tmp_path / "m").rmdir()
        assert warming.returncode == 1
        assert "Traceback" not in said
        assert "dagfs: " in said


def test_a_warm_up_ends_quietly_at_ctrl_c(sample, home, tmp_path):
    with hub(sample.path, fault=stall_images) as stalling, home.mounted(stalling, tmp_path / "m") as data:
        with started(home, "warm", data / "images") as warming:
            until(lambda: images_asked(stalling), seconds=60)
            warming.send_signal(signal.SIGINT)
            _, said = warming.communicate(timeout=20)
        assert warming.returncode != 0
        assert "Traceback" not in said
        assert home.status()[0]["state"] == "serving"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at what the daemon has open")
def test_the_process_that_holds_the_mount_has_nothing_of_the_cache_open(url, home, tmp_path):
    """It forks the workers, and a connection of SQLite that crosses a fork can damage its file."""
    with home.mounted(url, tmp_path / "m"):
        report = home.status()[0]
        opened = [os.readlink(link) for link in Path(f"/proc/{report['pid']}/fd").iterdir()]
        assert [path for path in opened if path.startswith(report["cache"])] == []
        assert len(list(Path(f"/proc/{report['pid']}/task").iterdir())) == 1


def test_a_mount_that_cannot_be_unmounted_stays_and_is_no_success(url, home, tmp_path, monkeypatch):
    """As where /etc/mtab is missing and fusermount3 refuses."""

    def refuse(path):
        raise BadMountPoint("fusermount3: failed to open /etc/mtab")

    with home.mounted(url, tmp_path / "m") as data:
        monkeypatch.setattr(ending, "unmount", refuse)
        with pytest.raises(DagfsError, match=r"stays mounted: .*mtab") as caught:
            ending.end(data, places(home.environment()))
        assert not isinstance(caught.value, BadMountPoint)
        assert home.status()[0]["state"] == "serving"


def test_looking_at_a_cache_changes_nothing_that_is_none(home, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "mine").chmod(0o755)
    for command in ("info", "verify", "clear"):
        assert "nothing is kept" in home.run("cache", "--cache-dir", tmp_path, command).stdout
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "mine").iterdir()) == []
