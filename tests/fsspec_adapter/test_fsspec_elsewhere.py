"""What Windows and macOS lack is not needed to read `dagshub://`: tried by taking it away from Linux.

No Windows and no macOS machine has run this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import appdirs
import pytest
from support.commands import asked
from support.hubs import hub

from dagfs import config, system


def split(url: str) -> tuple[str, str]:
    parts = url.split("/")
    return "/".join(parts[:3]), "/".join(parts[3:])


TOKEN = "0123456789abcdef0123456789abcdef01234567"
LOCAL = "/home/ada/AppData/Local"
PRETEND = """
import hashlib, json, os, select, socket, sys, time
import certifi, click, diskcache, fsspec, msgspec, pycurl, requests, yaml  # they know other systems themselves
import rich.console, multiprocessing.util, pathlib, shutil, subprocess, tempfile, urllib.request

without = json.loads(sys.argv.pop(1))
modules = without["modules"].split()


class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


usage = shutil.disk_usage("/")
shutil.disk_usage = lambda path: usage  # Windows has its own
for module in modules:
    sys.modules.pop(module, None)
sys.meta_path.insert(0, Nowhere())
for holder in (os, select, time, socket):
    for absent in without[holder.__name__].split():
        if hasattr(holder, absent):
            delattr(holder, absent)


def kill(pid, number):
    os._exit(99)  # os.kill ends a process on Windows, whatever the number


def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "no such place there", arguments[0])


sys.addaudithook(watch)
sys.platform = without["platform"]
if sys.platform == "win32":
    os.kill = kill
"""
READ = (
    PRETEND
    + """
host, name = sys.argv[1:]
fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
found = {path[len(name) + 1 :]: hashlib.sha256(fs.cat_file(path)).hexdigest() for path in fs.find(name)}
ours = [module for module in sys.modules if module.startswith("dagfs.")]
assert not [module for module in ours if module.startswith(("dagfs.daemon", "dagfs.kernel", "dagfs.supervisor"))], ours
assert not set(sys.modules).intersection(modules)
print(json.dumps(found))
"""
)
COMMAND = (
    PRETEND
    + """
from dagfs.cli.main import main
main(prog_name="dagfs")
"""
)
MACOS = {
    "platform": "darwin",
    "modules": "_posixshmem",
    "os": "memfd_create posix_fadvise posix_fallocate sendfile copy_file_range splice eventfd setxattr getxattr "
    "listxattr sched_getaffinity O_DIRECT O_TMPFILE O_PATH",
    "select": "epoll",
    "time": "CLOCK_BOOTTIME",
    "socket": "SO_PEERCRED SOCK_CLOEXEC",
}
WINDOWS = {
    "platform": "win32",
    "modules": "fcntl resource termios pwd grp _posixshmem syslog pty tty",
    "os": MACOS["os"] + " pread preadv pwrite pwritev fchmod fchown chown geteuid getuid getegid getgid getppid setsid "
    "fork forkpty register_at_fork statvfs fstatvfs sysconf uname killpg mkfifo waitid wait4 "
    "O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_NOCTTY O_DIRECTORY O_SYNC O_DSYNC",
    "select": "poll epoll POLLIN POLLOUT POLLPRI POLLERR POLLHUP POLLNVAL",
    "time": "CLOCK_BOOTTIME CLOCK_MONOTONIC clock_gettime",
    "socket": "SO_PEERCRED SOCK_CLOEXEC",
}


def truths(sample) -> dict[str, str]:
    from hashlib import sha256

    return {path: sha256(body).hexdigest() for path, body in sample.files.items()}


def test_all_is_read_right_without_what_windows_lacks(sample, home, run):
    with hub(sample.path) as url:
        assert json.loads(run(READ, json.dumps(WINDOWS), *split(url))) == truths(sample)
        asked(url, reset=True)
        assert json.loads(run(READ, json.dumps(WINDOWS), *split(url))) == truths(sample)
        again = asked(url)["raw_paths"]
    large = {path for path, body in sample.files.items() if len(body) > 8 << 20}
    assert set(again) <= large  # without locks between processes, the blocks of a large file are not kept


def test_all_is_read_right_and_kept_without_what_macos_lacks(sample, home, run):
    with hub(sample.path) as url:
        assert json.loads(run(READ, json.dumps(MACOS), *split(url))) == truths(sample)
        asked(url, reset=True)
        assert json.loads(run(READ, json.dumps(MACOS), *split(url))) == truths(sample)
        assert asked(url)["raw_paths"] == {}


@pytest.mark.parametrize("absent", [WINDOWS, MACOS], ids=lambda absent: absent["platform"])
def test_login_and_the_cache_are_commands_there_too(sample, home, absent):
    with hub(sample.path, token=TOKEN) as url:
        home.extra["DAGSHUB_CLIENT_HOST"] = url.rsplit("/", 2)[0]
        for words, told in (
            (("login", "--token"), "logged in to"),
            (("whoami",), "by the token of token file"),
            (("cache", "info"), "nothing is kept in"),
            (("logout",), "1 token of"),
        ):
            assert told in commanded(home, absent, *words).stdout


@pytest.mark.parametrize("words", ["mount o/n data", "unmount data", "status", "top", "doctor", "warm data"])
def test_a_command_about_mounts_says_what_to_do_on_windows(home, words):
    done = commanded(home, WINDOWS, *words.split(), check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (7, "", 1)
    assert "read dagshub://" in done.stderr


def test_a_script_that_mounts_says_what_to_do_on_windows(run):
    tried = "\ntry:\n    from dagfs import mount\nexcept ImportError as error:\n    print(error)\n"
    assert "read dagshub://" in run(PRETEND + tried, json.dumps(WINDOWS))


def commanded(home, absent, *words, check=True):
    command = [sys.executable, "-c", COMMAND, json.dumps(absent), *words]
    return subprocess.run(
        command, input=TOKEN, env=home.environment(), capture_output=True, text=True, timeout=60, check=check
    )


@pytest.mark.parametrize(("platform", "variables"), [("darwin", {}), ("win32", {"LOCALAPPDATA": LOCAL})])
def test_the_clients_token_file_is_where_the_client_has_it(monkeypatch, platform, variables):
    monkeypatch.setattr(appdirs, "system", platform)
    monkeypatch.setattr(appdirs, "_get_win_folder", lambda _: LOCAL, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", "/home/ada")
    there = Path(appdirs.user_cache_dir("dagshub")) / "tokens"
    assert config.places({"HOME": "/home/ada", **variables}).client_tokens == there


def test_select_tells_what_poll_tells():
    import select
    import socket

    for make in (select.poll, system.SelectPoll):
        one, other = socket.socketpair()
        with one, other:
            poll = make()
            poll.register(one.fileno(), system.POLLIN)
            assert poll.poll(0) == []
            other.send(b"x")
            assert poll.poll(1000) == [(one.fileno(), system.POLLIN)]
            poll.register(one.fileno(), system.POLLOUT)
            assert poll.poll(1000) == [(one.fileno(), system.POLLOUT)]
            poll.unregister(one.fileno())
            assert poll.poll(0) == []


def test_reading_at_a_place_needs_no_pread(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "_HAS_PREAD", False)
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb", buffering=0) as file:
        assert system.pread(file.fileno(), 3, 4) == b"456"
        assert system.pread(file.fileno(), 9, 8) == b"89"
