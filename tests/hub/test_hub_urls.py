"""URLs: what a user may write, what a hub is asked, what may be shown."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagfs.errors import UsageError
from dagfs.hub import urls
from dagfs.hub.urls import Origin, check_host, encode, origin, parse_repo, redact, redact_proxy
from dagfs.model import RepoRef

HUB = "https://dagshub.com"


@pytest.mark.parametrize(
    ("argument", "host", "revision"),
    [
        ("o/n", HUB, None), ("o/n.git", HUB, None), ("o/n@main", HUB, "main"), ("o/n@a/b/c", HUB, "a/b/c"),
        ("o/n@v1@2", HUB, "v1@2"), ("https://dagshub.com/o/n", HUB, None), ("https://dagshub.com/o/n/", HUB, None),
        ("https://dagshub.com/o/n.git@v1", HUB, "v1"), ("HTTPS://DagsHub.com:443/o/n", HUB, None),
        ("http://127.0.0.1:8080/o/n@a/b", "http://127.0.0.1:8080", "a/b"),
        ("https://h/pre/fix/o/n", "https://h/pre/fix", None),
        ("http://[::1]:81/o/n", "http://[::1]:81", None), (" o/n ", HUB, None),
    ],
)  # fmt: skip
def test_a_repository_may_be_written_in_each_of_these_ways(argument, host, revision):
    assert parse_repo(argument, HUB) == (RepoRef(host, "o", "n"), revision)


@pytest.mark.parametrize(
    "argument",
    [
        "", "o", "o/n/x", "/o/n/x", "o/n@", "../n", "o/..", "o /n", "o/n?x=1", "https://h", "https://h/o", "ftp://h/o/n",
        "https://h/o/n?x=1", "https://h/o/n#x", "https://dagshub.com/o/n/src/main", "git@dagshub.com:o/n.git", "https://h:x/o/n",
        "https://h\\@e/o/n", "o/n\n/x", "https:///o/n",
    ],
)  # fmt: skip
def test_what_is_no_repository_is_a_usage_error_of_one_line(argument):
    with pytest.raises(UsageError) as caught:
        parse_repo(argument, HUB)
    assert "\n" not in str(caught.value)


def test_a_path_of_fsspec_is_told_from_an_unknown_scheme():
    with pytest.raises(UsageError, match="a path for fsspec; a mount takes OWNER/NAME"):
        parse_repo("dagshub://o/n/labels.csv", HUB)


def test_credentials_in_a_url_are_refused_and_not_repeated():
    for argument in ("https://user:s3cret@dagshub.com/o/n", "https://s3cret@h/o/n@main"):
        with pytest.raises(UsageError) as caught:
            parse_repo(argument, HUB)
        assert "s3cret" not in str(caught.value)


def test_a_default_host_may_have_a_path_prefix():
    assert parse_repo("o/n", "https://h/hub/") == (RepoRef("https://h/hub", "o", "n"), None)
    assert parse_repo("https://h/hub/o/n", "https://h/hub") == (RepoRef("https://h/hub", "o", "n"), None)


@pytest.mark.parametrize("host", ["h", "https://", "https://u:p@h", "https://h?x", "https://h/#x", "javascript://h"])
def test_a_host_that_is_none_is_refused(host):
    with pytest.raises(UsageError) as caught:
        check_host(host)
    assert "u:p" not in str(caught.value)


def test_urls_of_a_hub():
    repo = RepoRef("https://h/p", "o w", "n#")
    base = "https://h/p/api/v1/repos/o%20w/n%23"
    assert urls.repository(repo) == base
    assert urls.branch(repo, "a/b c") == f"{base}/branches/a/b%20c"
    assert urls.commit(repo, "v1.0") == f"{base}/commits/v1.0"
    assert urls.content(repo, "sha", "") == f"{base}/content/sha/"
    assert urls.content(repo, "sha", "a b/c", sized=True) == f"{base}/content/sha/a%20b/c?include_size=true"
    assert urls.raw(repo, "sha", "a+b%") == f"{base}/raw/sha/a%2Bb%25"


@given(st.binary(min_size=1).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_a_name_gives_its_own_bytes_back(name):
    encoded = encode(name)
    assert encoded.isascii()
    assert unquote_to_bytes(encoded) == name.encode("utf-8", "surrogateescape")
    assert not set(encoded) & set(" #?\n\r\t\\\"'<>&+")


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_no_name_breaks_the_encoding(name):
    assert encode(name).isascii()


def test_dot_segments_are_not_left_to_be_folded_away():
    assert encode("a/../b/./...") == "a/%2E%2E/b/%2E/..."


def test_what_is_shown_of_a_url_has_no_secret():
    assert redact("https://u:p@h/a/b?sig=1#f") == "https://h/a/b"
    assert redact("https://u:p@h?sig=1") == "https://h"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://u:s3cret@h:1",
        "u:s3cret@h:1",
        "HTTP://u:s3/c@r/et@h:1/",
        "socks5h://u:s3cret@h:1?s3cret#x",
        "u:s:/@/@h:1",
    ],
)
def test_what_is_shown_of_a_proxy_has_no_secret_however_it_is_written(proxy):
    shown = redact_proxy(proxy)
    assert shown.rstrip("/").rpartition("//")[2] == "h:1"
    assert proxy.startswith(shown.partition("h:1")[0])


def test_an_origin_is_scheme_host_and_port():
    assert origin("https://H.Test/x") == origin("https://h.test:443") == Origin("https", "h.test", 443)
    assert len({origin(url) for url in ("http://h", "https://h", "http://h:81", "http://g")}) == 4
    assert str(origin("http://h:80/x?y")) == "http://h"
    assert str(origin("http://h:81/x")) == "http://h:81"


@pytest.mark.parametrize(
    "url",
    [
        "http://u@h/",
        "http://h\\@e/",
        "http://h:0/",
        "http://h:65536/",
        "http://h e/",
        "//h/",
        "http://",
        "http://h\n/",
        "http://[::1",
    ],
)
def test_a_url_that_two_parsers_may_read_differently_has_no_origin(url):
    with pytest.raises(ValueError, match="URL"):
        origin(url)
