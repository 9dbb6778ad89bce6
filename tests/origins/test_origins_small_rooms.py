"""Where a remote is, when a way is left alone, and what a manifest may say."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contents import dvc

from dagfs.errors import AccessDenied, IntegrityError, NotFound, ProtocolError, RemoteUnavailable, UsageError
from dagfs.model import Kind, RepoRef
from dagfs.origins.addresses import (
    aws_files,
    find_remote,
    hub_url,
    own_url,
    remote_address,
    tier_address,
)
from dagfs.origins.breaker import BARREN, FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker
from dagfs.origins.bucket import Address, Bucket, _named
from dagfs.origins.manifests import listings
from dagfs.origins.memory import MemoryObjects
from dagfs.origins.remote import RemoteWay
from dagfs.origins.seam import Origin, Wanted

REPO = RepoRef("https://hub.test", "owner", "name")
MD5 = "0" * 32
CONFIG = """\
[core]
    remote = store
    autostage = true
['remote "store"']
    url = s3://bucket/dvc
    endpointurl = https://s3.test
    region = eu-west-1
['remote "nested"']
    url = remote://store/below
['remote "hub"']
    url = https://hub.test/owner/name.dvc
['remote "fork"']
    url = https://ada@hub.test/other/name.dvc
['remote "stranger"']
    url = https://elsewhere.test/owner/name.dvc
['remote "hubs3"']
    url = s3://dvc
    endpointurl = https://hub.test/owner/name.s3
['remote "azure"']
    url = azure://container/path
    account_name = ada
['remote "google"']
    url = gs://bucket/path
    credentialpath = /keys.json
    endpointurl = https://gcs.test
['remote "public"']
    url = s3://open/path
    allow_anonymous_login = true
