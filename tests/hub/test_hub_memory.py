"""The fake hub behaves as the seam says, so that the rooms above may rely on it."""

from __future__ import annotations

import threading

import pytest

from dagfs.errors import DagfsError, NotADirectory, NotFound, RemoteUnavailable, UnknownRevision
from dagfs.hub.memory import MemorySource
from dagfs.hub.source import BodyHead, Source
from dagfs.model import Entry, Kind, Span, Versioning

FILES = {"a.txt": b"alpha", "d/b.bin": b"b" * 200_000, "d/e/c": b"", "d/x": b"1", "d/y": b"2", "d/z": b"3"}


class Sink:
    def __init__(self) -> None:
        self.heads: list[BodyHead] = []
        self.body = b""
        self.ends: list[DagfsError | None] = []
        self.begun = threading.Event()
        self.ended = threading.Event()

    def head(self, head: BodyHead) -> None:
        self.heads.append(head)
        self.begun.set()

    def data(self, chunk: bytes) -> None:
        self.body += chunk

    def done(self, error: DagfsError | None) -> None:
        self.ends.append(error)
        self.ended.set()


@pytest.fixture
def source():
    source = MemorySource(FILES)
    yield source
    source.close()


def fetch(source: MemorySource, path: str, span: Span | None = None) -> Sink:
    sink = Sink()
    source.open(source.commit, Entry(path, Kind.FILE, Versioning.DVC), span, sink)
    assert sink.ended.wait(10)
    return sink


def test_the_fake_is_a_source(source):
    checked: Source = source
    assert checked.resolve(None).branch == "main"


def test_a_listing_has_the_children_and_sizes_only_when_asked(source):
    names = [e.path for batch in source.list_directory(source.commit, "d", sized=False) for e in batch]
    sizes = {e.path: e.size for batch in source.list_directory(source.commit, "d", sized=True) for e in batch}
    assert names == ["d/b.bin", "d/e", "d/x", "d/y", "d/z"]
    assert sizes["d/b.bin"] == 200_000
    assert source.calls == {"list:d": 1, "list-sized:d": 1}
    assert source.describe(source.commit, "d/x", sized=False).size is None


def test_missing_paths_and_files_listed_as_directories_are_named_errors(source):
    with pytest.raises(NotFound):
        source.describe(source.commit, "nope", sized=True)
    with pytest.raises(NotADirectory):
        list(source.list_directory(source.commit, "a.txt", sized=False))
    with pytest.raises(UnknownRevision):
        source.resolve("nope")


def test_a_body_comes_whole_or_by_span(source):
    assert fetch(source, "d/b.bin").body == FILES["d/b.bin"]
    part = fetch(source, "a.txt", Span(1, 3))
    assert (part.body, part.heads[0].start, part.heads[0].total, part.heads[0].ranged) == (b"lp", 1, 5, True)
    assert fetch(source, "d/e/c").ends == [None]
    assert isinstance(fetch(source, "nope").ends[0], NotFound)


def test_a_source_without_ranges_or_length_sends_everything(source):
    plain = MemorySource(FILES, ranged=False, announce_length=False)
    part = fetch(plain, "a.txt", Span(1, 3))
    plain.close()
    assert (part.body, part.heads[0].start, part.heads[0].total, part.heads[0].ranged) == (b"alpha", 0, None, False)


def test_scripted_failures_come_once_and_after_the_bytes_asked_for(source):
    broken = RemoteUnavailable("cut")
    source.fail("open:d/b.bin", broken, after=70_000)
    sink = fetch(source, "d/b.bin")
    assert (len(sink.body), sink.ends) == (70_000, [broken])
    assert fetch(source, "d/b.bin").ends == [None]
    source.fail("list:d", broken, after=4)
    seen = []
    with pytest.raises(RemoteUnavailable):
        seen.extend(e for batch in source.list_directory(source.commit, "d", sized=False) for e in batch)
    source.fail("describe:a.txt", broken, times=2)
    for _ in range(2):
        with pytest.raises(RemoteUnavailable):
            source.describe(source.commit, "a.txt", sized=False)
    source.describe(source.commit, "a.txt", sized=False)


def test_a_held_body_waits_and_others_pass(source):
    source.hold("a.txt", after=2)
    held = Sink()
    source.open(source.commit, Entry("a.txt", Kind.FILE, Versioning.DVC), None, held)
    assert fetch(source, "d/x").body == b"1"
    assert held.begun.wait(10)
    assert not held.ended.is_set()
    source.release("a.txt")
    assert held.ended.wait(10)
    assert held.body == b"alpha"


def test_cancelling_ends_a_held_body_once_with_an_error(source):
    source.hold("a.txt")
    sink = Sink()
    transfer = source.open(source.commit, Entry("a.txt", Kind.FILE, Versioning.DVC), None, sink)
    transfer.cancel()
    transfer.cancel()
    assert sink.ended.wait(10)
    source.close()
    assert len(sink.ends) == 1
    assert isinstance(sink.ends[0], RemoteUnavailable)


def test_closing_ends_what_is_held():
    source = MemorySource(FILES)
    source.hold("a.txt")
    sink = Sink()
    source.open(source.commit, Entry("a.txt", Kind.FILE, Versioning.DVC), None, sink)
    source.close()
    assert len(sink.ends) == 1


def test_publishing_moves_the_branch_and_keeps_the_old_commit(source):
    old = source.commit
    new = source.publish({"a.txt": b"beta"})
    assert source.resolve("main") == new
    assert source.describe(old, "a.txt", sized=True).size == 5
    assert source.resolve(old.sha[:10]).sha == old.sha
