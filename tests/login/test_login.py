"""`dagfs login`, `logout` and `whoami` with a real hub, and the real DagsHub client on the same token file."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import FrameType

import pytest
import yaml
from support.commands import Home

from dagfs.devhub.oauth import Logins as HubLogins
from dagfs.errors import HubUnreachable, LoginFailed
from dagfs.hub import login as logging_in

TOKEN = "d" * 40  # of the fixture `hub`
CLIENT = """
import json, sys
from dagshub.auth import tokens
host, what, *words = sys.argv[1:]
if what == "get":
    token = tokens.get_token_object(host=host, fail_if_no_token=True)
    print(json.dumps([token.token_type, token.token_text]))
elif what == "add":
    tokens.add_app_token(words[0], host=host)
elif what == "oauth":
    tokens.add_oauth_token(host=host)
"""
BROWSER = """#!/bin/sh
exec {python} -c 'import sys, urllib.request as u
ask = u.Request(sys.argv[1], headers={{"Authorization": "Bearer {token}"}})
u.urlopen(ask, timeout=20).read()' "$1"
"""


@pytest.fixture
def browser(tmp_path: Path) -> str:
    """A browser whose user is logged in to the hub, and allows all that it asks."""
    script = tmp_path / "browser"
    script.write_text(BROWSER.format(python=sys.executable, token=TOKEN))
    script.chmod(0o755)
    return str(script)


def tokens_of(home: Home) -> Path:
    return home.root / "cache/dagshub/tokens"


def client(home: Home, host: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, host, *words], env=home.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def log_in_by_token(home: Home, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dagfs", "login", "--token"],
        input=token + "\n",
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_login_by_the_browser_serves_dagfs_and_the_dagshub_client(hub, home, browser):
    home.extra["BROWSER"] = browser
    told = home.run("login")
    assert f"logged in to {hub.host} as ada" in told.stdout
    assert "/login/oauth/authorize?state=" in told.stderr
    assert TOKEN not in told.stdout + told.stderr
    assert home.run("whoami").stdout.startswith(f"ada at {hub.host}, by the token of token file {tokens_of(home)}")
    assert json.loads(client(home, hub.host, "get")) == ["bearer", TOKEN]
    [entry] = yaml.safe_load(tokens_of(home).read_text())[hub.host]
    assert list(entry) == ["access_token", "expiry", "token_type"]
    assert tokens_of(home).stat().st_mode & 0o777 == 0o600


def test_what_the_dagshub_client_has_stored_is_used(hub, home, browser):
    client(home, hub.host, "add", TOKEN)
    tokens_of(home).chmod(0o600)
    assert home.run("whoami").stdout.startswith(f"ada at {hub.host}, by the token of token file")


def test_the_dagshub_client_logs_in_by_this_hub_and_dagfs_goes_on_with_its_token(hub, home, browser):
    home.extra["BROWSER"] = browser
    client(home, hub.host, "oauth")
    assert home.run("whoami").stdout.startswith("ada at ")


def test_over_ssh_the_page_is_printed_and_no_browser_opened(hub, home, tmp_path):
    home.extra |= {"SSH_CONNECTION": "a b c d", "DISPLAY": ":99"}
    command = [sys.executable, "-m", "dagfs", "login"]
    with subprocess.Popen(command, env=home.environment(), stderr=subprocess.PIPE, text=True) as waiting:
        try:
            url = next(line.strip() for line in waiting.stderr if "/login/oauth/" in line)
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
            urllib.request.urlopen(request, timeout=20).read()
            assert waiting.wait(30) == 0
        finally:
            waiting.kill()
    assert home.run("whoami").stdout.startswith("ada at ")


def test_ctrl_c_ends_the_waiting_without_a_word_too_many_and_stores_nothing(hub, home):
    home.extra["SSH_CONNECTION"] = "a b c d"
    command = [sys.executable, "-m", "dagfs", "login"]
    with subprocess.Popen(command, env=home.environment(), stderr=subprocess.PIPE, text=True) as waiting:
        try:
            while "Ctrl-C" not in waiting.stderr.readline():
                pass
            await_waiting()
            waiting.send_signal(signal.SIGINT)
            assert waiting.stderr.read() == "\ndagfs: interrupted; nothing was stored\n"
            assert waiting.wait(10) == 130
        finally:
            waiting.kill()
    assert not tokens_of(home).exists()


def await_waiting() -> None:
    """Wait until a thread of the hub holds somebody who waits for a login."""
    deadline = time.monotonic() + 20
    while "in _middleman" not in "".join(map(stack, sys._current_frames().values())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame))


def test_nobody_is_let_in_by_the_page_without_the_hubs_password(hub):
    with closing(logging_in.Hub(hub.host, {})) as one:
        request = one.begin()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request.url, timeout=20)
        with pytest.raises(LoginFailed, match="nobody allowed"):
            one.finish(request, seconds=0.2)


def allow(request: logging_in.Request) -> None:
    asked = urllib.request.Request(request.url, headers={"Authorization": f"Bearer {TOKEN}"})
    urllib.request.urlopen(asked, timeout=20).read()


def test_a_code_is_good_for_one_token_of_its_own_login(hub):
    with closing(logging_in.Hub(hub.host, {})) as one:
        request = one.begin()
        allow(request)
        code = one._code(request, 5)
        form = {"client_id": request.client_id, "code": code, "state": "another"}
        assert one._rest.post(f"{hub.host}/login/oauth/access_token", form).status == 401
        assert one._rest.post(f"{hub.host}/login/oauth/access_token", form | {"state": request.state}).status == 401


def test_a_gateway_that_cuts_the_waiting_is_asked_again(hub, monkeypatch):
    monkeypatch.setattr(logging_in, "HELD_SECONDS", 0.0)
    monkeypatch.setattr(hub._api._front.logins, "_seconds", 0.05)  # the hub itself gives up with 504 then
    with closing(logging_in.Hub(hub.host, {})) as one, ThreadPoolExecutor(1) as threads:
        request = one.begin()
        token = threads.submit(one.finish, request, 20)
        while hub.requests.count("login") < 3:
            time.sleep(0.01)
        allow(request)
        assert token.result(20).access_token == TOKEN


def test_a_hub_that_refuses_to_let_us_wait_is_an_error_at_once(hub, monkeypatch):
    monkeypatch.setattr(hub._api._front.logins, "_seconds", 0.0)
    with closing(logging_in.Hub(hub.host, {})) as one, pytest.raises(HubUnreachable, match="wait for the login"):
        one.finish(one.begin(), seconds=60)


def test_a_token_comes_from_standard_input_and_is_never_shown(hub, home):
    done = log_in_by_token(home)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert json.loads(client(home, hub.host, "get")) == ["app-token", TOKEN]


def test_a_token_is_asked_for_on_a_terminal_without_showing_it(hub, home):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "dagfs", "login", "--token"], home.environment())
    shown = b""
    while b"Token: " not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, TOKEN.encode() + b"\n")
    try:
        while part := os.read(terminal, 1024):
            shown += part
    except OSError:  # the terminal's other end was closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"logged in" in shown
    assert TOKEN.encode() not in shown


@pytest.mark.parametrize("token", ["wrong" * 8, "", "two words"])
def test_a_token_that_the_hub_does_not_accept_is_not_stored(home, token):
    log_in_by_token(home)
    before = tokens_of(home).read_bytes()
    done = log_in_by_token(home, token)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert tokens_of(home).read_bytes() == before


def test_logout_leaves_what_others_have_stored(hub, home):
    client(home, hub.host, "add", TOKEN)
    tokens_of(home).chmod(0o600)
    before = tokens_of(home).read_bytes()
    hub.gate.token = "e" * 40
    assert log_in_by_token(home, "e" * 40).returncode == 0
    told = home.run("logout")
    assert told.stdout.startswith("1 token of")
    assert "1 token that other programs have stored" in told.stderr
    assert tokens_of(home).read_bytes() == before
    assert home.run("logout", "--all").stdout.startswith("1 token of")
    assert hub.host not in tokens_of(home).read_text()
    assert home.run("whoami", check=False).returncode == 1


def test_whoami_says_where_the_token_comes_from(hub, home, tmp_path):
    nobody = home.run("whoami", check=False)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "`dagfs login`" in nobody.stderr
    helper = f"!f() {{ echo username=ada; echo password={TOKEN}; }}; f"
    home.extra |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper", "GIT_CONFIG_VALUE_0": helper}
    assert home.run("whoami").stdout == f"ada at {hub.host}, by the token of git's credential helper\n"
    log_in_by_token(home)
    assert "token file" in home.run("whoami").stdout
    home.extra["DAGSHUB_USER_TOKEN"] = TOKEN
    assert home.run("whoami").stdout == f"ada at {hub.host}, by the token of environment variable DAGSHUB_USER_TOKEN\n"
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    assert home.run("whoami", "--token-file", file).stdout == f"ada at {hub.host}, by the token of file {file}\n"


def test_a_dead_token_is_told_with_its_source(hub, home):
    home.extra["DAGSHUB_USER_TOKEN"] = "f" * 40
    done = home.run("whoami", check=False)
    assert done.returncode == 5
    assert "it is that of environment variable DAGSHUB_USER_TOKEN" in done.stderr
    assert "f" * 40 not in done.stderr


def test_a_password_that_git_keeps_is_no_token(home):
    helper = "!f() { echo username=ada; echo password=correct-horse; }; f"
    home.extra |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper", "GIT_CONFIG_VALUE_0": helper}
    assert home.run("whoami", check=False).returncode == 1


def test_login_says_when_another_token_comes_first(hub, home):
    home.extra["DAGSHUB_TOKEN"] = "f" * 40
    done = log_in_by_token(home)
    assert "environment variable DAGSHUB_TOKEN, which comes first" in done.stderr


def test_a_private_repository_is_mounted_after_a_login(hub, home, tmp_path):
    (tmp_path / "data").mkdir()
    refused = home.run("mount", hub.url, tmp_path / "data", check=False)
    assert refused.returncode == 3
    log_in_by_token(home)
    with home.mounted(hub.url, tmp_path / "data") as data:
        assert (data / "a.txt").read_bytes() == b"hello"


def test_who_waits_at_a_hub_that_stops_is_sent_away(hub):
    logins = HubLogins(hub.gate)
    logins.close()
    with pytest.raises(Exception, match="nobody has allowed it"):
        logins._middleman(type("E", (), {"request": type("R", (), {"body": b"request_id=1"})})())
