"""Where the token comes from, and where it does not go."""

from __future__ import annotations

import os
import stat
from datetime import datetime, timezone

import pytest
import yaml
from support.users import NOBODY, SOMEBODY

from dagfs.errors import UsageError
from dagfs.hub import auth
from dagfs.hub.auth import _given_by_root, find_token, moment

HUB = "https://dagshub.com"
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc).timestamp()


@pytest.fixture
def client_tokens(tmp_path):
    """The DagsHub client's token file; write to it with `save`."""
    return tmp_path / "dagshub" / "tokens"


def save(path, document: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    path.chmod(0o600)


def entry(token: str, kind: str = "bearer", **more: object) -> dict[str, object]:
    return {"access_token": token, "token_type": kind, **more}


def found(environment, client_tokens, host=HUB, option=None):
    return find_token(option, environment, client_tokens, host, NOW).current()


def token_file(tmp_path, text: str, mode: int = 0o600):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_option_before_environment_before_the_clients_file_before_none(tmp_path, client_tokens):
    assert found({}, client_tokens) is None
    save(client_tokens, {HUB: [entry("from-client")], "version": "1"})
    assert found({}, client_tokens) == "from-client"
    assert found({"DAGSHUB_TOKEN": "env-2"}, client_tokens) == "env-2"
    environment = {"DAGSHUB_TOKEN": "env-2", "DAGSHUB_USER_TOKEN": " env-1\n"}
    assert found(environment, client_tokens) == "env-1"
    option = token_file(tmp_path, "from-file\n")
    assert found(environment, client_tokens, option=option) == "from-file"


def test_the_environments_token_is_for_its_own_host_only(client_tokens):
    environment = {"DAGSHUB_USER_TOKEN": "secret"}
    assert found(environment, client_tokens, "http://127.0.0.1:8080") is None
    assert found(environment, client_tokens, "http://dagshub.com") is None
    own = {**environment, "DAGSHUB_CLIENT_HOST": "http://127.0.0.1:8080/"}
    assert found(own, client_tokens, "http://127.0.0.1:8080") == "secret"
    assert found(own, client_tokens) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o444])
def test_a_token_file_that_others_can_read_is_refused_with_the_remedy(tmp_path, client_tokens, mode):
    path = token_file(tmp_path, "s3cret", mode)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        found({}, client_tokens, option=path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "two words", "line\nline", "caf\u00e9", "a\x00b"])
def test_a_token_file_without_a_token_is_refused(tmp_path, client_tokens, text):
    with pytest.raises(UsageError) as caught:
        found({}, client_tokens, option=token_file(tmp_path, text))
    assert "words" not in str(caught.value)


def test_a_token_that_cannot_stand_in_a_header_is_refused(client_tokens):
    with pytest.raises(UsageError, match="DAGSHUB_TOKEN"):
        found({"DAGSHUB_TOKEN": "a\r\nX-Evil: 1"}, client_tokens)


def test_a_missing_token_file_is_named(tmp_path, client_tokens):
    with pytest.raises(UsageError, match="nowhere"):
        found({}, client_tokens, option=tmp_path / "nowhere")


def test_long_lived_tokens_come_before_oauth_ones_and_expired_ones_never(client_tokens):
    save(client_tokens, {HUB: [entry("oauth"), entry("app", "app-token")], "version": "1"})
    assert found({}, client_tokens) == "app"
    dead = entry("dead", "app-token", expiry="2026-05-31T23:59:59.123456789Z")
    save(client_tokens, {HUB: [dead, entry("alive", expiry="2026-06-01T00:00:00.123456789Z")]})
    assert found({}, client_tokens) == "alive"
    save(client_tokens, {HUB: [dead]})
    assert found({}, client_tokens) is None


def test_an_expiry_that_yaml_reads_as_a_date_counts(client_tokens):
    save(client_tokens, f"{HUB}:\n- access_token: dead\n  expiry: 2026-01-01T00:00:00Z\n")
    assert found({}, client_tokens) is None


def test_the_clients_file_is_keyed_by_host_exactly(client_tokens):
    save(client_tokens, {HUB: [entry("public")], "http://127.0.0.1:8080": [entry("local")]})
    assert found({}, client_tokens, "http://127.0.0.1:8080") == "local"
    assert found({}, client_tokens, "http://127.0.0.1:8081") is None
    assert found({}, client_tokens, "https://dagshub.com.evil.test") is None


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "3",
        "{unclosed",
        f"{HUB}: 3",
        f"{HUB}: [3, {{}}]",
        f"{HUB}: [{{access_token: 3}}]",
        "!!python/name:os.system x",
        f"{HUB}: [{{access_token: x}}]\nversion: '2'",
        f"{HUB}: [{{access_token: 'a b'}}]",
    ],
)
def test_a_clients_file_that_makes_no_sense_is_no_token(client_tokens, document):
    save(client_tokens, document)
    assert found({}, client_tokens) is None


