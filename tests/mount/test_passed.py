"""A mount that somebody else has made, served through `/dev/fd/N` by who may neither mount nor see it.

Hubs are started before the mount is made: who is forked later would hold its descriptor, and so its programs, for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import DETACH, Home
from support.histories import History, history
from support.hubs import hub
from support.namespaces import NOBODY, unprivileged
from support.waiting import until

from dagfs.config import places
from dagfs.daemon.reports import reports
from dagfs.daemon.state import Registry
from dagfs.devhub.behaviour import Fault
from dagfs.errors import BadMountPoint
from dagfs.kernel import mounting, passing
from dagfs.kernel.mountinfo import find_mount, mount_points
from dagfs.kernel.passed import take
from dagfs.supervisor.policy import stopped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the other's part is to mount as root")

DAGFS = (sys.executable, "-m", "dagfs")


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n") as running:
        yield running


@dataclass
class Passed:
    """A mount and the descriptor that is handed on."""

    path: Path
    fd: int
    name: str

    def hand_over(self) -> None:
        os.close(self.fd)
        self.fd = -1


@pytest.fixture
def made(tmp_path) -> Iterator[Passed]:
    """What a privileged part makes: a mount that nobody serves yet, for user 65534, and for others to read."""
    path = tmp_path / "m"
    path.mkdir()
    fd = mounting.mount_as_root(str(path), "passed", True, owner=(NOBODY, NOBODY))
    one = Passed(path, fd, f"/dev/fd/{fd}")
    try:
        yield one
    finally:
        if one.fd >= 0:
            one.hand_over()
        while find_mount(str(path)):
            subprocess.run([*DETACH, path], check=True, timeout=10)


@contextlib.contextmanager
def serving(home: Home, made: Passed, *command: object) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon in the foreground on the descriptor, and let nobody else hold it once it serves."""
    (home.root / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    daemon = subprocess.Popen(
        list(map(str, command)), env=home.environment(), pass_fds=[made.fd], stderr=subprocess.PIPE, text=True
    )
    try:
        made.hand_over()
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.communicate(timeout=10)
        daemon.kill()
        daemon.communicate()


def report(home: Home) -> dict[str, Any]:
    """Give what `dagfs status` tells its user, whom this process is not."""
    known = replace(places(home.environment()), runtime=home.root / "run/dagfs")
    return next(iter(reports(known)), {"state": None})


def state_of_another_pid_namespace(home: Home) -> str | None:
    """Give the state as it is written down: its pid is nobody's here."""
    states = Registry(home.root / "run/dagfs").states().values()
    return next((state.state for state in states), None)


def is_serving(home: Home) -> bool:
    return report(home)["state"] == "serving"


def number_of_errors(path: Path) -> int | None:
    """Give the errno of a look at what no kernel remembers."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno
    return None


@pytest.fixture
def contained(home) -> Home:
    """The home of an ordinary user who cannot reach this test's directories by name."""
    home.root.mkdir()
    for place in (home.root, *list(home.root.parents)[:3]):
        with contextlib.suppress(PermissionError):
            place.chmod(place.stat().st_mode | 0o055)
    home.environment()
    for place in (home.root, home.root / "run"):
        os.chown(place, NOBODY, NOBODY)
    return home


def test_an_unprivileged_user_in_other_namespaces_serves_a_mount_that_it_cannot_see(url, sample, contained, made):
    words = unprivileged(made.path, *DAGFS, "mount", url, made.name, "--foreground")
    with serving(contained, made, *words) as daemon:
        until(lambda: is_serving(contained))
        assert {path: (made.path / path).read_bytes() for path in sample.files} == sample.files
        assert os.stat(made.path / "README.md").st_uid == NOBODY
        status = report(contained)
        assert status["mountpoint"] == status["descriptor"] == made.name
        process = psutil.Process(status["pid"])
        assert process.uids().real == NOBODY
        assert "CapEff:\t0000000000000004" in Path(f"/proc/{process.pid}/status").read_text()  # CAP_DAC_READ_SEARCH
        os.kill(status["workers"][0], signal.SIGKILL)
        cold = os.statvfs(made.path)  # waits for the next worker
        assert cold.f_namemax == 255
        until(lambda: report(contained)["generation"] == 2)
        daemon.terminate()
        assert daemon.wait(5) == 0
    assert find_mount(str(made.path)) is not None, "who has made it takes it away"
    assert number_of_errors(made.path) == errno.ENOTCONN
    assert report(contained)["state"] is None
    assert list((contained.root / "run/dagfs").iterdir()) == []


def stall_images(request):
    if request.kind == "raw" and request.path.startswith("images/03"):
        return Fault(stall_after=10, stall_seconds=None)
    return None


@pytest.fixture
def stalling(sample) -> Iterator[str]:
    with hub(sample.path, fault=stall_images) as url:
        yield url


def test_pid_1_of_a_container_ends_within_five_seconds_with_files_open_and_downloads_stalled(stalling, contained, made):
    """Programs of the other containers get errors; nobody hangs."""
    words = unprivileged(made.path, *DAGFS, "mount", stalling, made.name, "--foreground", "--no-prefetch")
    with serving(contained, made, "unshare", "--pid", "--fork", "--kill-child", *words) as outer:
        until(lambda: state_of_another_pid_namespace(contained) == "serving")
        (daemon,) = psutil.Process(outer.pid).children()
        assert f"NSpid:\t{daemon.pid}\t1\n" in Path(f"/proc/{daemon.pid}/status").read_text()
        held = os.open(made.path / "README.md", os.O_RDONLY)
        readers = [subprocess.Popen(["cat", made.path / f"images/{n:03d}.jpg"], stdout=-1) for n in range(30, 34)]
        time.sleep(0.3)
        assert [reader.poll() for reader in readers] == [None] * 4
        daemon.terminate()
        assert outer.wait(5) == 0
        assert [reader.wait(1) for reader in readers] == [1] * 4
        with contextlib.suppress(OSError):
            os.close(held)


def test_in_the_background_too_and_known_by_its_place_where_that_can_be_seen(url, sample, home, made):
    done = subprocess.run(
        [*DAGFS, "mount", url, made.name],
        env=home.environment(), pass_fds=[made.fd], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    made.hand_over()
    assert done.returncode == 0, done.stderr
    assert (made.path / "README.md").read_bytes() == sample.files["README.md"]
    told = report(home)
    assert told["descriptor"] == made.name
    assert told["mountpoint"] == str(made.path)
    assert home.run("status", made.name).returncode == 0
    assert home.run("status", made.path / "images").returncode == 0
    assert "has ended" in home.run("unmount", made.name).stdout
    assert number_of_errors(made.path) == errno.ENOTCONN
    assert home.run("unmount", made.name, check=False).returncode == BadMountPoint.exit_status


def test_it_ends_well_when_who_made_the_mount_takes_it_away(url, home, made):
    with serving(home, made, *DAGFS, "mount", url, made.name, "--foreground") as daemon:
        until(lambda: is_serving(home))
        subprocess.run(["umount", made.path], check=True, timeout=10)
        assert daemon.wait(5) == 0
    assert home.status() == []


@pytest.fixture
def moving(tmp_path) -> Iterator[tuple[History, str]]:
    one = history(tmp_path / "repo")
    with hub(one.root) as url:
        yield one, url


def test_it_follows_a_branch_and_goes_on_with_the_installed_version(moving, home, made):
    branch, url = moving
    with serving(home, made, *DAGFS, "mount", url, made.name, "--foreground", "--follow", "1"):
        until(lambda: is_serving(home))
        before = os.listdir(made.path / "v")
        branch.commit()
        until(lambda: os.listdir(made.path / "v") != before)
        os.kill(report(home)["pid"], signal.SIGUSR2)
        until(lambda: report(home)["generation"] == 2 and is_serving(home))
        assert os.statvfs(made.path).f_namemax == 255


def test_a_stuck_worker_is_found_without_a_path_to_ask_it_by(url, contained, made, tmp_path):
    """Looked at every half a second, since systemd would wait for two."""
    contained.extra = {"WATCHDOG_USEC": "2000000"}
    words = unprivileged(made.path, *DAGFS, "mount", url, made.name, "--foreground")
    with serving(contained, made, *words):
        until(lambda: is_serving(contained))
        (worker,) = report(contained)["workers"]
        time.sleep(3)
        assert report(contained)["workers"] == (worker,), "nobody asks, and nobody is stuck"
        os.kill(worker, signal.SIGSTOP)
        until(lambda: stopped(worker))
        assert os.statvfs(made.path).f_namemax == 255  # answered by the next
        until(lambda: is_serving(contained) and report(contained)["generation"] == 2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/dev/fd/9999"], "descriptor 9999 is not open here"),
        (["/dev/fd/2"], "descriptor 2 is not of /dev/fuse"),
        (["HANDED", "--allow-other"], "has the options of who mounted it"),
        (["HANDED", "--driver", "libfuse"], "needs the kernel driver"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(url, home, made, words, line):
    words = [made.name if word == "HANDED" else word for word in words]
    done = subprocess.run(
        [*DAGFS, "mount", url, *words], env=home.environment(), pass_fds=[made.fd],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (2, BadMountPoint.exit_status)
    assert line in done.stderr


def test_a_descriptor_that_was_never_mounted_or_is_served_already_is_refused(made, monkeypatch):
    monkeypatch.setattr("dagfs.kernel.passed.INIT_SECONDS", 0.05)
    unmounted = os.open("/dev/fuse", os.O_RDWR)
    with pytest.raises(BadMountPoint, match="nothing waits"):
        take(unmounted, None)
    os.close(unmounted)
    os.set_blocking(made.fd, False)
    assert take(made.fd, None).fd == made.fd
    assert os.get_blocking(made.fd), "a dispatcher that never sleeps would burn a core"
    os.read(made.fd, 1 << 16)  # INIT
    with pytest.raises(BadMountPoint, match="nothing waits"):
        take(made.fd, None)


def test_the_pulse_is_odd_while_a_request_is_in_hand_and_goes_on_after_a_death():
    from dagfs.kernel.pulse import Pulse

    reading, writing = os.pipe()
    pulse, seen = Pulse(), []
    counted = pulse.around(lambda _: seen.append(pulse.notes(reading)))
    counted(b"")
    counted(b"")
    assert seen == [(1, 0), (2, 1)]
    assert pulse.notes(reading) == (2, 2)
    os.write(writing, b"a request that waits")
    assert pulse.notes(reading) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        pulse.around(lambda _: 1 / 0)(b"")
    assert pulse.notes(reading) == (4, 2)
    pulse.around(lambda _: None)
    assert pulse.notes(reading) == (4, 3)
    os.close(reading)
    os.close(writing)


@contextlib.contextmanager
def giving(home: Home, target: Path, address: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the privileged part, which knows no repository."""
    words = [*DAGFS, "pass-mount", "give", str(target), str(address), "--user", str(NOBODY)]
    giver = subprocess.Popen(words, env=home.environment(), stderr=subprocess.PIPE, text=True)
    try:
        yield giver
    finally:
        giver.terminate()
        giver.communicate(timeout=10)


def test_a_part_with_rights_passes_mounts_to_one_without_as_often_as_it_asks(url, sample, contained, tmp_path):
    address, target = contained.root / "fuse.sock", tmp_path / "made-by-the-giver"
    mount = [*DAGFS, "mount", url, "{}", "--foreground"]
    words = unprivileged(target, *DAGFS, "pass-mount", "take", address, *mount)
    with giving(contained, target, address) as giver:
        for rights in (0o600, 0o200):
            with started(contained, words) as daemon:
                assert (target / "README.md").read_bytes() == sample.files["README.md"]
                assert mounts_at(target) == 1
                assert address.stat().st_mode & 0o777 == rights
                address.chmod(0o200)  # it is connected to, which is to write
                for pid in (*report(contained)["workers"], daemon.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                daemon.wait(10)
            until(lambda: number_of_errors(target) == errno.ENOTCONN)  # at once: the giver has kept no copy
        stranger = subprocess.run(
            [*DAGFS, "pass-mount", "take", address, "true"], env=contained.environment(),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert stranger.returncode == BadMountPoint.exit_status
        assert "no mount was passed" in stranger.stderr
        giver.terminate()
        assert giver.wait(5) == 0
    assert find_mount(str(target)) is None
    assert not address.exists()


def test_the_giver_s_socket_has_its_name_when_its_user_may_connect(tmp_path, monkeypatch):
    address, chown = tmp_path / "fuse.sock", os.chown
    there: list[bool] = []

    def seen(path, user, group):
        there.append(address.exists())
        chown(path, user, group)

    monkeypatch.setattr(os, "chown", seen)
    with passing._listening(address, NOBODY) as listener:
        assert there == [False]
        assert (address.stat().st_uid, address.stat().st_mode & 0o777) == (NOBODY, 0o600)
        with socket.socket(socket.AF_UNIX) as taker:
            taker.connect(str(address))
            listener.accept()[0].close()
    assert list(tmp_path.iterdir()) == []


def mounts_at(path: Path) -> int:
    return sum(mount.path == str(path) for mount in mount_points())


@contextlib.contextmanager
def started(home: Home, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon until it serves; what it said instead, it has said to a file."""
    said = home.root / "said"
    with said.open("w") as stderr:
        daemon = subprocess.Popen(words, env=home.environment(), stderr=stderr, text=True)
    try:
        with contextlib.suppress(AssertionError):
            until(lambda: is_serving(home) or daemon.poll() is not None)
        assert is_serving(home), f"{daemon.poll()}: {said.read_text()}"
        yield daemon
    finally:
        daemon.kill()
        daemon.wait(10)
