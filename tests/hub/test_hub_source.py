"""The hub as a source: revisions, listings and descriptions in every variant that a hub may answer with."""

from __future__ import annotations

import gzip
import json
import threading

import pytest
from support.scripted_hub import Answer

from dagfs.errors import (
    AccessDenied,
    BadToken,
    HubUnreachable,
    NotADirectory,
    NotFound,
    ProtocolError,
    RemoteUnavailable,
    Stalled,
    UnknownRepository,
    UnknownRevision,
    UsageError,
)
from dagfs.hub import retry
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.hub.curl import streams
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, RefKind, RepoRef, Span, Versioning

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
COMMIT = Commit(SHA, 0.0)
REPO = "/api/v1/repos/owner/name"
LISTING = f"{REPO}/content/{SHA}/"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


def page(value: object) -> Answer:
    return Answer(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def commit(sha: str = SHA, **more: object) -> dict[str, object]:
    return {"commit": {"id": sha, "message": "m", **more}}


def row(path: str, **more: object) -> dict[str, object]:
    return {
        "path": path,
        "type": "file",
        "size": 0,
        "hash": "",
        "versioning": "git",
        "download_url": "https://x",
        **more,
    }


def listed(source, path: str = "", *, sized: bool = False) -> list[Entry]:
    return [entry for batch in source.list_directory(COMMIT, path, sized=sized) for entry in batch]


def paths(source, path: str = "") -> list[str]:
    return [entry.path for entry in listed(source, path)]


# Revisions


def test_the_hub_is_a_source(source):
    checked: Source = source
    assert checked is source


def test_no_revision_is_the_default_branch(hub, source):
    hub.on(REPO, page({"default_branch": "master", "empty": False}))
    hub.on(f"{REPO}/branches/master", page({"name": "master", **commit(timestamp="2021-08-10T09:03:32.123456789Z")}))
    resolved = source.resolve(None)
    assert (resolved.sha, resolved.branch) == (SHA, "master")
    assert resolved.time == pytest.approx(1628586212.123456)


@pytest.mark.parametrize("name", ["main", "feature/with/slashes", "deadbeef", "a#b c%"])
def test_a_branch_comes_first_where_nobody_says_what_is_meant(hub, source, name):
    encoded = name.replace("%", "%25").replace("#", "%23").replace(" ", "%20")
    hub.on(f"{REPO}/branches/{encoded}", page(commit()))
    hub.on(f"{REPO}/commits/{encoded}", page(commit(OTHER)))
    assert source.resolve(name) == Commit(SHA, 0.0, name)


@pytest.mark.parametrize("name", ["same", "f" * 40])
def test_a_branch_and_a_tag_or_commit_of_one_name_are_told_apart(hub, source, name):
    hub.on(f"{REPO}/branches/{name}", page(commit()))
    hub.on(f"{REPO}/commits/{name}", page(commit(OTHER)))
    assert source.resolve(name, RefKind.BRANCH) == Commit(SHA, 0.0, name)
    assert source.resolve(name, RefKind.COMMIT) == Commit(OTHER, 0.0, None)


def test_a_full_sha_is_that_commit_whatever_a_branch_is_called(hub, source):
    hub.on(f"{REPO}/branches/{OTHER}", page(commit()))
    hub.on(f"{REPO}/commits/{OTHER}", page(commit(OTHER)))
    assert source.resolve(OTHER).sha == OTHER
    hub.on(f"{REPO}/branches/{'e' * 40}", page(commit()))
    assert source.resolve("e" * 40) == Commit(SHA, 0.0, "e" * 40)


def test_a_tag_is_no_branch(hub, source):
    hub.on(REPO, page({"default_branch": "master", "empty": False}))
    hub.on(f"{REPO}/commits/v1", page(commit(OTHER)))
    with pytest.raises(UnknownRevision, match="no branch 'v1'"):
        source.resolve("v1", RefKind.BRANCH)


@pytest.mark.parametrize("ref", ["v1.0", "release/1", "0123456", SHA])
def test_what_is_no_branch_is_a_tag_or_a_sha(hub, source, ref):
    hub.on(f"{REPO}/commits/{ref}", page({**commit(timestamp="2021-08-10T09:03:32Z"), "files": []}))
    assert source.resolve(ref) == Commit(SHA, 1628586212.0, None)


def test_a_missing_revision_differs_from_a_missing_repository(hub, source):
    with pytest.raises(UnknownRepository):
        source.resolve("nope")
    with pytest.raises(UnknownRepository):
        source.resolve(None)
    hub.on(REPO, page({"default_branch": "main"}))
    with pytest.raises(UnknownRevision, match="nope"):
        source.resolve("nope")


def test_an_empty_repository_has_no_revision(hub, source):
    hub.on(REPO, page({"default_branch": "main", "empty": True}))
    with pytest.raises(UnknownRevision):
        source.resolve(None)


def test_401_is_a_bad_token_and_403_no_access(hub, source):
    hub.on(REPO, Answer(401))
    with pytest.raises(BadToken) as caught:
        source.resolve(None)
    assert "s3cret-token" not in str(caught.value)
    hub.on(REPO, Answer(403))
    with pytest.raises(UnknownRepository):
        source.resolve(None)


def test_401_without_a_token_asks_for_one(hub):
    source = connect(RepoRef(hub.url, "owner", "name"), Token("nowhere", None), Metrics(), {})
    hub.on(REPO, Answer(401))
    with pytest.raises(UnknownRepository, match="token"):
        source.resolve(None)
    source.close()
    assert "authorization" not in hub.asked[0].headers


def test_a_hub_that_fails_is_asked_again_and_then_unreachable(hub, source):
    hub.on(REPO, Answer(503), Answer(500), page({"default_branch": "main"}))
    hub.on(f"{REPO}/branches/main", page(commit()))
    assert source.resolve(None).sha == SHA
    hub.on(REPO, Answer(502))
    with pytest.raises(HubUnreachable, match="502"):
        source.resolve(None)


@pytest.mark.parametrize(
    "answer", [Answer(body=b"<html>"), page([]), page({"commit": {"id": "short"}}), page({"commit": 3})]
)
def test_a_branch_that_makes_no_sense_is_an_unusable_answer(hub, source, answer):
    hub.on(f"{REPO}/branches/main", answer)
    with pytest.raises(HubUnreachable):
        source.resolve("main")


def test_nobody_listening_is_unreachable_and_the_text_is_short():
    source = connect(RepoRef("http://127.0.0.1:9", "owner", "name"), Token("a test", "s3cret-token"), Metrics(), {})
    with pytest.raises(HubUnreachable) as caught:
        source.resolve(None)
    source.close()
    assert "refused" in str(caught.value)
    assert "object at 0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_renamed_repository_is_followed_and_another_origin_is_not(hub, elsewhere, source):
    hub.on(REPO, Answer(301, headers={"Location": "/api/v1/repos/owner/new"}))
    hub.on("/api/v1/repos/owner/new", page({"default_branch": "main"}))
    hub.on(f"{REPO}/branches/main", Answer(302, headers={"Location": elsewhere.url + "/x?secret=1"}))
    with pytest.raises(HubUnreachable, match=elsewhere.url) as caught:
        source.resolve(None)
    assert not elsewhere.asked
    assert "secret=1" not in str(caught.value)


def test_whoami_is_the_login_or_a_bad_token(hub, source):
    hub.on("/api/v1/user", page({"id": 5, "login": "Dean", "username": "Dean"}), Answer(401))
    assert source.whoami() == "Dean"
    with pytest.raises(BadToken):
        source.whoami()


def test_missing_certificates_are_named_before_anything_is_asked():
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        connect(RepoRef("https://h", "o", "n"), Token("a test", None), Metrics(), {"SSL_CERT_FILE": "/nonexistent"})


# Listings


def test_a_listing_has_names_kinds_and_hashes(hub, source):
    md5 = "79fb7f8632d7e15b3b46a7411d08bcdd"
    rows = [
        row("a.txt", versioning="dvc", hash=md5), row("d", type="dir", hash=f"{md5}.dir", versioning="dvc"),
        row("link", type="symlink"), row("sub", type="submodule"),
        row("odd", type="whatever", versioning="new", hash=None),
        row(".dagshub/storage/s3/bucket", type="storage"), row("bucket", type="storage"), {"path": "bare"},
    ]  # fmt: skip
    hub.on(LISTING, page(rows))
    assert listed(source) == [
        Entry("a.txt", Kind.FILE, Versioning.DVC, md5),
        Entry("d", Kind.DIRECTORY, Versioning.DVC, f"{md5}.dir"),
        Entry("link", Kind.SYMLINK, Versioning.GIT),
        Entry("sub", Kind.DIRECTORY, Versioning.GIT),
        Entry("odd", Kind.FILE, Versioning.GIT),
        Entry("bare", Kind.FILE, Versioning.GIT),
        Entry(".dagshub", Kind.DIRECTORY, Versioning.BUCKET),
    ]


def test_zero_is_a_size_only_where_sizes_were_asked_for(hub, source):
    rows = [row("a", size=0), row("b", size=7), row("d", type="dir", size=0), {"path": "c"}, row("e", size=-1)]
    hub.on(LISTING, page(rows))
    hub.on(f"{LISTING}?include_size=true", page(rows))
    assert [entry.size for entry in listed(source)] == [None, 7, None, None, None]
    assert [entry.size for entry in listed(source, sized=True)] == [0, 7, None, None, None]


@pytest.mark.parametrize("body", [b"[]", b" [ ]\n", b"null", b"\xef\xbb\xbf[]", b'{"entries":null}', b'{"entries":[]}'])
def test_a_directory_may_be_empty(hub, source, body):
    hub.on(LISTING, Answer(body=body))
    assert listed(source) == []


def test_entries_of_other_directories_are_left_to_the_tree_to_hide(hub, source):
    rows = [row("d"), row("d/a"), row("d/x/deep"), row("e"), row("dd/a"), row("d/b/", type="dir"), row("../x"), row("")]
    hub.on(f"{LISTING}d", page(rows))
    assert paths(source, "d") == ["d/a", "d/x/deep", "e", "dd/a", "d/b", "../x", ""]


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("a b", "a%20b"), (" x ", "%20x%20"), ("#?%+&", "%23%3F%25%2B%26"), ('"\'', "%22%27"), ("a\nb", "a%0Ab"),
        ("a\\b", "a%5Cb"), ("😀é", "%F0%9F%98%80%C3%A9"), ("e\u0301", "e%CC%81"), ("\udcff", "%FF"),
        ("a:b", "a%3Ab"), ("...", "..."),
    ],
)  # fmt: skip
def test_odd_names_are_asked_for_as_they_are(hub, source, sink_type, name, encoded):
    hub.on(f"{LISTING}d/{encoded}", page([row(f"d/{name}/x")]))
    raw = f"{REPO}/raw/{SHA}/d/{encoded}"
    hub.on(raw, Answer(body=b"bytes"))
    assert paths(source, f"d/{name}") == [f"d/{name}/x"]
    sink = sink_type()
    source.open(COMMIT, Entry(f"d/{name}", Kind.FILE, Versioning.GIT), None, sink)
    assert sink.error is None
    assert hub.count(raw) == 1


