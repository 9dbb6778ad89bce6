"""Processes of a mount are killed, stopped and replaced while programs read; what they see, and what is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from support.hubs import hub
from support.repos import big_directory
from support.storms import state_of, storm
from support.waiting import until
from support.walks import differences, looks_of, walk

import dagfs
from dagfs.cli.status import status
from dagfs.devhub.behaviour import Fault
from dagfs.errors import AlreadyMounted
from dagfs.kernel.mountinfo import find_mount
from dagfs.supervisor.policy import MAX_FAULTS


def await_worker(home, generation: int) -> dict:
    """Wait until the worker of that generation serves; gives the mount's report."""
    until(lambda: home.status()[0]["generation"] >= generation and home.status()[0]["state"] == "serving")
    return home.status()[0]


def crash_until_given_up(home) -> None:
    """Make one worker after another die as of a fault in itself."""
    for generation in range(1, MAX_FAULTS + 1):
        for worker in await_worker(home, generation)["workers"]:
            os.kill(worker, signal.SIGSEGV)
    until(lambda: home.status()[0]["state"] == "failed")


def processes_of(home) -> list[psutil.Process]:
    """Give all processes that belong to a home's mounts, also those that no report names."""
    mark = f"XDG_RUNTIME_DIR={home.root / 'run'}\0".encode()
    found = []
    for process in psutil.process_iter():
        try:
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes() + b"\0":
                found.append(process)
        except OSError:
            pass
    return found


def leftovers(home, *, cache: bool = True) -> list[str]:
    """Name what a mount has left in its user's directories and processes."""
    state = [*(home.root / "run/dagfs").iterdir(), *(home.root / "state/dagfs/mounts").glob("*")]
    files = [*state, *((home.root / "cache/dagfs").glob("*/tmp/*") if cache else ())]
    return [*map(str, files), *(f"{process.pid} {state_of(process.pid)}" for process in processes_of(home))]


def stall_images(request):
    if request.kind == "raw" and request.path.startswith("images/03"):
        return Fault(stall_after=10, stall_seconds=None)
    return None


