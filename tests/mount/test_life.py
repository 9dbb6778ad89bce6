"""A mount's life: its beginning, who may enter, stalls, crashes of the worker, its end, and its cache."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import Home, asked
from support.contents import noise
from support.hubs import hub
from support.repos import commit_all, new_repository, put_dvc_directory
from support.waiting import until
from support.walks import differences, looks_of, walk

from dagfs.devhub.behaviour import Fault
from dagfs.fetch.slots import START

SECRET = "0123456789abcdef0123456789abcdef01234567"


def stall_images(request):
    if request.kind == "raw" and request.path.startswith("images/03"):
        return Fault(stall_after=10, stall_seconds=None)
    return None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program read a file for the length of a block, at most."""
    reader = start_reader(path)
    try:
        yield reader
    finally:
        reader.kill()
        reader.wait(10)


def have_the_kernel_forget(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def start_reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_stalled_reads_do_not_delay_cached_ones(sample, home, tmp_path):
    """The kernel has forgotten their pages, so that the daemon answers them, from its cache."""
    known = ["images/001.jpg", "labels.tsv", "large.bin"]
    with (
        hub(sample.path, fault=stall_images) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
        contextlib.ExitStack() as stack,
    ):
        for path in known:
            (data / path).read_bytes()
        stuck = [f"images/{n:03d}.jpg" for n in range(30, 40)]
        readers = [stack.enter_context(reading(data / path)) for path in stuck]
        until(lambda: set(stuck) <= asked(url)["raw_paths"].keys())
        for path in known:
            have_the_kernel_forget(data / path)
        asked(url, reset=True)
        before = home.status()[0]["metrics"]["cache.hits"]
        for path in known:
            assert (data / path).read_bytes() == sample.files[path]
        assert home.status()[0]["metrics"]["cache.hits"] >= before + len(known)
        assert asked(url)["raw_paths"] == {}
        assert sorted(os.listdir(data / "deep/a")) == ["b"]
        assert (data / "images/002.jpg").read_bytes() == sample.files["images/002.jpg"]
        assert all(reader.poll() is None for reader in readers)


def test_more_stalled_readers_than_slots_delay_no_size_no_listing_and_no_first_read(home, tmp_path):
    """Each stalled path was asked for once at the end: not even the first has come to its deadline of 30 s."""
    count = 2 * START + 8
    files = {f"stuck/{n:03d}.bin": noise(2_000, n) for n in range(count)} | {"free/a.bin": b"a" * 300_000}
    root = new_repository(tmp_path / "repo")
    put_dvc_directory(root, "data", files)
    commit_all(root, "files")

    def stall(request):
        stuck = request.kind == "raw" and request.path.startswith("data/stuck")
        return Fault(stall_after=10, stall_seconds=None) if stuck else None

    with (
        hub(root, fault=stall) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
        contextlib.ExitStack() as stack,
    ):
        readers = [stack.enter_context(reading(data / f"data/stuck/{n:03d}.bin")) for n in range(count)]
        until(lambda: len(asked(url)["raw_paths"]) == count, "a slot for each stalled reader")
        assert os.stat(data / "data/free/a.bin").st_size == 300_000
        assert os.listdir(data / "data/free") == ["a.bin"]
        assert (data / "data/free/a.bin").read_bytes() == files["free/a.bin"]
        assert (data / "data.dvc").stat().st_size == (root / "data.dvc").stat().st_size
        counted = asked(url)["raw_paths"]
        assert [n for n in range(count) if counted[f"data/stuck/{n:03d}.bin"] != 1] == []
        assert all(reader.poll() is None for reader in readers)


@pytest.mark.parametrize("how", ["unmount", "SIGTERM"])
def test_the_end_is_quick_with_open_files_and_stalled_downloads(sample, home, tmp_path, how, driver):
    options = ("--no-prefetch", "--driver", driver)
    with hub(sample.path, fault=stall_images) as url, home.mounted(url, tmp_path / "data", *options) as data:
        report = home.status()[0]
        readers = [start_reader(data / f"images/{n:03d}.jpg") for n in range(30, 34)]
        held = os.open(data / "README.md", os.O_RDONLY)
        try:
            time.sleep(0.3)
            started = time.monotonic()
            if how == "unmount":
                home.run("unmount", data)
            else:
                os.kill(report["pid"], signal.SIGTERM)
            gone = all(wait_gone(pid) for pid in [report["pid"], *report["workers"]])
            assert gone
            assert time.monotonic() - started < 6  # 5 s promised, and the start of an interpreter
        finally:
            with contextlib.suppress(OSError):  # ENOTCONN: the mount went first
                os.close(held)
        for reader in readers:
            assert reader.wait(5) != 0
        assert not os.path.ismount(data)
        assert home.status() == []
        places = ("run/dagfs/*", "state/dagfs/mounts/*", "cache/dagfs/*/tmp/*")
        assert [path for place in places for path in home.root.glob(place)] == []
        log = Path(report["log"]).read_text()
        assert "Traceback" not in log
        assert "killing it" not in log  # it has ended by itself


def wait_gone(pid: int, seconds: float = 6) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_is_a_pause_for_readers(sample, home, tmp_path):
    with hub(sample.path, latency=0.02) as url, home.mounted(url, tmp_path / "data") as data:
        found: dict[str, list[object]] = {}
        reader = threading.Thread(target=lambda: found.update(walk(data)))
        reader.start()
        killed = 0
        while reader.is_alive() and killed < 3:
            time.sleep(0.3)
            for worker in home.status()[0]["workers"]:
                os.kill(worker, signal.SIGKILL)
                killed += 1
        reader.join(90)
        assert killed
        assert differences(found, looks_of(sample)) == []
        report = home.status()[0]
        assert report["generation"] > 1
        assert report["state"] == "serving"


def test_the_mount_is_for_its_owner_only(sample, home, tmp_path):
    os.chmod(tmp_path, 0o755)
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        (data / "README.md").read_bytes()
        table = Path("/proc/self/mounts").read_text().splitlines()
        options = next(row.split()[3] for row in table if row.split()[1] == str(data)).split(",")
        assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(options)
        assert "allow_other" not in options
        assert stat.S_IMODE((home.root / "cache/dagfs").stat().st_mode) == 0o700
        for path in (home.root / "cache/dagfs").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        if os.geteuid() == 0:
            other = subprocess.run(["setpriv", "--reuid", "65534", "ls", data], capture_output=True, timeout=20)
            assert other.returncode != 0


def test_an_ordinary_user_can_mount(sample, device_for_users):
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    root = Path("/tmp") / f"dagfs-user-{os.getpid()}"
    root.mkdir()
    data = root / "data"
    data.mkdir()
    subprocess.run(["chown", "-R", "65534:65534", root], check=True)
    home = Home(root / "home")
    environment = home.environment() | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run(["chown", "-R", "65534:65534", root], check=True)

    def as_user(*words: str) -> subprocess.CompletedProcess[str]:
        drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        return subprocess.run([*drop, *words], env=environment, capture_output=True, text=True, timeout=60)

    dagfs = (sys.executable, "-m", "dagfs")
    if as_user(*dagfs, "--version").returncode:
        pytest.skip("another user cannot run this interpreter: it lies in a private directory")
    with hub(sample.path) as url:
        try:
            mounted = as_user(*dagfs, "mount", url, str(data))
            assert mounted.returncode == 0, mounted.stderr
            read = as_user("sha256sum", str(data / "model.bin"), str(data / "README.md"))
            assert read.returncode == 0, read.stderr
            with pytest.raises(PermissionError):
                os.listdir(data)  # not even root
        finally:
            ended = as_user(*dagfs, "unmount", str(data))
            subprocess.run(["umount", "-l", data], stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", "--one-file-system", root], check=False)
        assert ended.returncode == 0, ended.stderr


def test_the_token_is_nowhere_to_be_seen(sample, home, tmp_path):
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    token.chmod(0o600)
    with hub(sample.path, token=SECRET) as url:
        refused = home.run("mount", url, tmp_path / "data", check=False)
        assert refused.returncode != 0
        with home.mounted(url, tmp_path / "data", "--token-file", token) as data:
            assert (data / "README.md").read_bytes() == sample.files["README.md"]
            report = home.status()[0]
            for pid in [report["pid"], *report["workers"]]:
                assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            places = [path for path in home.root.rglob("*") if path.is_file()]
            assert places
            assert [path for path in places if SECRET.encode() in path.read_bytes()] == []
            assert SECRET not in str(home.status())


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-1], lambda body: bytes(byte ^ 1 for byte in body)], ids=["cut", "flipped"]
)
def test_a_damaged_cache_is_a_miss(sample, home, tmp_path, damage):
    with hub(sample.path) as url:
        with home.mounted(url, tmp_path / "data") as data:
            walk(data)
        for path in (home.root / "cache/dagfs").rglob("files/md5/*/*"):
            path.chmod(0o600)
            path.write_bytes(damage(path.read_bytes()))
        with home.mounted(url, tmp_path / "data") as data:
            assert differences(walk(data), looks_of(sample)) == []


