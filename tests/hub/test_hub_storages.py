"""Connected storages and the own bucket as a source shows them, against `dagfs serve` and against scripts."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from support.buckets import TOP, bucket
from support.contents import noise
from support.repos import ODD_NAMES, Truth, commit_all, git_files, new_repository, write_files
from support.scripted_hub import Answer

from dagfs.devhub.behaviour import Behaviour, Gzip, LastToken, Redirect
from dagfs.devhub.serve import Hub
from dagfs.errors import AccessDenied, NotFound, ProtocolError, RemoteUnavailable
from dagfs.hub import retry
from dagfs.hub.api import HubSource
from dagfs.hub.buckets import s3, storages
from dagfs.hub.curl import sigv4
from dagfs.model import Commit, Entry, Kind, RepoRef, Span, Versioning

SHA = "0123456789abcdef0123456789abcdef01234567"
COMMIT = Commit(SHA, 0.0)
REPO = "/api/v1/repos/owner/name"
CONTENT = f"{REPO}/storage/content/s3/pond"
S3 = "/api/v1/repo-buckets/s3/owner/name"
FOUND = "paging=true&include_size=true"
OBJECTS = {f"{i:02d}.bin": noise(i * 90, i) for i in range(12)} | {f"odd/{name}": name.encode() for name in ODD_NAMES}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    root = new_repository(tmp_path_factory.mktemp("storages") / "project")
    write_files(root, {"a b.txt": b"a", "sub/x+y.txt": b"xy", "sub.txt": b"s", "sub-/z": b"z"})
    head = commit_all(root, "first")
    return Truth(root, head, {head: git_files(root, head)}, {head: frozenset()}, {"main": head})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bucket(tmp_path_factory.mktemp("pond") / "pond", OBJECTS)


def listed(source: HubSource, path: str) -> list[Entry]:
    return [entry for batch in source.list_directory(COMMIT, path, sized=False) for entry in batch]


def walk(source: HubSource, path: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    waiting = [path]
    while waiting:
        for entry in listed(source, waiting.pop()):
            found[entry.path] = entry
            if entry.kind is Kind.DIRECTORY:
                waiting.append(entry.path)
    return {p.removeprefix(f"{path}/"): entry for p, entry in found.items() if entry.kind is Kind.FILE}


BEHAVIOURS = {
    "plain": Behaviour(),
    "bare": Behaviour(ranges=False, length=False, etag=False, head=False, last_token=LastToken.MISSING),
    "packed": Behaviour(gzip=Gzip.ALWAYS, last_token=LastToken.EMPTY, folder_lists_itself=True),
    "elsewhere": Behaviour(redirect=Redirect.OTHER),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_every_object_is_listed_described_and_read_as_it_is(truth, folder, connected, sink_type, name):
    with Hub(truth.path, behaviour=BEHAVIOURS[name], token="secret", storages={"gs:pond": folder}) as hub:
        source = connected(hub, "secret")
        found = walk(source, f"{TOP}/gs/pond")
        assert {path: entry.size for path, entry in found.items()} == {p: len(data) for p, data in OBJECTS.items()}
        for path, entry in found.items():
            assert source.describe(COMMIT, entry.path, sized=True) == entry
            sink = sink_type()
            source.open(COMMIT, entry, None, sink)
            assert (sink.error, bytes(sink.body)) == (None, OBJECTS[path])
        assert not hub.requests.leaks


def test_the_own_bucket_is_listed_described_and_read_by_signed_requests(truth, connected, sink_type):
    with Hub(truth.path, token="secret") as hub:
        source = connected(hub, "secret")
        found = walk(source, f"{TOP}/s3/project")
        assert {path: entry.size for path, entry in found.items()} == {p: len(d) for p, d in truth.files.items()}
        for path, entry in found.items():
            assert source.describe(COMMIT, entry.path, sized=True) == entry
            assert entry.hash
            sink = sink_type()
            source.open(COMMIT, entry, Span(0, 1), sink)
            assert (sink.error, bytes(sink.body)) == (None, truth.files[path][:1])
            assert sink.heads[0].validator.strip('"') == entry.hash
        assert source.describe(COMMIT, f"{TOP}/s3/project/sub", sized=True).kind is Kind.DIRECTORY
        for absent in ("su", "sub/x", "a b.txt/x", "none"):
            with pytest.raises(NotFound):
                source.describe(COMMIT, f"{TOP}/s3/project/{absent}", sized=True)


def test_a_wrong_token_opens_no_bucket(truth, connected):
    with Hub(truth.path, token="secret") as hub:
        hub.gate.repository = lambda request: None  # the storage API alone lets everybody in
        source = connected(hub, "wrong")
        with pytest.raises(NotFound):
            source.describe(COMMIT, f"{TOP}/s3/project", sized=False)


# Scripts


def say(value: object, status: int = 200) -> Answer:
    return Answer(status, body=json.dumps(value).encode())


def rows(*names: str, kind: str = "file") -> list[dict[str, object]]:
    return [{"path": f"s3/pond/{n}", "type": kind, "size": 3, "hash": "", "versioning": "bucket"} for n in names]


def page(*names: str, token: str = "") -> Answer:
    return say({"entries": rows(*names), "limit": 1000, "next_token": token})


def address(where: str = "", token: str = "", limit: int = storages.PAGE_ENTRIES) -> str:
    return f"{CONTENT}{where}?{FOUND}&limit={limit}{f'&from_token={token}' if token else ''}"


@pytest.fixture
def pond(hub):
    """A hub with one storage and no bucket of its own."""
    hub.on(f"{REPO}/storage", say([{"name": "pond", "protocol": "s3"}]))
    hub.on(f"{REPO}/storage/content/s3/name?{FOUND}&limit=1", Answer(404))
    hub.on(s3.listing_url(RepoRef("", "owner", "name"), "", most=1), Answer(404))
    return hub


def test_a_page_that_fails_is_asked_for_again_and_those_before_it_are_not(pond, source):
    pond.on(address(), page("1", "2", token="t/ 2"))
    pond.on(address(token="t%2F%202"), Answer(503), Answer(body=b'{"entries":[{"pa'), page("3"))
    assert [entry.path for entry in listed(source, f"{TOP}/s3/pond")] == [f"{TOP}/s3/pond/{n}" for n in "123"]
    assert (pond.count(address()), pond.count(address(token="t%2F%202"))) == (1, 3)


def test_a_token_that_comes_again_ends_the_listing(pond, source):
    pond.on(address(), page("1", token="t"))
    pond.on(address(token="t"), page("2", token="u"))
    pond.on(address(token="u"), page("3", token="t"))
    with pytest.raises(ProtocolError, match="circle"):
        listed(source, f"{TOP}/s3/pond")
    assert pond.count(address(token="t")) == 1


def test_pages_that_repeat_themselves_under_new_names_end_the_listing(pond, source):
    pond.on(address(), page("1", "2", token="t"))
    pond.on(address(token="t"), page("1", "2", token="u"))
    with pytest.raises(ProtocolError, match="circle"):
        listed(source, f"{TOP}/s3/pond")


def test_a_folder_that_begins_each_of_its_pages_repeats_nothing(pond, source):
    itself = {"path": "s3/pond", "type": "dir", "size": 0}
    pond.on(address(), say({"entries": [itself, *rows("1")], "next_token": "t"}))
    pond.on(address(token="t"), say({"entries": [itself, *rows("2")], "next_token": None}))
    assert [entry.path for entry in listed(source, f"{TOP}/s3/pond")] == [f"{TOP}/s3/pond/1", f"{TOP}/s3/pond/2"]


def test_empty_pages_are_passed_over_as_long_as_some_come_to_an_end(pond, source, monkeypatch):
    monkeypatch.setattr(storages, "MAX_BARREN", 3)
    pond.on(address(), page(token="a"))
    pond.on(address(token="a"), page(token="b"))
    pond.on(address(token="b"), page("1", token="c"))
    for here, there in ("cd", "de", "ef", "fg"):
        pond.on(address(token=here), page(token=there))
    with pytest.raises(ProtocolError, match="without an entry"):
        listed(source, f"{TOP}/s3/pond")


def test_a_hub_without_pages_answers_with_an_array(pond, source):
    pond.on(address(), say(rows("1", "2")))
    assert len(listed(source, f"{TOP}/s3/pond")) == 2


def test_what_the_hub_says_of_hashes_and_versions_of_objects_is_not_believed(pond, source):
    pond.on(address(), say({"entries": [{**rows("1")[0], "hash": "f" * 32, "versioning": "dvc"}]}))
    assert listed(source, f"{TOP}/s3/pond") == [Entry(f"{TOP}/s3/pond/1", Kind.FILE, Versioning.BUCKET, "", 3)]


def test_storages_that_are_none_are_left_out(hub, source):
    bad = [{"name": "../x", "protocol": "s3"}, {"name": "x", "protocol": "ftp"}, {"name": 3, "protocol": "s3"}, 7, {}]
    hub.on(f"{REPO}/storage", say([*bad, {"name": "/lake/raw/", "protocol": "azure", "list_path": "https://x"}]))
    assert [entry.path for entry in listed(source, f"{TOP}/azure")] == [f"{TOP}/azure/lake"]
    assert [entry.path for entry in listed(source, TOP)] == [f"{TOP}/azure"]
    assert hub.count(f"{REPO}/storage") == 1


@pytest.mark.parametrize(("answer", "error"), [(Answer(403), AccessDenied), (Answer(503), RemoteUnavailable)])
def test_a_hub_that_does_not_tell_its_storages_is_an_error_and_asked_anew(hub, source, answer, error):
    hub.on(f"{REPO}/storage", *[answer] * 3, say([{"name": "pond", "protocol": "s3"}]))
    for _ in range(3 if error is AccessDenied else 1):
        with pytest.raises(error):
            source.describe(COMMIT, f"{TOP}/s3/pond", sized=False)
    assert source.describe(COMMIT, f"{TOP}/s3/pond", sized=False).kind is Kind.DIRECTORY


@pytest.mark.parametrize("answer", [Answer(400), Answer(501), Answer(body=b"<html>"), Answer(403)])
def test_a_hub_without_a_usable_s3_endpoint_shows_its_other_storages(hub, source, answer, monkeypatch):
    monkeypatch.setattr(source._storages._asker, "_patience", 0.05)
    hub.on(f"{REPO}/storage", say([{"name": "pond", "protocol": "s3"}]))
    hub.on(f"{REPO}/storage/content/s3/name?{FOUND}&limit=1", Answer(404))
    hub.on(s3.listing_url(RepoRef("", "owner", "name"), "", most=1), answer)
    shown = [entry.path for entry in listed(source, f"{TOP}/s3")]
    if answer.status == 501:  # it may come back, so it is not said to be absent
        assert shown == [f"{TOP}/s3/name", f"{TOP}/s3/pond"]
        with pytest.raises(RemoteUnavailable):
            listed(source, f"{TOP}/s3/name")
    else:
        assert shown == [f"{TOP}/s3/pond"]


def test_a_folder_without_entries_is_not_there(pond, source):
    pond.on(address("/none", limit=1), page())
    with pytest.raises(NotFound):
        source.describe(COMMIT, f"{TOP}/s3/pond/none", sized=False)


# The S3 endpoint


def xml(*names: str, prefixes: tuple[str, ...] = (), token: str = "") -> bytes:
    inside = "".join(f'<Contents><Key>{n}</Key><ETag>"e-{n}"</ETag><Size>5</Size></Contents>' for n in names)
    inside += "".join(f"<CommonPrefixes><Prefix>{n}</Prefix></CommonPrefixes>" for n in prefixes)
    inside += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return f'<?xml version="1.0"?><ListBucketResult xmlns="x">{inside}</ListBucketResult>'.encode()


def test_the_pages_of_a_bucket_follow_their_tokens(hub, source):
    hub.on(f"{REPO}/storage", say([]))
    hub.on(f"{REPO}/storage/content/s3/name?{FOUND}&limit=1", Answer(404))
    where = RepoRef("", "owner", "name")
    hub.on(s3.listing_url(where, "", most=1), Answer(body=xml("a")))
    hub.on(s3.listing_url(where, "in/"), Answer(body=xml("in/", "in/a%2Bb+c", prefixes=("in/sub/",), token="t+1")))
    hub.on(s3.listing_url(where, "in/", "t+1"), Answer(500), Answer(body=xml("in/z")))
    top = f"{TOP}/s3/name/in"
    assert listed(source, top) == [
        Entry(f"{top}/a+b c", Kind.FILE, Versioning.BUCKET, "e-in/a%2Bb+c", 5),
        Entry(f"{top}/sub", Kind.DIRECTORY, Versioning.BUCKET),
        Entry(f"{top}/z", Kind.FILE, Versioning.BUCKET, "e-in/z", 5),
    ]
    asked = [one for one in hub.asked if one.path.startswith(S3)]
    assert all("AWS4-HMAC-SHA256 Credential=s3cret-token/" in one.headers["authorization"] for one in asked)
    assert all("s3cret" not in one.path for one in asked)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"<Error/>", xml("a")[:-9], b"<ListBucketResult>" + b"<x>" * 100,
        b'<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>',
        "<ListBucketResult>\udcff</ListBucketResult>".encode("utf-8", "surrogateescape"),
    ],
)  # fmt: skip
def test_what_is_no_listing_of_s3_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        s3.parse(body)


def test_sizes_of_s3_are_whole_numbers_or_unknown():
    for text, size in (("7", 7), ("-1", None), ("1e9", None), ("", None), ("9" * 30, None)):
        row = f"<ListBucketResult><Contents><Key>k</Key><Size>{text}</Size></Contents></ListBucketResult>"
        assert s3.parse(row.encode()).objects == [s3.Object("k", size, "")]


def test_a_signature_is_what_boto_makes_of_it():
    """Of the same moment; the port and the order of the query are a part of it."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    signer = S3SigV4Auth(Credentials("token", "token"), "s3", "us-east-1")
    repo = RepoRef("http://127.0.0.1:8080", "owner", "na me")
    for url in (s3.listing_url(repo, "p/ +é~", "t/="), s3.object_url(repo, "a/b c+d~é.txt")):
        lines = dict(line.split(": ", 1) for line in sigv4.headers(url, "token", moment))
        request = AWSRequest("GET", url, {name: value for name, value in lines.items() if name != "Authorization"})
        request.context["timestamp"] = lines["x-amz-date"]
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        assert lines["Authorization"].endswith(f"Signature={signature}")