def stalled_readers(data: Path) -> list[subprocess.Popen[bytes]]:
    readers = [
        subprocess.Popen(["cat", data / f"images/{n:03d}.jpg"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(30, 34)
    ]
    time.sleep(0.3)
    assert all(reader.poll() is None for reader in readers)
    return readers


def test_eight_readers_see_no_error_while_the_worker_is_killed_again_and_again(sample, home, tmp_path):
    with (
        hub(sample.path, latency=0.01) as url,
        home.mounted(url, tmp_path / "data") as data,
        storm(data, sample, tmp_path) as readers,
    ):
        for generation in range(1, MAX_FAULTS + 2):
            for worker in await_worker(home, generation)["workers"]:
                os.kill(worker, signal.SIGKILL)
        report = await_worker(home, MAX_FAULTS + 2)
        assert report["generation"] == MAX_FAULTS + 2
        home.run("cache", "clear")
    assert readers.failures == {}
    assert readers.seen["right"] > 100


def test_a_cache_that_was_cleared_before_the_worker_died_costs_no_error_either(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        names = [f"images/{n:03d}.jpg" for n in range(1, 21)]
        for name in names:
            os.stat(data / name)
        for generation in (2, 3):
            report = home.status()[0]
            if generation == 2:
                home.run("cache", "clear")
            else:
                shutil.rmtree(report["cache"])
            os.kill(report["workers"][0], signal.SIGKILL)
            await_worker(home, generation)
            for name in names[generation::2]:
                assert (data / name).read_bytes() == sample.files[name]


def test_a_machine_that_was_suspended_goes_on_where_it_was(sample, home, tmp_path):
    with (
        hub(sample.path, latency=0.02) as url,
        home.mounted(url, tmp_path / "data") as data,
        storm(data, sample, tmp_path) as readers,
    ):
        for _ in range(3):
            asleep = [process for process in processes_of(home) if process.is_running()]
            for process in asleep:
                process.suspend()
            time.sleep(1)
            for process in asleep:
                process.resume()
            time.sleep(0.3)
        assert home.status()[0]["generation"] == 1
    assert readers.failures == {}
    assert readers.seen["right"] > 20


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_a_worker_killed_every_second_for_a_minute_under_eight_readers_costs_no_error(home, tmp_path, capsys):
    truth = big_directory(tmp_path / "repo", 4000, size=20_000, per_directory=100)
    with (
        hub(truth.path, latency=0.02) as url,
        home.mounted(url, tmp_path / "data") as data,
        storm(data, truth, tmp_path) as readers,
    ):
        killed, asleep = set(), 0
        supervisor = psutil.Process(home.status()[0]["pid"])
        for second in range(60):
            time.sleep(1)
            for worker in home.status()[0]["workers"]:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
            asleep = max(asleep, len(readers.asleep()))
            if second % 10 == 9:
                home.run("cache", "clear")
        report = await_worker(home, 2)
        assert len(supervisor.children()) == 2  # worker and asker, no zombie
    assert not any(state_of(reader.pid) == psutil.STATUS_DISK_SLEEP for reader in readers.readers)
    with capsys.disabled():
        print(f"\n{len(killed)} killed, generation {report['generation']}, at most {asleep} in D, {dict(readers.seen)}")
    assert readers.failures == {}
    assert len(killed) > 40
    assert leftovers(home) == []


def test_workers_that_keep_crashing_are_given_up_and_the_state_says_so(sample, home, tmp_path):
    with hub(sample.path, fault=stall_images) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        (data / "README.md").read_bytes()
        readers = stalled_readers(data)
        crash_until_given_up(home)
        for reader in readers:
            assert reader.wait(10) != 0
            assert os.strerror(errno.ENOTCONN) in (said := reader.communicate()[1].decode()) or "abort" in said
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(data)
        (report,) = home.status()
        assert report["state"] == "failed"
        assert report["workers"] == []
        assert "SIGSEGV" in report["reason"]
        told = home.run("status", data, check=False)
        assert told.returncode == 1
        assert "dagfs unmount" in told.stdout
        assert report["reason"] in told.stdout
        assert "giving up" in Path(report["log"]).read_text()
        until(lambda: processes_of(home) == [])
        home.run("mount", url, data)
        assert (data / "README.md").read_bytes() == sample.files["README.md"]
        crash_until_given_up(home)
        home.run("unmount", data)
        assert os.listdir(data) == []
        until(lambda: leftovers(home) == [])


def test_a_service_whose_workers_keep_crashing_ends_with_a_failure(sample, home, tmp_path):
    (tmp_path / "data").mkdir()
    words = [sys.executable, "-m", "dagfs", "mount", "--foreground"]
    with hub(sample.path) as url:
        with subprocess.Popen(
            [*words, url, tmp_path / "data"], env=home.environment(), stderr=subprocess.PIPE, text=True
        ) as daemon:
            until(lambda: any(report["state"] == "serving" for report in home.status()))
            crash_until_given_up(home)
            _, said = daemon.communicate(timeout=10)
        home.run("unmount", tmp_path / "data")
    assert daemon.returncode == 128 + signal.SIGSEGV
    assert "giving up" in said


@pytest.mark.parametrize("how", ["unmount", "SIGTERM"])
def test_the_end_is_quick_and_clean_with_a_worker_that_is_stuck_and_downloads_that_stall(sample, home, tmp_path, how):
    with hub(sample.path, fault=stall_images) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        report = home.status()[0]
        readers = stalled_readers(data)
        os.kill(report["workers"][0], signal.SIGSTOP)
        behind = subprocess.Popen(["cat", data / "README.md"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.2)
        started = time.monotonic()
        if how == "unmount":
            home.run("unmount", data)
        else:
            os.kill(report["pid"], signal.SIGTERM)
        until(lambda: processes_of(home) == [], seconds=10)
        assert time.monotonic() - started < 6  # 5 s promised, and the start of an interpreter
        for reader in [*readers, behind]:
            assert reader.wait(5) != 0
            reader.communicate()
        assert find_mount(str(data)) is None
        assert leftovers(home, cache=False) == []


def test_a_mount_of_which_everything_was_killed_is_replaced_and_serves_no_half_written_byte(sample, home, tmp_path):
    with hub(sample.path, latency=0.01) as url, home.mounted(url, tmp_path / "data") as data:
        for _ in range(3):
            with subprocess.Popen(["tar", "cf", "/dev/null", data], stderr=subprocess.DEVNULL) as reader:
                until(lambda: any((home.root / "cache/dagfs").rglob("files/md5/*/*")))
                for process in processes_of(home):
                    process.kill()
                until(lambda: processes_of(home) == [])
                assert reader.wait(10) != 0
            assert find_mount(str(data)) is not None
            run = home.root / "run/dagfs"
            (run / f"{next(run.glob('*.json')).stem}.1.tmp").touch()  # killed while it wrote its state
            (next((home.root / "cache/dagfs").glob("*/tmp")) / "1-1-00000000-0").write_bytes(b"half")
            home.run("mount", url, data)
            assert list((home.root / "cache/dagfs").glob("*/tmp/1-1-*")) == []
            home.run("cache", "clear")
        assert differences(walk(data), looks_of(sample)) == []
        home.run("unmount", data)
        assert leftovers(home) == []


def test_a_daemon_that_was_stopped_is_neither_waited_for_nor_replaced_but_can_be_ended(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        report = home.status()[0]
        for pid in (report["pid"], *report["workers"]):
            os.kill(pid, signal.SIGSTOP)
        refused = home.run("mount", url, data, check=False, timeout=30)
        assert refused.returncode == AlreadyMounted.exit_status
        home.run("unmount", data, timeout=30)
        until(lambda: leftovers(home, cache=False) == [])
        assert os.listdir(data) == []


@pytest.fixture
def installed(home, tmp_path, monkeypatch):
    """A copy of dagfs that `home`'s commands run, and that a test may exchange for another version."""
    place = tmp_path / "site"
    shutil.copytree(Path(dagfs.__file__).parent, place / "dagfs", ignore=shutil.ignore_patterns("__pycache__"))
    home.extra["PYTHONPATH"] = str(place)
    home.extra["PYTHONDONTWRITEBYTECODE"] = "1"
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    return place / "dagfs"


def install(package: Path, version: str, more: str = "") -> None:
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n{more}')


def test_a_mount_goes_on_with_the_installed_version_when_it_is_told_to(sample, home, tmp_path, installed):
    install(installed, "1.0")
    with (
        hub(sample.path, latency=0.01) as url,
        home.mounted(url, tmp_path / "data") as data,
        storm(data, sample, tmp_path) as readers,
    ):
        before = home.status()[0]
        assert (before["version"], before["generation"]) == ("1.0", 1)
        install(installed, "2.0")
        os.kill(before["pid"], signal.SIGUSR2)
        after = await_worker(home, 2)
        assert (after["version"], after["generation"], after["pid"]) == ("2.0", 2, before["pid"])
        assert after["workers"] != before["workers"]
        assert "dagfs 2.0" in home.run("status").stdout
        os.kill(after["workers"][0], signal.SIGKILL)  # and so does whoever comes after it
        assert await_worker(home, 3)["version"] == "2.0"
        assert len([process for process in processes_of(home) if process.pid == before["pid"]]) == 1
    assert readers.failures == {}
    assert readers.seen["right"] > 20
    assert leftovers(home) == []


def test_a_version_that_does_not_work_is_not_gone_on_with(sample, home, tmp_path, installed):
    install(installed, "1.0")
    with (
        hub(sample.path, latency=0.01) as url,
        home.mounted(url, tmp_path / "data") as data,
        storm(data, sample, tmp_path) as readers,
    ):
        before = home.status()[0]
        install(installed, "2.0", "raise ImportError('half installed')")
        os.kill(before["pid"], signal.SIGUSR2)
        until(lambda: "half installed" in Path(before["log"]).read_text())
        install(installed, "1.0")  # for `dagfs status`
        after = await_worker(home, 3)
        assert after["version"] == "1.0"
        assert after["workers"] != before["workers"]
    assert readers.failures == {}


def test_a_mount_of_the_other_driver_does_not_die_of_being_told_to_renew_itself(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", "libfuse") as data:
        os.kill(home.status()[0]["pid"], signal.SIGUSR2)
        assert (data / "README.md").read_bytes() == sample.files["README.md"]
        assert home.status()[0]["state"] == "serving"


@pytest.mark.stress
def test_a_worker_that_stops_answering_is_found_in_a_real_mount(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        report = home.status()[0]
        (stopped,) = report["workers"]
        os.kill(stopped, signal.SIGSTOP)
        with subprocess.Popen(["cat", data / "README.md"], stdout=subprocess.PIPE) as reader:
            assert reader.communicate(timeout=100)[0] == sample.files["README.md"]
        assert await_worker(home, 2)["workers"] != [stopped]
        said = Path(report["log"]).read_text()
        assert "has not answered" in said
        assert "in _serve" in said or "in run" in said


def test_status_does_not_call_a_mount_serving_whose_worker_says_nothing(sample, home, tmp_path, monkeypatch):
    monkeypatch.setattr("dagfs.daemon.reports.ANSWER_SECONDS", 0.5)
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:

        def told() -> tuple[int, str]:
            done = CliRunner().invoke(status, [str(data)], env=home.environment())
            return done.exit_code, done.output

        (worker,) = home.status()[0]["workers"]
        assert told()[0] == 0
        os.kill(worker, signal.SIGSTOP)
        code, text = told()
        assert (code, "unresponsive" in text, "it is stopped" in text) == (1, True, True)
        assert "serving" not in text
        os.kill(worker, signal.SIGCONT)
        assert told()[0] == 0
        (control,) = (home.root / "run/dagfs").glob("*.sock")
        control.unlink()
        assert told()[0] == 0  # a worker that had no room for its socket serves all the same
        with socket.socket(socket.AF_UNIX) as silent:
            monkeypatch.chdir(control.parent)
            silent.bind(control.name)
            silent.listen()
            code, text = told()
        assert (code, "has not answered" in text, "stopped" in text) == (1, True, False)


@pytest.mark.parametrize("gone", ["a file in its place", "full"])
def test_a_runtime_directory_that_cannot_be_written_ends_no_mount(sample, home, tmp_path, gone):
    """logind removes it at the last logout; `dagfs status` knows the mount again once it is back."""
    runtime = home.root / "run/dagfs"
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        worker = home.status()[0]["workers"][0]
        kept = runtime.rename(tmp_path / "kept")
        with full_disk(runtime) if gone == "full" else planted_file(runtime):
            os.kill(worker, signal.SIGKILL)
            assert (data / "images/001.jpg").read_bytes() == sample.files["images/001.jpg"]
            assert (data / "images/002.jpg").read_bytes() == sample.files["images/002.jpg"]
        kept.rename(runtime)
        until(lambda: home.status()[0]["generation"] == 2, seconds=30)
        assert (data / "images/003.jpg").read_bytes() == sample.files["images/003.jpg"]


@contextlib.contextmanager
def planted_file(path: Path) -> Iterator[None]:
    path.touch()
    yield
    path.unlink()


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk that is full")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", path], check=True)
    try:
        (path / "fill").write_bytes(bytes(8 << 10))
        with contextlib.suppress(OSError):
            (path / "more").write_bytes(bytes(64 << 10))
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)
        path.rmdir()