def test_a_cleared_cache_loses_nothing(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        walk(data)
        assert "freed" in home.run("cache", "clear").stdout
        Path("/proc/sys/vm/drop_caches").write_text("3") if os.geteuid() == 0 else None
        assert differences(walk(data), looks_of(sample)) == []


def test_a_flipped_bit_in_the_cache_is_found(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        walk(data)
    assert home.run("cache", "verify").stdout.strip() == "everything is as it was fetched"
    victim = max((home.root / "cache/dagfs").rglob("files/md5/*/*"), key=lambda path: path.stat().st_size)
    victim.chmod(0o600)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    found = home.run("cache", "verify", check=False)
    assert found.returncode == 1
    assert victim.name in found.stdout
    assert not victim.exists()


def test_warm_fetches_what_it_is_told_and_shows_it(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        done = home.run("warm", data / "images", data / "model.bin")
        wanted = {path for path in sample.files if path.startswith("images/")} | {"model.bin"}
        assert f"{len(wanted)}/{len(wanted)} files" in done.stdout
        raw = asked(url)["raw_paths"]
        assert {path for path in raw if sample.files.get(path)} == {path for path in wanted if sample.files[path]}
        asked(url, reset=True)
        for path in wanted:
            assert (data / path).read_bytes() == sample.files[path]
        assert asked(url)["raw_paths"] == {}


def test_warm_says_what_the_cache_does_not_keep(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--cache-size", "20KB") as data:
        done = home.run("warm", data / "images", check=False)
        assert done.returncode == 1
        assert "files are not kept in the cache" in done.stderr
