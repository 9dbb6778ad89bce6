"""The cache's disk fills up, becomes read-only, is shared and loses processes: readers see the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from support.commands import Home, asked
from support.disks import fill, needs_root, remount, small_disk
from support.hubs import hub
from support.kinds import DIRECTORIES, differences, of
from support.mounts import NOBODY
from support.surveys import survey
from support.waiting import until

from dagfs.errors import CacheRefused

MiB = 1 << 20


READ_ALL = "import pathlib, sys; [path.read_bytes() for path in pathlib.Path(sys.argv[1]).rglob('*') if path.is_file()]"


def store_of(cache: Path) -> Path:
    (mark,) = cache.glob("*/format")
    return mark.parent


@needs_root
def test_a_disk_that_is_full_costs_no_read_and_is_used_again_when_it_has_room(contents, home, tmp_path):
    with small_disk(tmp_path / "disk", 40 * MiB) as disk, hub(contents.path, storages=contents.storages) as url:
        cache = disk / "cache"
        with home.mounted(url, tmp_path / "data", "--cache-dir", cache) as data:
            assert survey(data, "one/git").differences(only(contents, "one/git")) == []
            assert not_kept(home) is None
            fill(disk)
            assert survey(data, *DIRECTORIES["one"]).differences(of(contents, "one")) == []
            assert "No space left on device" in not_kept(home)
            assert "not kept    what is fetched now: " in home.run("status").stdout
            (disk / "fill").unlink()
            home.run("cache", "--cache-dir", cache, "clear")
            assert differences(contents, data) == []
            until(lambda: not_kept(home) is None)
        assert home.run("cache", "--cache-dir", cache, "verify").returncode == 0


@needs_root
def test_a_disk_smaller_than_one_large_file_costs_no_read(contents, home, tmp_path):
    with (
        small_disk(tmp_path / "disk", 4 * MiB) as disk,
        hub(contents.path, storages=contents.storages) as url,
        home.mounted(url, tmp_path / "data", "--cache-dir", disk / "cache") as data,
    ):
        assert differences(contents, data) == []


@needs_root
def test_a_cache_that_is_read_only_serves_what_it_has_and_the_rest_is_fetched(contents, home, tmp_path):
    with small_disk(tmp_path / "disk", 200 * MiB) as disk, hub(contents.path, storages=contents.storages) as url:
        cache = disk / "cache"
        with home.mounted(url, tmp_path / "data", "--cache-dir", cache) as data:
            assert survey(data, *DIRECTORIES["one"]).differences(of(contents, "one")) == []
        remount(disk, "ro")
        asked(url, reset=True)
        with home.mounted(url, tmp_path / "data", "--cache-dir", cache) as data:
            assert differences(contents, data) == []
            assert [path for path in asked(url)["raw_paths"] if path in of(contents, "one")] == []
        remount(disk, "rw")
        with home.mounted(url, tmp_path / "data", "--cache-dir", cache) as data:
            assert differences(contents, data) == []


def not_kept(home: Home) -> str | None:
    (mount,) = home.status()
    return mount["not_kept"]


def only(contents, directory: str) -> dict[str, bytes]:
    return {path: data for path, data in contents.files.items() if path.startswith(directory + "/")}


def killed_while(step, home: Home, mountpoint: Path, times: int) -> None:
    """Run `step` in a thread and kill the worker of `mountpoint` meanwhile."""
    running = threading.Thread(target=step)
    running.start()
    for _ in range(times):
        time.sleep(0.4)
        for row in home.status():
            if row["mountpoint"] == str(mountpoint):
                for pid in row["workers"]:
                    os.kill(pid, signal.SIGKILL)
    running.join(100)
    assert not running.is_alive()


def test_two_mounts_share_a_cache_while_one_is_killed_again_and_again(contents, home, tmp_path):
    with (
        hub(contents.path, storages=contents.storages, latency=0.02) as url,
        home.mounted(url, tmp_path / "a") as one,
        home.mounted(url, tmp_path / "b") as other,
    ):
        wrong: list[str] = []

        def both() -> None:
            threads = [
                threading.Thread(target=lambda d=d: wrong.extend(differences(contents, d))) for d in (one, other)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        killed_while(both, home, one, times=3)
        assert wrong == []
        assert differences(contents, one) == []
    assert home.run("cache", "verify").stdout.strip() == "everything is as it was fetched"
    assert list((store_of(home.root / "cache/dagfs") / "tmp").iterdir()) == []


def test_a_process_killed_in_mid_write_leaves_a_cache_that_the_next_can_use(contents, home, tmp_path):
    with hub(contents.path, storages=contents.storages, latency=0.01) as url:
        for _ in range(3):
            with home.mounted(url, tmp_path / "data") as data:
                command = [sys.executable, "-c", READ_ALL, data]
                with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reader:
                    time.sleep(0.3)
                    row = home.status()[0]
                    for pid in (row["pid"], *row["workers"]):
                        os.kill(pid, signal.SIGKILL)
                    reader.wait(30)
        with home.mounted(url, tmp_path / "data") as again:
            assert differences(contents, again) == []
    assert home.run("cache", "verify").stdout.strip() == "everything is as it was fetched"


@needs_root
def test_a_cache_belongs_to_one_user(contents, home, tmp_path):
    """Another user is refused and told so; nothing is changed. Each has a cache of his own."""
    cache = tmp_path / "shared"
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    with hub(contents.path, storages=contents.storages) as url:
        with home.mounted(url, tmp_path / "data", "--cache-dir", cache) as data:
            assert survey(data, "one/git").differences(only(contents, "one/git")) == []
        os.chown(store_of(cache), NOBODY, NOBODY)
        (tmp_path / "data").mkdir(exist_ok=True)
        refused = home.run("mount", url, tmp_path / "data", "--cache-dir", cache, check=False)
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", NOBODY, NOBODY)
        inside = home.run("mount", url, tmp_path / "data", "--cache-dir", tmp_path / "theirs", check=False)
    for one in (refused, inside):
        assert one.returncode == CacheRefused.exit_status
        assert f"belongs to user {NOBODY}" in one.stderr
    assert store_of(cache).stat().st_uid == NOBODY
    assert os.listdir(tmp_path / "theirs") == []


def test_a_limit_smaller_than_every_file_costs_no_read(contents, home, tmp_path):
    with (
        hub(contents.path, storages=contents.storages) as url,
        home.mounted(url, tmp_path / "data", "--cache-size", "50KB") as data,
    ):
        assert differences(contents, data) == []
    kept = [path.stat().st_size for path in (store_of(home.root / "cache/dagfs") / "files/md5").glob("*/*")]
    assert sum(kept) <= 50_000


def test_a_bit_flipped_anywhere_is_found_by_verify_and_never_read(contents, home, tmp_path):
    with hub(contents.path, storages=contents.storages) as url:
        with home.mounted(url, tmp_path / "data") as data:
            assert differences(contents, data) == []
        damaged = []
        for path in sorted(store_of(home.root / "cache/dagfs").glob("files/md5/*/*")):
            path.chmod(0o600)
            if path.stat().st_size:
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size // 2)
                    byte = os.pread(file.fileno(), 1, file.tell())[0]
                    file.write(bytes([byte ^ 1]))
                damaged.append(path)
        with home.mounted(url, tmp_path / "data") as data:
            assert survey(data, *DIRECTORIES["one"], readers=2).differences(of(contents, "one")) == []
        told = home.run("cache", "verify", check=False)
        assert told.returncode == 1
        assert f"{len(damaged) - len(set(of(contents, 'one').values()) - {b''})} damaged" in told.stdout
        assert home.run("cache", "verify").returncode == 0