@pytest.mark.parametrize("path", ['"\\ud800"', '"\\udc80x"', '"\udcff"'])
def test_names_that_are_not_unicode_do_not_break_their_neighbours(hub, source, path):
    hub.on(LISTING, Answer(body=f'[{{"path":{path}}},{{"path":"ok"}}]'.encode("utf-8", "surrogateescape")))
    assert paths(source)[1] == "ok"
    assert len(paths(source)) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[", b'[{"path":"a"}', b'[{"path":"a"},]', b'[{"path":"a"}]]', b'[{"path":"a"}]{',
        b'[{"path":3}]',
        b'[{"type":"file"}]', b'["a"]', b"3", b'"x"', b"{}", b'{"path":', b'[{"path":"a","x":' + b"[" * 100_000,
        b'{"entries":3}', b'{"entries":[{"path":"a"}],"next_token":[]}', b'[{"path":"a","size":"big"}]', b"nul",
        b"nullx",
    ],
)  # fmt: skip
def test_a_listing_that_makes_no_sense_is_a_protocol_error(hub, metrics, source, body, monkeypatch):
    monkeypatch.setattr(source, "_patience", 0.0)
    hub.on(LISTING, Answer(body=body))
    with pytest.raises(ProtocolError):
        listed(source)


def test_a_packed_listing_is_read(hub, source):
    packed = gzip.compress(json.dumps([row(f"f{i}") for i in range(5000)]).encode())
    hub.on(LISTING, Answer(body=packed, headers={"Content-Encoding": "gzip"}))
    assert len(listed(source)) == 5000


