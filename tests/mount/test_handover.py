"""What one worker of a mount hands on to the next: node ids on a full disk, commits and open files over SIGUSR2; and
how ordinary users fare."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import Home
from support.disks import fill, needs_root, small_disk
from support.histories import History, history
from support.hubs import hub
from support.mounts import ORDINARY
from support.repos import commit_all, new_repository, write_files
from support.users import run_as
from support.waiting import until

from dagfs.config import places
from dagfs.daemon.reports import reports
from dagfs.devhub.behaviour import Fault

FOLLOW = ("--follow", "1", "--no-prefetch")


@pytest.fixture
def moving(tmp_path) -> History:
    return history(tmp_path / "repo")


def report(home: Home) -> dict[str, Any]:
    """Give what `dagfs status --json` prints, without the start of an interpreter where that is possible."""
    return (home.status() if home.user else reports(places(home.environment())))[0]


def next_worker(home: Home, how: str = "killed") -> None:
    """Have another worker serve: the one before was killed, or the installed code is gone on with."""
    before = report(home)
    if how == "killed":
        os.kill(before["workers"][0], signal.SIGKILL)
    else:
        os.kill(before["pid"], signal.SIGUSR2)
    until(lambda: (now := report(home))["generation"] > before["generation"] and now["hub"], "another worker")
    if how == "renewed":
        command = Path(f"/proc/{report(home)['workers'][0]}/cmdline").read_bytes()
        assert b"dagfs.daemon.successor" in command, "the code of before goes on"


@needs_root
@pytest.mark.parametrize("full", ["state", "state and cache"])
def test_a_full_disk_and_a_killed_worker_cost_no_open_file_and_no_path(sample, tmp_path, full):
    """Node ids given before the disk was full, and after, over three workers of two kinds."""
    names = [name for name in sorted(sample.files) if "/" in name and sample.files[name]]
    everything = full == "state and cache"
    home = Home(tmp_path / "home")
    (tmp_path / "home").mkdir(exist_ok=True)
    place = tmp_path / "home" / ("all" if everything else "state")
    with small_disk(place, (24 if everything else 3) << 20) as disk:
        if everything:
            home.extra = {"XDG_CACHE_HOME": str(disk / "cache"), "XDG_STATE_HOME": str(disk / "state")}
        with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
            opened = {name: os.open(data / name, os.O_RDONLY) for name in names[::3]}
            fill(disk)
            opened |= {name: os.open(data / name, os.O_RDONLY) for name in names[1::3]}
            next_worker(home)
            opened |= {name: os.open(data / name, os.O_RDONLY) for name in names[2::3]}
            next_worker(home, "renewed")
            fill(disk)
            next_worker(home)
            for name, fd in opened.items():
                assert os.pread(fd, 1 << 24, 0) == sample.files[name], name
                os.close(fd)
                assert (data / name).read_bytes() == sample.files[name]
            assert report(home)["metrics"].get("vfs.failed.read", 0) == 0


def test_commits_and_open_files_are_handed_on_to_the_installed_code(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        fd = os.open(data / "data/00.bin", os.O_RDONLY)
        for number in (2, 3):
            moving.commit()
            until(lambda: report(home)["commit"] == moving.shas[number])  # noqa: B023
        since = report(home)["follow"]["since"]
        next_worker(home, "renewed")
        told = report(home)
        assert (told["commit"], told["follow"]["since"]) == (moving.shas[3], since)
        assert os.pread(fd, 1 << 20, 0) == moving.files[1]["data/00.bin"]
        assert os.getxattr(fd, "user.dagfs.commit").decode() == moving.shas[1]
        assert (data / "data/00.bin").read_bytes() == moving.files[3]["data/00.bin"]
        os.close(fd)


def test_what_is_open_holds_the_commit_also_against_the_installed_code(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW, "--hold-while-open") as data:
        fd = os.open(data / "version", os.O_RDONLY)
        next_worker(home, "renewed")
        moving.commit()
        until(lambda: report(home)["follow"]["why"] and "held back" in report(home)["follow"]["why"])
        next_worker(home, "renewed")
        until(lambda: report(home)["follow"]["why"] and "held back" in report(home)["follow"]["why"])
        assert report(home)["commit"] == moving.shas[1]
        assert os.pread(fd, 100, 0) == b"1\n"
        os.close(fd)
        until(lambda: (data / "version").read_bytes() == b"2\n")


@pytest.fixture
def somebody(tmp_path, device_for_users) -> Home:
    """The home of an ordinary user, who may come to where it lies."""
    home = Home(tmp_path / "home", user=ORDINARY)
    for path in (home.root / "run", tmp_path / "data"):
        path.mkdir(parents=True, mode=0o700)
    if ORDINARY is not None:
        for directory in (tmp_path, *tmp_path.parents):
            if directory.owner() == "root":
                directory.chmod(directory.stat().st_mode | 0o011)
        for path in (home.root, home.root / "run", tmp_path / "data"):
            os.chown(path, ORDINARY, ORDINARY)
    return home


WAITS = 'exec 3< "$1" && echo ready && read line && cat <&3'
"""Opens a file, and reads it when it is told to."""


def test_an_ordinary_user_can_follow_and_renew_and_loses_nothing_with_a_worker(moving, somebody, tmp_path):
    home = somebody
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW, "--hold-while-open") as data:
        assert psutil.Process(report(home)["pid"]).uids().effective == (ORDINARY or os.geteuid())
        words = ["sh", "-c", WAITS, "sh", data / "data/00.bin"]
        as_somebody = {} if ORDINARY is None else {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
        reader = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **as_somebody)
        assert reader.stdout.readline() == b"ready\n"
        moving.commit()
        until(lambda: report(home)["follow"]["why"] and "held back" in report(home)["follow"]["why"])
        next_worker(home)
        next_worker(home, "renewed")

        def look(number: int) -> None:
            shown = {name: (data / name).read_bytes() for name in moving.files[number]}
            assert shown == moving.files[number]
            assert os.listdir(data / "v") == [str(number)]

        assert run_as(ORDINARY, lambda: look(1)) == 0
        assert reader.communicate(b"go\n", timeout=30)[0] == moving.files[1]["data/00.bin"]
        until(lambda: report(home)["commit"] == moving.shas[2])
        assert run_as(ORDINARY, lambda: look(2)) == 0
        next_worker(home)
        assert run_as(ORDINARY, lambda: look(2)) == 0
        assert report(home)["state"] == "serving"
    assert list((home.root / "state/dagfs/mounts").glob("*")) == []


@pytest.mark.stress
def test_the_watch_finds_a_stuck_worker_of_an_ordinary_user(sample, somebody, tmp_path):
    with hub(sample.path) as url, somebody.mounted(url, tmp_path / "data") as data:
        before = report(somebody)
        os.kill(before["workers"][0], signal.SIGSTOP)
        assert run_as(ORDINARY, (data / "images/001.jpg").read_bytes) == 0
        until(lambda: report(somebody)["generation"] == 2)
        assert "has not answered" in Path(before["log"]).read_text()


OLD, NEW = SECRETS = [f"0123456789abcdef0123456789abcdef0123456{n}" for n in range(2)]


def test_no_worker_lets_its_memory_be_read_or_writes_its_tokens_into_the_log(somebody, tmp_path):
    """The mount's own, one that it was given meanwhile, and those that a later worker knows: a file may be named as a
    token is, and whatever fails is named in the log."""
    home, root = somebody, new_repository(tmp_path / "repo")
    write_files(root, {f"{secret}-{n}": b"x" * 1000 for secret in SECRETS for n in range(4)})
    commit_all(root, "Secrets", 1_700_000_000)
    token = tmp_path / "token"

    def give(secret: str) -> None:
        token.with_suffix(".new").write_text(secret)
        token.with_suffix(".new").chmod(0o600)
        os.chown(token.with_suffix(".new"), ORDINARY or os.getuid(), ORDINARY or os.getgid())
        token.with_suffix(".new").rename(token)

    def fail(data: Path, number: int, *secrets: str) -> None:
        for secret in secrets:
            assert run_as(ORDINARY, (data / f"{secret}-{number}").read_bytes) != 0

    def log() -> str:
        text = Path(report(home)["log"]).read_text()
        assert not any(secret in text for secret in SECRETS)
        return text

    def processes() -> list[psutil.Process]:
        supervisor = psutil.Process(report(home)["pid"])
        return [supervisor, *supervisor.children()]

    give(OLD)
    with (
        hub(root, fault=refuse_content) as url,
        home.mounted(url, tmp_path / "data", "--token-file", token, "--no-prefetch") as data,
    ):
        fail(data, 0, OLD)
        assert log().count("[redacted]") >= 1
        give(NEW)
        time.sleep(1.1)  # as old as the knowledge of the file may be
        fail(data, 1, NEW, OLD)
        for number, how, secrets in ((2, "killed", (NEW, OLD)), (3, "renewed", (NEW,))):
            next_worker(home, how)
            seen = log().count("[redacted]")
            fail(data, number, *secrets)
            assert log().count("[redacted]") > seen
            for process in processes():
                assert os.stat(f"/proc/{process.pid}/environ").st_uid == 0, process.cmdline()
                limits = Path(f"/proc/{process.pid}/limits").read_text()
                core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
                assert core.split()[4:6] == ["0", "0"]


def refuse_content(request: Any) -> Fault | None:
    return Fault(status=403) if request.kind == "raw" else None
