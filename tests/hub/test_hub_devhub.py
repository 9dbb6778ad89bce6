"""Against `dagfs serve` over a real repository: every path and byte is git's and DVC's own, in all of its manners."""

from __future__ import annotations

import hashlib
import threading

import pytest
from support.repos import Truth, sample_repository

from dagfs.devhub.behaviour import Behaviour, Fault, Gzip, Redirect
from dagfs.devhub.serve import Hub
from dagfs.errors import AccessDenied, BadToken, NotFound, UnknownRepository, UnknownRevision
from dagfs.hub.api import HubSource
from dagfs.model import Commit, Entry, Kind, Span, Versioning

SUBMODULES = frozenset({"vendor/library"})
"""Directories of which the hub has no listing."""


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    truth = sample_repository(tmp_path_factory.mktemp("hub") / "repository")
    assert truth.submodules == SUBMODULES
    return truth


class Body:
    """Waits for one body."""

    def __init__(self) -> None:
        self.data_ = bytearray()
        self.ended = threading.Event()
        self.error: Exception | None = None

    def head(self, head) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        self.data_ += chunk

    def done(self, error) -> None:
        self.error = error
        self.ended.set()


def outcome(begin):
    """Start a transfer; give its error and its bytes."""
    body = Body()
    begin(body)
    assert body.ended.wait(20)
    return body.error, bytes(body.data_)


def walk(source: HubSource, commit: Commit, *, sized: bool) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    waiting = [""]
    while waiting:
        for batch in source.list_directory(commit, waiting.pop(), sized=sized):
            for entry in batch:
                entries[entry.path] = entry
                if entry.kind is Kind.DIRECTORY and entry.path not in SUBMODULES:
                    waiting.append(entry.path)
    return entries


def files_of(entries: dict[str, Entry]) -> dict[str, Entry]:
    return {path: entry for path, entry in entries.items() if entry.kind is not Kind.DIRECTORY}


def shown(path: str) -> str:
    """Give a path as JSON can spell it: a hub replaces what is not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


BEHAVIOURS = {
    "plain": Behaviour(),
    "bare": Behaviour(ranges=False, length=False, etag=False, head=False, size_when_unsized=False, blob_hash=False),
    "packed": Behaviour(gzip=Gzip.ALWAYS),
    "elsewhere": Behaviour(redirect=Redirect.OTHER),
    "signed": Behaviour(redirect=Redirect.SAME, gzip=Gzip.ACCEPTED),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_every_file_of_a_commit_is_listed_and_read_as_it_is(truth, connected, sink_type, name):
    with Hub(truth.path, behaviour=BEHAVIOURS[name], token="secret") as hub:
        source = connected(hub, "secret")
        commit = source.resolve(None)
        assert (commit.sha, commit.time) == (truth.head, truth.time)
        files = files_of(walk(source, commit, sized=True))
        wanted = {shown(path): data for path, data in truth.files.items()}
        sinks = {path: sink_type() for path in files if path in wanted}
        for path, sink in sinks.items():
            source.open(commit, files[path], None, sink)
        assert {path: (sink.error, bytes(sink.body)) for path, sink in sinks.items()} == {
            path: (None, data) for path, data in wanted.items()
        }
        assert {path: files[path].size for path in wanted} == {path: len(data) for path, data in wanted.items()}


def test_dvc_files_carry_their_md5(truth, connected):
    with Hub(truth.path) as hub:
        source = connected(hub)
        files = files_of(walk(source, source.resolve("main"), sized=False))
    held = [path for path in truth.dvc[truth.head] if path in files]
    assert held
    assert all(files[path].versioning is Versioning.DVC for path in held)
    plain = [path for path in held if files[path].hash == hashlib.md5(truth.files[path]).hexdigest()]
    assert len(plain) > len(held) // 2  # those of DVC 2 may be of the text's LF form


def test_a_description_is_what_the_listing_says(truth, connected):
    with Hub(truth.path) as hub:
        source = connected(hub)
        commit = source.resolve("main")
        for sized in (False, True):
            for path, entry in files_of(walk(source, commit, sized=sized)).items():
                assert source.describe(commit, path, sized=sized) == entry
        with pytest.raises(NotFound):
            source.describe(commit, "no such path", sized=False)


def test_every_kind_of_revision_is_resolved(truth, connected):
    with Hub(truth.path) as hub:
        source = connected(hub)
        for name, sha in truth.branches.items():
            assert (source.resolve(name).sha, source.resolve(name).branch) == (sha, name)
        for name, sha in truth.tags.items():
            assert (source.resolve(name).sha, source.resolve(name).branch) == (sha, None)
        for sha in truth.commits:
            assert source.resolve(sha).sha == source.resolve(sha[:9]).sha == sha
        with pytest.raises(UnknownRevision):
            source.resolve("no-such-branch")


def test_a_hub_with_a_token_wants_it(truth, connected):
    with Hub(truth.path, token="secret") as hub:
        with pytest.raises(BadToken):
            connected(hub, "wrong").resolve(None)
        with pytest.raises(UnknownRepository):
            connected(hub).resolve(None)


@pytest.mark.parametrize("ranges", [True, False])
def test_spans_of_a_file_are_its_bytes(truth, connected, sink_type, ranges):
    path, data = max(truth.files.items(), key=lambda item: len(item[1]))
    with Hub(truth.path, behaviour=Behaviour(ranges=ranges)) as hub:
        source = connected(hub)
        commit = source.resolve(None)
        for span in (Span(0, 10), Span(len(data) // 2, len(data) // 2 + 1000), Span(len(data) - 1, len(data) + 99)):
            sink = sink_type()
            source.open(commit, Entry(path, Kind.FILE, Versioning.DVC), span, sink)
            assert sink.error is None
            start = sink.heads[0].start
            assert start == (span.start if ranges else 0)
            assert sink.body == (data[span.start : span.end] if ranges else data)


def test_an_object_of_the_dvc_remote_is_asked_for_as_dvc_does_and_a_refusal_there_says_nothing_of_the_api(
    truth, connected
):
    """The remote takes the token as user and password; behind one connection both forms take turns."""
    data = truth.files["images/007.jpg"]
    digest = hashlib.md5(data).hexdigest()
    with Hub(truth.path, token="secret") as hub:
        source = connected(hub, "secret")
        commit = source.resolve(None)
        url = f"{hub.url}.dvc/files/md5/{digest[:2]}/{digest[2:]}"
        entry = source.describe(commit, "images/007.jpg", sized=True)

        for _ in range(3):
            assert outcome(lambda got: source.remote_object(url, None, got)) == (None, data)
            assert outcome(lambda got: source.open(commit, entry, None, got)) == (None, data)
        assert outcome(lambda got: source.remote_object(url, Span(5, 10), got)) == (None, data[5:10])
        hub.fault = lambda info: Fault(status=401) if info.kind == "dvc" else None
        assert isinstance(outcome(lambda got: source.remote_object(url, None, got))[0], AccessDenied)
        assert outcome(lambda got: source.open(commit, entry, None, got)) == (None, data)
        assert source.standing()["state"] == "ok"