@pytest.mark.parametrize("end", [{}, {"next_token": None}, {"next_token": ""}])
def test_pages_follow_one_another_until_no_token(hub, source, end):
    hub.on(f"{LISTING}d", page({"entries": [row("d"), row("d/a")], "limit": 100, "next_token": "t/1="}))
    hub.on(f"{LISTING}d?paging=true&from_token=t%2F1%3D", page({"entries": [row("d/b")], **end}))
    assert paths(source, "d") == ["d/a", "d/b"]


def test_pages_that_go_round_in_a_circle_end(hub, source, monkeypatch):
    monkeypatch.setattr(source, "_patience", 0.0)
    hub.on(LISTING, page({"entries": [row("a")], "next_token": "t"}))
    hub.on(f"{LISTING}?paging=true&from_token=t", page({"entries": [row("b")], "next_token": "t"}))
    with pytest.raises(ProtocolError):
        listed(source)
    assert hub.count(f"{LISTING}?paging=true&from_token=t") <= 2


def test_a_file_listed_is_not_a_directory(hub, source):
    hub.on(f"{LISTING}a.txt", page(row("a.txt")))
    with pytest.raises(NotADirectory):
        listed(source, "a.txt")


@pytest.mark.parametrize(
    ("status", "kind", "requests"), [(404, NotFound, 2), (401, AccessDenied, 1), (403, AccessDenied, 2)]
)
def test_refusals_are_final(hub, source, status, kind, requests):
    """After a 401 the hub is not asked with that token again at once: the token is wrong, not the path."""
    hub.on(f"{LISTING}d", Answer(status))
    with pytest.raises(kind):
        listed(source, "d")
    with pytest.raises(kind):
        source.describe(COMMIT, "d", sized=False)
    assert hub.count(f"{LISTING}d") == requests


