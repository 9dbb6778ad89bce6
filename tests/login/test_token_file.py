"""The token file that dagfs shares with the DagsHub client: what is not ours keeps its bytes."""

from __future__ import annotations

import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dagfs.errors import UsageError
from dagfs.hub import client_tokens
from dagfs.hub.client_tokens import APP, NEVER, OAUTH, ClientTokens, Logins, StoredToken

HUB = "https://dagshub.com"
OURS = StoredToken("a1" * 20, NEVER, APP)
OTHERS = """\
# written by hand
http://127.0.0.1:8240:   # the test hub
  - {access_token: tok123, expiry: never, token_type: app-token}   # in one line
https://dagshub.com:
- access_token: '0000000000000000000000000000000000000001'
  expiry: '2030-12-22T20:42:59.123456Z'
  token_type: bearer
  scope: [read]     # a field that we do not know

# between the two
- access_token: e5e5
  expiry: never
  token_type: app-token
version: '1'
# the end"""


def file_with(tmp_path, text: str) -> ClientTokens:
    path = tmp_path / "dagshub" / "tokens"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return ClientTokens(path)


@pytest.mark.parametrize("text", [OTHERS, OTHERS.replace("\n", "\r\n"), yaml.safe_dump(yaml.safe_load(OTHERS))])
def test_other_entries_keep_every_byte_when_a_token_comes_and_goes(tmp_path, text):
    for host in (HUB, "https://new.example.org"):
        file = file_with(tmp_path, text)
        before = yaml.safe_load(text)
        file.add(host, OURS)
        after = yaml.safe_load(file.path.read_bytes())
        assert after[host][0]["access_token"] == OURS.access_token
        assert after == {**before, host: [after[host][0], *before.get(host, [])]}
        assert file.remove(host, lambda value: value == OURS.access_token) == 1
        assert file.path.read_bytes() == text.encode()


def test_a_new_file_is_as_the_client_writes_it(tmp_path):
    file = ClientTokens(tmp_path / "dagshub" / "tokens")
    file.add(HUB, OURS)
    written = {HUB: [{"access_token": OURS.access_token, "expiry": "never", "token_type": "app-token"}], "version": "1"}
    assert file.path.read_text() == yaml.dump(written)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(file.path.parent) == ["tokens"]


def test_a_host_whose_last_token_goes_is_no_empty_entry(tmp_path):
    """The client fails on a host without a list."""
    file = file_with(tmp_path, OTHERS)
    assert file.remove(HUB, lambda _: True) == 2
    assert HUB not in yaml.safe_load(file.path.read_text())
    assert "in one line}" in file.path.read_text() or "# in one line" in file.path.read_text()


def test_the_same_token_is_stored_once(tmp_path):
    file = file_with(tmp_path, OTHERS)
    file.add(HUB, OURS)
    before = file.path.read_bytes()
    file.add(HUB, OURS)
    assert file.path.read_bytes() == before


def test_a_text_that_is_written_otherwise_is_written_anew_with_all_it_says(tmp_path):
    other = {"access_token": "x", "expiry": "never", "token_type": "app-token"}
    file = file_with(tmp_path, f"{{'{HUB}': [{other}], 'version': '1'}}")
    file.add(HUB, OURS)
    assert yaml.safe_load(file.path.read_text())[HUB][1] == other


@pytest.mark.parametrize("text", ["[]", "3", "{unclosed", "https://dagshub.com: text", "version: '2'"])
def test_what_is_no_token_file_is_left_alone(tmp_path, text):
    file = file_with(tmp_path, text)
    with pytest.raises(UsageError):
        file.add(HUB, OURS)
    assert file.path.read_text() == text


def test_a_file_that_others_could_read_is_private_afterwards(tmp_path):
    file = file_with(tmp_path, OTHERS)
    file.path.chmod(0o644)
    file.add(HUB, OURS)
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path):
    file = file_with(tmp_path, OTHERS)
    link = ClientTokens(tmp_path / "link")
    link.path.symlink_to(file.path)
    link.add(HUB, OURS)
    assert link.path.is_symlink()
    assert OURS.access_token in file.path.read_text()


def test_what_the_client_writes_meanwhile_is_not_lost(tmp_path, monkeypatch):
    file = file_with(tmp_path, OTHERS)
    publish, left = client_tokens._publish, ["once"]

    def late(path, text, still):
        if left.pop() if left else False:
            path.write_text(OTHERS.replace("e5e5", "f6f6"))
        return publish(path, text, still)

    monkeypatch.setattr(client_tokens, "_publish", late)
    file.add(HUB, OURS)
    known = yaml.safe_load(file.path.read_text())[HUB]
    assert [entry["access_token"][:4] for entry in known] == ["a1a1", "0000", "f6f6"]


def test_a_disk_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    file = file_with(tmp_path, OTHERS)

    def fails(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        file.add(HUB, OURS)
    assert file.path.read_text() == OTHERS
    assert os.listdir(file.path.parent) == ["tokens"]


def test_only_hashes_of_our_tokens_are_remembered(tmp_path):
    logins = Logins(tmp_path / "state")
    logins.note(HUB, OURS.access_token)
    assert OURS.access_token not in (tmp_path / "state/logins.json").read_text()
    assert Logins(tmp_path / "state").ours(HUB)(OURS.access_token)
    assert not Logins(tmp_path / "state").ours("https://other.example.org")(OURS.access_token)


words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8)
entries = st.lists(
    st.fixed_dictionaries(
        {"access_token": words, "expiry": st.just("never"), "token_type": st.sampled_from([APP, OAUTH])}
    ),
    min_size=1,
    max_size=3,
)
documents = st.dictionaries(st.sampled_from([HUB, "http://a", "http://b:80"]), entries, max_size=3)


@settings(max_examples=60, deadline=None)
@given(document=documents, host=st.sampled_from([HUB, "http://a"]), block=st.booleans())
def test_whatever_is_there_means_the_same_with_one_token_more_and_again_without(
    tmp_path_factory, document, host, block
):
    text = yaml.safe_dump({**document, "version": "1"}, default_flow_style=None if block else False)
    file = file_with(tmp_path_factory.mktemp("tokens"), text)
    file.add(host, OURS)
    after = yaml.safe_load(file.path.read_text())
    assert after[host][1:] == document.get(host, [])
    file.remove(host, lambda value: value == OURS.access_token)
    assert yaml.safe_load(file.path.read_text()) == {**document, "version": "1"}
