"""State files, control socket, background start, log redaction and sd_notify."""

import io
import json
import logging
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from dagfs.daemon.background import Herald, Outcome, detach, guarded
from dagfs.daemon.control import ControlServer, ask
from dagfs.daemon.logs import Redacting, start_log
from dagfs.daemon.notify import notify
from dagfs.daemon.plan import absolute, mount_id
from dagfs.daemon.state import MountState, Registry, alive, birth
from dagfs.errors import ProtocolError, UnknownRepository
from dagfs.model import printable


def state_of(pid: int, **changes: object) -> MountState:
    values = {
        "mountpoint": "/mnt/x",
        "repo": "o/n",
        "host": "http://h",
        "branch": "main",
        "commit": "0" * 40,
        "driver": "kernel",
        "version": "0",
        "state": "serving",
        "pid": pid,
        "workers": (pid,),
        "generation": 1,
        "log": "/l",
        "cache": "/c",
        "born": birth(pid),
    }
    return MountState(**{**values, **changes})


def test_a_state_file_is_read_back_as_it_was_written(tmp_path):
    registry = Registry(tmp_path / "run")
    registry.write("abc", state_of(os.getpid()))
    assert registry.names() == ["abc"]
    assert registry.read("abc") == state_of(os.getpid())
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_state_file_is_no_mount(tmp_path, text):
    registry = Registry(tmp_path)
    (tmp_path / "abc.json").write_text(text)
    assert registry.read("abc") is None


def test_a_reused_pid_is_not_taken_for_the_daemon():
    assert alive(state_of(os.getpid()))
    assert not alive(state_of(os.getpid(), born=birth(os.getpid()) - 1))


def test_a_zombie_is_not_alive():
    child = os.fork()
    if child == 0:
        time.sleep(0.2)
        os._exit(0)
    state = state_of(child)
    assert alive(state)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not alive(state)
    os.waitpid(child, 0)


def test_who_asks_the_control_socket_nonsense_or_nothing_holds_nothing(tmp_path, monkeypatch):
    """A thread each would be held for ever by programs that were stopped before they had asked."""
    monkeypatch.setattr("dagfs.daemon.control.QUESTION_SECONDS", 0.2)
    path, before = tmp_path / "mount.sock", threading.active_count()
    server = ControlServer(path, {"ping": lambda _: [{"pong": True}]})
    try:
        for question in (b"\n", b"[]\n", b'{"op":[]}\n', b"\xff\n", b"[" * 100_000 + b"\n"):
            assert b"not a request" in talk(path, question)
        silent = [connected(path) for _ in range(20)]
        deadline = time.monotonic() + 10
        while threading.active_count() > before + 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() == before + 1
        assert list(ask(path, {"op": "ping"}, 5)) == [{"pong": True}]
        for one in silent:
            assert one.recv(1) == b""
            one.close()
    finally:
        server.close()


def connected(path: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(str(path))
    channel.settimeout(5)
    return channel


def talk(path: Path, question: bytes) -> bytes:
    with connected(path) as channel:
        channel.sendall(question)
        return channel.makefile("rb").read()


def test_the_control_socket_answers_in_lines_even_under_a_long_path(tmp_path):
    path = tmp_path / ("d" * 120) / "mount.sock"

    def count(request):
        return ({"n": n} for n in range(request["to"]))

    def failing(request):
        raise ProtocolError("no sense")

    server = ControlServer(path, {"count": count, "fail": failing})
    try:
        assert list(ask(path, {"op": "count", "to": 3}, 5)) == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert list(ask(path, {"op": "fail"}, 5)) == [{"error": "no sense"}]
        assert "error" in next(ask(path, {"op": "unknown"}, 5))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        server.close()


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path):
    def breaking(request):
        yield {"n": 1}
        raise ZeroDivisionError("by zero")

    server = ControlServer(tmp_path / "s", {"break": breaking})
    try:
        assert list(ask(tmp_path / "s", {"op": "break"}, 5)) == [{"n": 1}, {"error": "ZeroDivisionError: by zero"}]
    finally:
        server.close()
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(tmp_path / "d"))
        dying.listen()

        def die():
            client, _ = dying.accept()
            with client:
                client.recv(100)
                client.sendall(b'{"n": 1}\n')

        threading.Thread(target=die).start()
        answers = ask(tmp_path / "d", {"op": "any"}, 5)
        assert next(answers) == {"n": 1}
        with pytest.raises(ConnectionError):
            next(answers)


def test_a_starter_that_has_gone_is_noticed():
    reading, writing = os.pipe()
    os.close(reading)
    assert not Herald(writing).say(Outcome(None))


def test_a_name_that_is_no_utf_8_or_no_line_is_logged_in_one_line(tmp_path):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        start_log(tmp_path / "log")
        logging.getLogger("x").error("a %s", "\udcff")
    finally:
        root.handlers, root.level = before
    assert "a \\udcff" in (tmp_path / "log").read_text()
    assert printable("a\nb\udcffé") == "a\\nb\\udcffé"


def test_the_starter_hears_that_the_daemon_serves(tmp_path):
    def daemon(herald: Herald) -> int:
        (tmp_path / "session").write_text(f"{os.getsid(0)}")
        herald.say(Outcome(None, detail="ready"))
        return 0

    assert detach(daemon) == Outcome(None, 0, "ready")
    assert int((tmp_path / "session").read_text()) != os.getsid(0)


def test_the_starter_hears_why_the_daemon_failed():
    def daemon(herald: Herald) -> int:
        raise UnknownRepository("no repository o/n")

    assert detach(daemon) == Outcome("no repository o/n", UnknownRepository.exit_status)


def test_a_daemon_that_dies_silently_is_a_failure():
    outcome = detach(lambda herald: os._exit(3))
    assert outcome.error
    assert outcome.status == 1


def test_an_unforeseen_error_is_one_line_too(caplog):
    said = []

    class Listening(Herald):
        def say(self, outcome: Outcome) -> None:
            said.append(outcome)

    def daemon(herald: Herald) -> int:
        raise ZeroDivisionError("by zero")

    assert guarded(daemon, Listening(None)) == 1
    assert said == [Outcome("ZeroDivisionError: by zero", 1)]


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("GET https://hub/raw/x?token=abcdef0123456789&y=1", "abcdef0123456789"),
        ("https://me:abcdef0123456789@hub/x", "abcdef0123456789"),
        ("https://s3/x?X-Amz-Signature=abcdef0123456789", "abcdef0123456789"),
    ],
)
def test_no_credential_reaches_the_log(line, secret):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Redacting())
    logger = logging.Logger("redaction")
    logger.addHandler(handler)
    logger.error("%s", line)
    assert "redacted" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_systemd_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
    assert not notify("READY=1", {})


def test_a_mount_point_is_named_as_the_kernel_names_it(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert absolute("link/m/") == tmp_path / "real" / "m"
    assert absolute("real/../real/m") == tmp_path / "real" / "m"
    assert absolute("link/../link/./m/n") == tmp_path / "real/m/n"
    (tmp_path / "far").symlink_to(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    assert absolute("far/m") == tmp_path / "real" / "m"
    assert absolute("loop/m") == tmp_path / "loop" / "m"
    assert absolute("/") == Path("/")
    assert mount_id(Path("/a")) != mount_id(Path("/b"))
    assert json.dumps(mount_id(Path("/a"))).isascii()