"""


def test_an_error_of_a_store_names_no_signature() -> None:
    error = OSError(
        "Error performing GET https://store.test/c/k?sv=1&sig=c2VjcmV0 in 3ms - 403 Forbidden\n\nDebug source: x"
    )
    assert str(_named(error)) == "Error performing GET https://store.test/c/k in 3ms - 403 Forbidden"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("name", "url", "config"),
    [
        ("default", "s3://bucket/dvc", {"endpoint": "https://s3.test", "region": "eu-west-1"}),
        ("nested", "s3://bucket/dvc/below", {"region": "us-east-1"}),
        (
            "hubs3",
            "s3://dvc",
            {
                "endpoint": "https://hub.test/owner/name.s3",
                "access_key_id": "token",
                "secret_access_key": "token",
                "region": "us-east-1",
            },
        ),
        ("azure", "az://container/path", {"account_name": "ada"}),
        (
            "google",
            "gs://bucket/path",
            {"service_account": "/keys.json", "base_url": "https://gcs.test", "skip_signature": True},
        ),
        ("public", "s3://open/path", {"skip_signature": True, "region": "us-east-1"}),
    ],
)
def test_a_remote_of_dvc_config_becomes_a_store(tmp_path, name: str, url: str, config: dict) -> None:
    found = find_remote(CONFIG, name)
    address = remote_address(found, REPO, "token", {"HOME": str(tmp_path)})
    assert (address.url, dict(address.config)) == (url, config)
    assert "token" not in repr(address)


def test_the_hubs_token_goes_to_the_hub_only() -> None:
    urls = {name: hub_url(find_remote(CONFIG, name), REPO) for name in ("hub", "fork", "stranger", "store")}
    assert urls == {
        "hub": "https://hub.test/owner/name.dvc",
        "fork": "https://hub.test/other/name.dvc",
        "stranger": None,
        "store": None,
    }
    assert find_remote("", "default") is None
    assert own_url(REPO) == "https://hub.test/owner/name.dvc"


def test_the_users_secrets_belong_to_the_url_that_he_gave_them_for() -> None:
    """A commit that names the remote as the user does, with another URL, gets none of them."""
    mine = "['remote \"store\"']\n    url = {}\n    password = secret\n"
    config = "['remote \"store\"']\n    url = https://files.test/dvc\n"
    assert find_remote(config, "store", mine.format("https://files.test/dvc")).options["password"] == "secret"
    assert "password" not in find_remote(config, "store", mine.format("https://other.test/dvc")).options


def test_keys_of_the_environment_go_before_the_files_unless_a_profile_is_named(tmp_path) -> None:
    (tmp_path / ".aws").mkdir()
    text = "[{}]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    (tmp_path / ".aws/credentials").write_text(text.format("default", "first") + text.format("lab", "second"))
    (tmp_path / ".aws/config").write_text("[default]\nregion = eu-north-1\n[profile lab]\nregion = eu-south-1\n")
    home = {"HOME": str(tmp_path)}
    assert aws_files(home) == {"region": "eu-north-1", "access_key_id": "first", "secret_access_key": "s"}
    assert aws_files(home | {"AWS_ACCESS_KEY_ID": "k"}) == {"region": "eu-north-1"}
    assert aws_files(home | {"AWS_ACCESS_KEY_ID": "k"}, "lab")["access_key_id"] == "second"
    assert aws_files(home | {"AWS_PROFILE": "lab"})["region"] == "eu-south-1"
    assert tier_address("s3://b/p/", home).config["access_key_id"] == "first"


CONNECTION = "DefaultEndpointsProtocol=https;AccountName=ada;AccountKey=a2V5==;EndpointSuffix=core.windows.net"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CONNECTION, {"account_name": "ada", "account_key": "a2V5=="}),
        (
            CONNECTION.replace("windows.net", "chinacloudapi.cn"),
            {"account_name": "ada", "account_key": "a2V5==", "endpoint": "https://ada.blob.core.chinacloudapi.cn"},
        ),
        (
            "BlobEndpoint=https://ada.blob.core.windows.net/; SharedAccessSignature=sv=1&sig=x",
            {"account_name": "ada", "endpoint": "https://ada.blob.core.windows.net", "sas_key": "sv=1&sig=x"},
        ),
        ("nonsense", {}),
    ],
)
def test_a_connection_string_of_azure_is_taken_apart(text: str, found: dict) -> None:
    assert tier_address("az://c/p", {"AZURE_STORAGE_CONNECTION_STRING": text}).config == found


def test_keys_of_azures_environment_are_for_the_account_that_they_are_of() -> None:
    remote = find_remote("['remote \"r\"']\n    url = azure://c/p\n    account_name = bob\n", "r")
    names = {"AZURE_STORAGE_ACCOUNT": "bob", "AZURE_STORAGE_KEY": "k"}
    assert remote_address(remote, REPO, None, names).config == {"account_name": "bob", "account_key": "k"}
    strangers = {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION}
    assert remote_address(remote, REPO, None, strangers).config == {"account_name": "bob"}


@pytest.mark.parametrize("who", ["the commit", "the user"])
def test_a_server_that_only_a_commit_names_is_never_shown_who_the_user_is(who: str) -> None:
    """Google's clients send the key itself, and what Azure's sign is good at Azure as well."""
    plain = "['remote \"g\"']\n    url = gs://c/p\n['remote \"a\"']\n    url = azure://c/p\n"
    more = (
        "['remote \"g\"']\n    url = gs://c/p\n    endpointurl = https://x.test\n"
        "['remote \"a\"']\n    url = azure://c/p\n    connection_string = BlobEndpoint=https://ada.x.test\n"
    )
    config, users = (more, "") if who == "the commit" else (plain, more)
    found = {name: remote_address(find_remote(config, name, users), REPO, None, {}).config for name in "ga"}
    assert found["g"].get("skip_signature", False) == (who == "the commit")
    assert found["a"].get("endpoint") == (None if who == "the commit" else "https://ada.x.test")


def test_what_is_gone_already_leaves_nothing_else_behind(tmp_path: Path) -> None:
    """A lease that was taken over is gone when its first holder removes it, with others."""
    store = Bucket(Address(f"file://{tmp_path}"), writes=True)
    for key in ("leases/a", "leases/c"):
        store.create(key, b"me")
    store.remove([f"leases/{name}" for name in "abc"])
    assert list((tmp_path / "leases").iterdir()) == []


@pytest.mark.parametrize("url", ["ssh://host/x", "hdfs://host/x", "gdrive://x", "relative/path", ""])
def test_what_dagfs_does_not_speak_is_named(url: str) -> None:
    config = f"['remote \"r\"']\n    url = {url}\n"
    with pytest.raises(UsageError, match=r"remote r|no remote"):
        remote_address(find_remote(config, "r"), REPO, None, {})


@given(st.text(max_size=200))
def test_a_config_of_any_text_is_read_or_refused(text: str) -> None:
    try:
        find_remote(text, "default")
    except UsageError:
        pass


def test_a_way_that_fails_is_left_alone_longer_each_time_and_one_request_tries_again() -> None:
    clock = Clock()
    breaker = Breaker("way", clock=clock)
    for _ in range(FAILURES):
        assert breaker.allows()
        breaker.failed(RemoteUnavailable("down"))
    pause = FIRST_PAUSE
    while pause < LONGEST_PAUSE:
        assert not breaker.allows()
        assert breaker.report()["state"] == "resting"
        clock.now += pause + 1
        assert [breaker.allows(), breaker.allows()] == [True, False]
        breaker.failed(RemoteUnavailable("down"))
        pause *= 2
    clock.now += LONGEST_PAUSE + 1
    assert breaker.allows()
    breaker.hit(5)
    assert breaker.allows()
    assert breaker.report() == {
        "name": "way",
        "state": "in use",
        "why": "",
        "hits": 1,
        "misses": 0,
        "failures": FAILURES + 6,
        "wrong": 0,
        "bytes": 5,
        "manifests": 0,
    }


def test_a_refusal_is_enough_and_a_request_that_was_cancelled_says_nothing() -> None:
    clock = Clock()
    breaker = Breaker("way", clock=clock)
    breaker.failed(AccessDenied("no"))
    assert not breaker.allows()
    clock.now += FIRST_PAUSE + 1
    assert breaker.allows()
    breaker.given_up()
    assert breaker.allows()


def test_misses_end_a_remote_without_data_but_not_a_tier_that_is_being_filled() -> None:
    remote, tier = Breaker("remote"), Breaker("tier", fills=True)
    for breaker in (remote, tier):
        for _ in range(BARREN):
            breaker.failed(NotFound("x"))
    assert (remote.allows(), tier.allows()) == (False, True)


def test_wrong_bytes_count_and_do_not_end_a_way_at_once() -> None:
    breaker = Breaker("way")
    breaker.failed(IntegrityError("wrong"))
    assert breaker.allows()
    assert breaker.report()["wrong"] == 1


def manifest(*paths: str) -> bytes:
    return json.dumps([{"md5": MD5, "relpath": path} for path in paths]).encode()


def test_a_manifest_is_the_listing_of_every_directory_with_the_tracked_one_last() -> None:
    found = list(listings("top/data", manifest("a", "b/c", "b/d/e", "f/g/h/i")))
    names = {path: [(e.path, e.kind is Kind.DIRECTORY) for e in entries] for path, entries in found}
    assert names == {
        "top/data/b": [("top/data/b/d", True), ("top/data/b/c", False)],
        "top/data/b/d": [("top/data/b/d/e", False)],
        "top/data/f": [("top/data/f/g", True)],
        "top/data/f/g": [("top/data/f/g/h", True)],
        "top/data/f/g/h": [("top/data/f/g/h/i", False)],
        "top/data": [("top/data/b", True), ("top/data/f", True), ("top/data/a", False)],
    }
    assert found[-1][0] == "top/data"


@pytest.mark.parametrize("path", ["../x", "a/../b", "/etc/passwd", "a//b", "./a", "a/" * 300 + "b", "a/"])
def test_a_manifest_that_leads_elsewhere_is_refused_before_anything_is_shown(path: str) -> None:
    with pytest.raises(ProtocolError):
        next(listings("data", manifest("good/one", path)))


@given(st.binary(max_size=300))
def test_a_manifest_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    try:
        list(listings("data", data))
    except ProtocolError:
        pass


def test_a_remote_that_refuses_its_keys_is_connected_anew_with_those_of_then() -> None:
    """The hub's own S3 takes the token as its keys, and a token is replaced while a mount runs."""
    connected: list[Origin] = []

    def connect() -> Origin:
        connected.append(MemoryObjects())
        return connected[-1]

    way = RemoteWay("a test", connect)
    wanted = Wanted(dvc(b"x"), None)

    def ready() -> Origin | None:
        return way._ready(5)

    assert ready() is ready() is connected[0]
    way.failed(wanted, RemoteUnavailable("503"))
    assert ready() is connected[0]
    way.failed(wanted, AccessDenied("403"))
    assert ready() is connected[1]
    assert len(connected) == 2


def test_a_manifest_that_nobody_could_ask_for_lets_the_next_request_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """To connect takes longer than a listing waits, after a pause in which the remote was left alone."""
    monkeypatch.setattr("dagfs.origins.remote.COLLECT_SECONDS", 0.05)
    hold = threading.Event()

    def connect() -> Origin:
        hold.wait(20)
        return MemoryObjects()

    way, clock = RemoteWay("a test", connect), Clock()
    way.breaker = Breaker("a test", clock=clock)
    way.breaker.failed(AccessDenied("403"))
    clock.now += 3600
    assert way.breaker.allows()
    assert way.manifest(MD5) is None
    hold.set()
    assert way.breaker.allows()