def test_the_clients_file_is_only_read(client_tokens):
    save(client_tokens, {HUB: [entry("dead", expiry="2020-01-01T00:00:00Z"), entry("x")], "version": "1"})
    before = (client_tokens.read_bytes(), client_tokens.stat().st_mtime_ns, os.listdir(client_tokens.parent))
    found({}, client_tokens)
    assert before == (client_tokens.read_bytes(), client_tokens.stat().st_mtime_ns, os.listdir(client_tokens.parent))


def test_a_rotated_token_is_picked_up_and_a_vanished_file_keeps_the_old_one(tmp_path, client_tokens, monkeypatch):
    monkeypatch.setattr(auth, "RECHECK_SECONDS", 0.0)
    path = token_file(tmp_path, "one")
    token = find_token(path, {}, client_tokens, HUB, NOW)
    new = tmp_path / "new"
    new.write_text("two")
    new.chmod(0o600)
    new.replace(path)
    assert token.current() == "two"
    path.unlink()
    assert token.current() == "two"
    token_file(tmp_path, "three", 0o644)
    assert token.current() == "two"
    path.chmod(0o600)
    assert token.current() == "three"


def test_a_token_that_appears_in_the_clients_file_is_picked_up(client_tokens, monkeypatch):
    monkeypatch.setattr(auth, "RECHECK_SECONDS", 0.0)
    token = find_token(None, {}, client_tokens, HUB, NOW)
    assert token.current() is None
    save(client_tokens, {HUB: [entry("new")]})
    assert token.current() == "new"


def test_the_file_is_not_looked_at_for_every_request(tmp_path, client_tokens):
    path = token_file(tmp_path, "one")
    token = find_token(path, {}, client_tokens, HUB, NOW)
    path.write_text("three")
    assert token.current() == "one"
    assert token.current(at_once=True) == "three"


def test_a_token_is_never_shown(tmp_path, client_tokens):
    token = find_token(None, {"DAGSHUB_TOKEN": "s3cret"}, client_tokens, HUB, NOW)
    assert "s3cret" not in f"{token} {token!r} {token.source}"
    assert "DAGSHUB_TOKEN" in repr(token)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T01:00:01.123456789+01:00", 1.123456),
        ("1970-01-01T00:00:01", 1.0),
        ("nonsense", None),
        ("", None),
    ],
)
def test_times_have_any_number_of_fraction_digits(text, seconds):
    assert moment(text) == (None if seconds is None else pytest.approx(seconds))


def huge(path):
    path.write_bytes(b"a" * (auth.MAX_FILE_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "not a regular file"),
        (huge, "more than"),
        (lambda path: path.symlink_to(path), "links"),
    ],
)
def test_what_is_no_file_of_a_token_is_refused_without_waiting(tmp_path, client_tokens, make, why):
    make(tmp_path / "token")
    if not (tmp_path / "token").is_symlink():
        os.chmod(tmp_path / "token", 0o700)
    with pytest.raises(UsageError, match=why):
        found({}, client_tokens, option=tmp_path / "token")
    assert found({}, tmp_path / "token") is None


def test_a_link_to_a_token_is_followed_as_kubernetes_makes_them(tmp_path, client_tokens):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/token").write_text("mounted-secret\n")
    (tmp_path / "..data/token").chmod(0o400)
    (tmp_path / "token").symlink_to("..data/token")
    assert found({}, client_tokens, option=tmp_path / "token") == "mounted-secret"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o660, 0o666])
def test_a_token_file_that_others_can_change_is_refused(tmp_path, client_tokens, mode):
    with pytest.raises(UsageError, match="chmod 600"):
        found({}, client_tokens, option=token_file(tmp_path, "s3cret", mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place, which only root can")
def test_a_token_file_of_another_user_is_refused_even_where_it_can_be_read(tmp_path, client_tokens, monkeypatch):
    """As by an ACL. Who owns it can change it, whatever its mode; root's are given to containers."""
    path = token_file(tmp_path, "s3cret")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert found({}, client_tokens, option=path) == "s3cret"  # root's
    os.chown(path, NOBODY, NOBODY)
    assert found({}, client_tokens, option=path) == "s3cret"
    os.chown(path, SOMEBODY, SOMEBODY)
    with pytest.raises(UsageError, match="belongs to user 65533"):
        found({}, client_tokens, option=path)


def test_aliases_in_the_clients_file_do_not_multiply(client_tokens):
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    save(client_tokens, f"a0: &a0 [{{access_token: x}}]\n{levels}version: *a8\n{HUB}: *a8\n")
    assert found({}, client_tokens) is None


def test_a_secret_that_root_lets_our_group_read_alone_is_taken(tmp_path, monkeypatch):
    """As Kubernetes gives it to a pod with an fsGroup."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    status = path.stat()

    def as_if(owner: int, group: int, mode: int) -> os.stat_result:
        return os.stat_result((stat.S_IFREG | mode, *status[1:4], owner, group, *status[6:]))

    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _given_by_root(as_if(0, 1000, 0o440))
    for owner, group, mode in ((0, 1000, 0o444), (0, 1000, 0o460), (0, 100, 0o440), (1000, 1000, 0o440)):
        assert not _given_by_root(as_if(owner, group, mode))