def test_a_listing_is_asked_for_again_after_a_failure(hub, source, metrics):
    hub.on(LISTING, Answer(503), Answer(body=b"[", cut=0), page([row("a")]))
    assert paths(source) == ["a"]
    assert metrics.snapshot()["hub.retries.listing"] == 2


def test_a_listing_that_never_comes_ends_with_its_error(hub, source):
    hub.on(LISTING, Answer(503))
    with pytest.raises(RemoteUnavailable, match="503"):
        listed(source)


def test_an_answer_that_makes_no_sense_is_asked_for_three_times(hub, source):
    hub.on(LISTING, Answer(body=b"<html>"))
    with pytest.raises(ProtocolError):
        listed(source)
    assert hub.count(LISTING) == 3


@pytest.mark.parametrize("stall_after", [1.0])
def test_a_silent_listing_is_stalled(hub, source, monkeypatch):
    monkeypatch.setattr(source, "_patience", 0.0)
    gate = threading.Event()
    hub.on(LISTING, Answer(body=b"[]", gate=gate))
    with pytest.raises(Stalled):
        listed(source)
    gate.set()


def test_entries_that_were_given_out_are_not_given_again(hub, source):
    whole = json.dumps([row(f"f{i:06}") for i in range(20_000)]).encode()
    hub.on(LISTING, *(Answer(body=whole, cut=len(whole) * n // 4) for n in (1, 3, 2)), Answer(body=whole))
    assert paths(source) == [f"f{i:06}" for i in range(20_000)]
    assert hub.count(LISTING) == 4


def test_a_listing_that_differs_at_the_second_try_is_an_error(hub, source):
    first = json.dumps([row(f"f{i:06}") for i in range(5000)]).encode()
    for second in ([row(f"g{i:06}") for i in range(5000)], [row("f000000")]):
        hub.on(LISTING, Answer(body=first, cut=len(first) // 2), page(second))
        seen = []
        with pytest.raises(ProtocolError):
            seen.extend(batch for batch in source.list_directory(COMMIT, "", sized=False))


def test_a_reader_that_leaves_early_ends_the_transfer(hub, source, metrics):
    whole = json.dumps([row(f"f{i:06}") for i in range(200_000)]).encode()
    hub.on(LISTING, Answer(body=whole))
    batches = source.list_directory(COMMIT, "", sized=False)
    assert next(batches)[0].path == "f000000"
    batches.close()
    source.close()
    assert metrics.snapshot()["hub.listing_bytes"] < len(whole) // 2


@pytest.mark.parametrize("stall_after", [1.0])
def test_a_slow_reader_makes_the_network_wait(hub, source, metrics, monkeypatch):
    monkeypatch.setattr(streams, "HIGH_BYTES", 100_000)
    whole = json.dumps([row(f"f{i:06}") for i in range(200_000)]).encode()
    hub.on(LISTING, Answer(body=whole))
    batches = source.list_directory(COMMIT, "", sized=False)
    first = next(batches)
    threading.Event().wait(1.5)  # longer than the inactivity deadline
    exchange = next(iter(source._transport._lanes.values())).running
    assert [e.received < len(whole) // 4 for e in exchange.values()] == [True]
    assert len(first) + sum(len(batch) for batch in batches) == 200_000


# Descriptions


def test_a_file_is_described_by_an_object(hub, source):
    hub.on(f"{LISTING}a.txt", page(row("a.txt", versioning="dvc", hash="0" * 32)))
    hub.on(f"{LISTING}a.txt?include_size=true", page(row("a.txt", size=0)))
    assert source.describe(COMMIT, "a.txt", sized=False) == Entry("a.txt", Kind.FILE, Versioning.DVC, "0" * 32)
    assert source.describe(COMMIT, "a.txt", sized=True).size == 0


def test_a_file_called_entries_is_a_file(hub, source):
    hub.on(f"{LISTING}x", Answer(body=b'{"path":"x","note":"\\"entries\\":","entries":3}'))
    assert source.describe(COMMIT, "x", sized=False).kind is Kind.FILE


def test_the_root_is_described_without_asking(hub, source):
    assert source.describe(COMMIT, "", sized=True).kind is Kind.DIRECTORY
    assert not hub.asked


@pytest.mark.parametrize("body", [b"[]", b"null", b'[{"path":"d/a"}]', b'{"entries":[]}', b'{"path":"d","type":"dir"}'])
def test_a_directory_is_described_as_one(hub, source, body):
    hub.on(f"{LISTING}d", Answer(body=body))
    assert source.describe(COMMIT, "d", sized=False) == Entry("d", Kind.DIRECTORY, Versioning.GIT)


def test_describing_a_giant_directory_does_not_read_it(hub, source, metrics):
    gate = threading.Event()
    whole = json.dumps([row(f"d/f{i:06}") for i in range(100_000)]).encode()
    hub.on(f"{LISTING}d", Answer(body=whole, gate=gate, before_gate=1000))
    assert source.describe(COMMIT, "d", sized=False).kind is Kind.DIRECTORY
    gate.set()
    deadline = threading.Event()
    while "hub.listing_bytes" not in metrics.snapshot():
        deadline.wait(0.01)
    assert metrics.snapshot()["hub.listing_bytes"] < len(whole) // 2


def test_describing_a_small_directory_keeps_the_connection(hub, source):
    hub.on(f"{LISTING}d", page([row(f"d/{i}") for i in range(10)]))
    for _ in range(5):
        source.describe(COMMIT, "d", sized=False)
        listed(source, "d")
    assert hub.connections <= 2


# Bodies


def test_a_body_is_opened_by_commit_and_path(hub, source, sink_type):
    hub.on(f"{REPO}/raw/{SHA}/d/f", Answer(body=b"0123456789", ranges=True))
    sink = sink_type()
    source.open(COMMIT, Entry("d/f", Kind.FILE, Versioning.GIT), Span(3, 6), sink)
    assert sink.error is None
    assert sink.body == b"345"


def test_closing_ends_waits_between_tries(hub, source, monkeypatch):
    hub.on(LISTING, Answer(503, headers={"Retry-After": "2"}))
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(RemoteUnavailable):
            listed(source)
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not hub.asked:
        ended.wait(0.01)
    source.close()
    assert ended.wait(10)
    thread.join()
    assert hub.count(LISTING) == 1
