"""What other users of the machine can do to a mount's files, sockets and processes: nothing."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.users import NOBODY, OWN_WORDS, SOMEBODY, run_as

from dagfs.config import private_directory, write_new
from dagfs.daemon import interpreter
from dagfs.daemon.control import ControlServer, ask
from dagfs.daemon.logs import JsonLines, Redacting, start_log
from dagfs.daemon.state import MountState, Registry
from dagfs.errors import CacheRefused
from dagfs.hub.auth import KNOWN_MAX, find_token
from dagfs.metrics import Metrics
from dagfs.store.disk import DiskStore

SECRET = "0123456789abcdef0123456789abcdef01234567"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place, which only root can")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory as /tmp is: anybody can make entries, and only their owner can remove them."""
    path = Path(f"/tmp/dagfs-shared-{os.getpid()}")
    path.mkdir()
    path.chmod(0o1777)
    yield path
    os.system(f"rm -rf {path}")


@as_root
def test_a_directory_of_another_user_is_refused(shared):
    def make() -> None:
        (shared / "dagfs").mkdir(mode=0o777)

    assert run_as(SOMEBODY, make) == 0
    assert run_as(NOBODY, lambda: private_directory(shared / "dagfs")) == OWN_WORDS
    with pytest.raises(PermissionError, match="belongs to user 65533"):
        private_directory(shared / "dagfs")


@as_root
@pytest.mark.parametrize(
    "use", [private_directory, lambda path: Registry(path).lock("x"), lambda path: ControlServer(path / "s", {})]
)
def test_a_link_that_another_user_planted_is_refused_and_what_it_names_is_left_alone(shared, use):
    """In a place like /tmp, where the runtime or cache directory may have been put."""
    own = shared / "documents"
    assert run_as(NOBODY, lambda: own.mkdir(mode=0o755)) == 0
    assert run_as(SOMEBODY, lambda: (shared / "dagfs").symlink_to(own)) == 0
    assert run_as(NOBODY, lambda: use(shared / "dagfs")) in (OWN_WORDS, errno.EACCES)  # the kernel may be the first
    assert stat.S_IMODE(own.stat().st_mode) == 0o755
    assert list(own.iterdir()) == []


def test_a_link_of_ones_own_is_followed(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "large disk")
    private_directory(tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "large disk").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o720, 0o702])
def test_a_directory_that_others_could_fill_is_refused_unless_it_is_empty(tmp_path, mode):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "planted").write_text("x")
    cache.chmod(mode)
    for _ in range(2):  # a refusal is no remedy
        with pytest.raises(PermissionError, match="others can write"):
            private_directory(cache)
    with pytest.raises(CacheRefused, match="others can write"):
        DiskStore(cache, 1 << 20, Metrics())
    assert stat.S_IMODE(cache.stat().st_mode) == mode
    (cache / "planted").unlink()
    private_directory(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_whatever_has_to_be_made_on_the_way_is_private_under_any_umask(tmp_path):
    """A program that reads `dagshub://` has the umask of its user; containers often have none."""
    old = os.umask(0)
    try:
        DiskStore(tmp_path / "cache/dagfs/hub", 1 << 20, Metrics()).close()
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("cache", "cache/dagfs", "cache/dagfs/hub")]
    assert modes == [0o700] * 3


def test_a_new_file_takes_nobodys_place(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("victim", "link", "dangling"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, "x")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    old = os.umask(0)
    try:
        write_new(tmp_path / "new", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_every_file_is_made_so_that_no_planted_one_is_used(tmp_path, monkeypatch):
    """Look at each open(2) of the store and the registry that may make a file."""
    from support.contents import dvc, noise

    from dagfs.proofs import prove
    from dagfs.store.handles import BLOCK

    made: dict[str, int] = {}
    real = os.open

    def watched(path, flags, *rest, **more):
        if flags & os.O_CREAT:
            made[os.path.relpath(path, tmp_path)] = flags
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    store = DiskStore(tmp_path / "cache", 1 << 30, Metrics())
    small, large = noise(1000), noise(BLOCK + 10, 1)
    store.put(dvc(small), small, prove(dvc(small), small))
    part = store.partial(dvc(large), len(large))
    part.write(0, large)
    part.publish()
    part.close()
    store.flush(20)
    store.close()
    Registry(tmp_path / "run").write("m", state())
    temporary = {path for path in made if "/tmp/" in path or path.endswith(".tmp") or "format-" in path}
    assert len(temporary) >= 4
    for path, flags in made.items():
        assert flags & os.O_NOFOLLOW, path
        assert flags & os.O_EXCL or path not in temporary, path
        assert flags & os.O_CLOEXEC, path


def state() -> MountState:
    return MountState("/m", "o/n", "h", None, "0" * 40, "kernel", "1", "serving", 1, (), 1, "l", "c", 1)


@as_root
def test_the_control_socket_hears_its_user_and_root_only(shared):
    shared.chmod(0o755)
    path = shared / "run" / "mount.sock"
    (shared / "run").mkdir()
    os.chown(shared / "run", NOBODY, NOBODY)
    ready, done = os.pipe(), os.pipe()

    def serve() -> None:
        server = ControlServer(path, {"ping": lambda _: [{"pong": True}]})
        path.parent.chmod(0o755)  # as if both guards before the last had failed
        path.chmod(0o666)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        server.close()

    def ping() -> None:
        assert list(ask(path, {"op": "ping"}, 5)) == [{"pong": True}]

    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            serve()
            status = 0
        finally:
            os._exit(status)
    try:
        os.read(ready[0], 1)
        assert run_as(NOBODY, ping) == 0
        ping()  # root
        assert run_as(SOMEBODY, ping) not in (0, 255)
        path.chmod(0o600)
        assert run_as(SOMEBODY, lambda: connect(path)) == 13
    finally:
        os.write(done[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        for end in (*ready, *done):
            os.close(end)


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))


@as_root
@pytest.mark.parametrize("private", [False, True])
def test_another_process_of_the_user_cannot_look_into_the_daemon(private):
    """Its environment may hold the token, its memory does."""
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        ctypes.CDLL(None).prctl(interpreter.PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after an exec; setuid has cleared it
        if private:
            interpreter.keep_memory_private()
        os.fork()  # a worker
        os.write(ready[1], b"x")
        time.sleep(20)
        os._exit(0)
    worker = 0
    try:
        os.read(ready[0], 1)
        worker = int(Path(f"/proc/{child}/task/{child}/children").read_text().split()[0])
        for pid in (child, worker):
            for name in ("environ", "mem"):
                status = run_as(NOBODY, lambda pid=pid, name=name: open(f"/proc/{pid}/{name}", "rb").close())
                assert status == (13 if private else 0), (pid, name)
            limits = Path(f"/proc/{pid}/limits").read_text()
            core = next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
            assert core == ["0", "0"] or not private
        assert Path(f"/proc/{child}/environ").read_bytes()  # root still can
    finally:
        for pid in filter(None, (worker, child)):
            os.kill(pid, 9)
        os.waitpid(child, 0)
        for end in ready:
            os.close(end)


def test_the_mounts_own_token_is_removed_from_the_log_whatever_it_stands_in(tmp_path):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        formatter = start_log(tmp_path / "logs" / "x.log")
        formatter.hide(lambda: [SECRET])
        logging.getLogger("x").error("a value: %r", {"k": SECRET})
        try:
            int(f"no such thing: {SECRET}")
        except ValueError:
            logging.getLogger("x").exception("failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    text = (tmp_path / "logs/x.log").read_text()
    assert SECRET not in text
    assert text.count("[redacted]") >= 2
    assert stat.S_IMODE((tmp_path / "logs/x.log").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["X-Goog-Signature", "sig", "Key-Pair-Id", "AWSAccessKeyId", "anything"])
def test_no_query_of_a_url_is_logged(name):
    record = logging.LogRecord(
        "x", logging.ERROR, "f", 1, f"GET 'https://store.test/o?a=1&{name}={SECRET}' failed", (), None
    )
    text = Redacting().format(record)
    assert SECRET not in text
    assert "https://store.test/o?[redacted]' failed" in text


def test_no_name_of_a_hub_can_forge_a_line_of_the_log_or_speak_to_a_terminal(tmp_path):
    name = "x\n2026-11-25 20:00:00,000 ERROR dagfs: forged\r\x1b[31m\u202e"
    try:
        {}[name]
    except KeyError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s failed", (name,), sys.exc_info())
    first, *others = Redacting().format(record).split("\n")
    assert first.endswith("x: x")
    assert len(others) > 3  # with a traceback
    assert all(line.startswith("\t") and line[1:].isprintable() for line in others)
    assert len(JsonLines().format(record).splitlines()) == 1


def test_a_token_file_may_be_rotated_under_the_log(tmp_path):
    path = tmp_path / "token"
    path.write_text("first-token")
    path.chmod(0o600)
    token = find_token(path, {}, tmp_path / "none", "https://hub.test", 0.0)
    formatter = Redacting()
    formatter.hide(token.known)
    line = logging.LogRecord("x", logging.ERROR, "f", 1, "first-token second-token", (), None)
    assert "first-token" not in formatter.format(line)
    path.write_text("second-token")
    assert token.current(at_once=True) == "second-token"
    assert "-token" not in formatter.format(line)  # whoever gave out the first may still take it
    path.write_text("second-token-and-more")
    assert token.current(at_once=True) == "second-token-and-more"
    longer = logging.LogRecord("x", logging.ERROR, "f", 1, "second-token-and-more", (), None)
    assert "-and-more" not in formatter.format(longer)
    for number in range(3 * KNOWN_MAX):
        path.write_text(f"token-{number}")
        assert token.current(at_once=True) == f"token-{number}"
    assert len(token.known()) == KNOWN_MAX + 1
