"""Objects of buckets: one version of each as long as a mount lives, and what an earlier mount has of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.contents import RecordingSink, noise

from dagfs.errors import AccessDenied, ContentChanged, DagfsError, RemoteUnavailable
from dagfs.fetch import retries
from dagfs.fetch.assembly import Assembly
from dagfs.fetch.blobs import BlobIds
from dagfs.fetch.fetcher import Fetcher
from dagfs.fetch.renewal import Renewal
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.fetch.versions import Places, Versions
from dagfs.hub.memory import MemorySource
from dagfs.hub.source import BodyHead
from dagfs.metrics import Metrics
from dagfs.model import Content, Entry, Kind, RepoRef, Span, Urgency, Versioning, content_of, snapshot_mark
from dagfs.proofs import prove
from dagfs.store.memory import MemoryStore

PATH = ".dagshub/storage/s3/pond/object"
SMALL, OTHER = noise(5_000, 1), noise(5_000, 2)
LARGE, OTHER_LARGE = noise(WHOLE_MAX + 10_000, 3), noise(WHOLE_MAX + 10_000, 4)


class Mount:
    """What one mount has of loads; `store` outlives it."""

    def __init__(self, data: bytes, store: MemoryStore, snapshot: str) -> None:
        self.source = MemorySource({PATH: data}, versioning=Versioning.BUCKET)
        self.store = store
        self.metrics = Metrics()
        self.snapshot = snapshot
        self.versions = Versions(Places(self.source.repo, snapshot, store, store), lambda job: job())
        self.fetcher = Fetcher(self.source, self.source.commit, self.metrics, hold=self.versions.hold)
        self.loader = Renewal(self.fetcher, store, self.versions, self.metrics)

    def content(self, size: int, etag: str = "") -> Content:
        entry = Entry(PATH, Kind.FILE, Versioning.BUCKET, etag or snapshot_mark(self.snapshot), size)
        return content_of(self.source.repo, self.source.commit, entry)

    def load(self, content: Content, span: Span | None = None, urgency: Urgency = Urgency.READER) -> RecordingSink:
        sink = RecordingSink()
        sink.load = self.loader.load(content, span, urgency, sink)  # type: ignore[attr-defined]
        return sink

    def read(self, data: bytes) -> RecordingSink:
        """Load a whole object and keep it, as the cache does."""
        content = self.content(len(data))
        sink = self.load(content).wait()
        if sink.data is not None:
            self.store.put(content, sink.data, sink.proof)
        return sink

    def change(self, data: bytes) -> None:
        self.source._snapshots[self.source.commit.sha].files[PATH] = data

    def close(self) -> None:
        self.loader.close()
        self.source.close()


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    made: list[Mount] = []
    store = MemoryStore()

    def mount(data: bytes, snapshot: str = "first") -> Mount:
        made.append(Mount(data, store, snapshot))
        return made[-1]

    yield mount
    for one in made:
        one.close()


def test_two_spans_of_an_object_are_of_one_version_or_the_second_is_refused(mounts):
    mount = mounts(LARGE)
    content = mount.content(len(LARGE))
    assert mount.load(content, Span(0, 1000)).wait().joined == LARGE[:1000]
    mount.change(OTHER_LARGE)
    assert isinstance(mount.load(content, Span(5_000, 6_000)).wait().error, ContentChanged)
    mount.change(LARGE)
    assert mount.load(content, Span(5_000, 6_000)).wait().joined == LARGE[5_000:6_000]


@pytest.mark.parametrize(("data", "other"), [(SMALL, OTHER), (LARGE, OTHER_LARGE)], ids=["small", "large"])
def test_the_version_outlives_the_worker(mounts, data, other):
    """It dies at once, with what may wait a moment done."""
    mount = mounts(data)
    assert mount.load(mount.content(len(data)), Span(0, 100)).wait().error is None
    successor = mounts(other)
    assert isinstance(successor.load(successor.content(len(data)), Span(50, 100)).wait().error, ContentChanged)


def test_the_version_of_a_large_object_is_noted_before_its_first_byte(mounts):
    mount, notes = mounts(LARGE), []
    mount.versions._later = lambda job: notes.append("later")
    mount.source.hold(PATH, 0)
    sink = mount.load(mount.content(len(LARGE)), Span(0, 1000))
    while mount.store.get_value(f"version/{mount.content(len(LARGE)).key.digest}") is None:
        assert not sink.pieces
    assert notes == []
    mount.source.release(PATH)
    assert sink.wait().joined == LARGE[:1000]


@pytest.mark.parametrize("spelling", ["{}", 'W/"{}"', '"{}"'])
def test_an_etag_that_the_listing_told_is_the_version(mounts, spelling):
    mount = mounts(SMALL)
    mount.versions.hold(mount.content(len(SMALL), etag="abc-1"), spelling.format("abc-1"))
    with pytest.raises(ContentChanged):
        mount.versions.hold(mount.content(len(SMALL), etag="abc-1"), spelling.format("abc-2"))


def test_a_hub_without_etags_is_believed_as_long_as_the_size_is_right(mounts):
    mount = mounts(SMALL)
    content = mount.content(len(SMALL))
    mount.versions.hold(content, None)
    mount.versions.hold(content, '"one"')
    mount.versions.hold(content, None)
    with pytest.raises(ContentChanged):
        mount.versions.hold(content, '"two"')


def test_another_size_is_asked_for_again_before_it_is_a_change(mounts):
    mount = mounts(SMALL[:-1])
    assert isinstance(mount.load(mount.content(len(SMALL))).wait().error, ContentChanged)
    assert mount.source.calls[f"open:{PATH}"] == 1 + retries.INTEGRITY_RETRIES


# What an earlier mount has


def spans(mount: Mount) -> list[Span | None]:
    return [span for path, span in mount.source.spans if path == PATH]


def test_an_object_that_is_the_same_costs_one_byte_at_the_next_mount(mounts):
    assert mounts(SMALL, "first").read(SMALL).data == SMALL
    for snapshot in ("second", "third"):
        mount = mounts(SMALL, snapshot)
        sink = mount.read(SMALL)
        assert (sink.data, sink.size, sink.error) == (SMALL, len(SMALL), None)
        assert spans(mount) == [Span(0, 1)]


def test_an_object_that_changed_between_mounts_is_fetched(mounts):
    mounts(SMALL, "first").read(SMALL)
    mount = mounts(OTHER, "second")
    assert mount.read(OTHER).data == OTHER
    assert spans(mount) == [Span(0, 1), None]


def test_what_was_renewed_is_of_that_version_from_then_on(mounts):
    mounts(SMALL, "first").read(SMALL)
    mount = mounts(SMALL, "second")
    mount.read(SMALL)
    mount.change(OTHER)
    assert isinstance(mount.load(mount.content(len(SMALL))).wait().error, ContentChanged)


def test_a_large_object_comes_from_the_cache_in_the_spans_that_are_asked_for(mounts):
    first = mounts(LARGE, "first")
    content = first.content(len(LARGE))
    first.load(content, Span(0, 1)).wait()
    first.store.put(content, LARGE, prove(content, LARGE))
    mount = mounts(LARGE, "second")
    sink = mount.load(mount.content(len(LARGE)), Span(100_000, 4_000_000)).wait()
    assert sink.joined == LARGE[100_000:4_000_000]
    assert mount.load(mount.content(len(LARGE))).wait().joined[:5_000] == LARGE[:5_000]
    assert mount.store.find(mount.content(len(LARGE))) is not None  # under its new name
    assert spans(mount)[0] == Span(0, 1)


def test_without_etags_everything_is_fetched_again(mounts):
    mounts(SMALL, "first").read(SMALL)
    mount = mounts(SMALL, "second")
    real = mount.versions.hold
    mount.fetcher._hold = lambda content, validator: real(content, None)
    assert mount.read(SMALL).data == SMALL
    assert spans(mount) == [Span(0, 1), None]


def test_what_the_cache_has_lost_is_fetched_without_a_question(mounts):
    first = mounts(SMALL, "first")
    first.read(SMALL)
    first.store._files.clear()
    mount = mounts(SMALL, "second")
    assert mount.read(SMALL).data == SMALL
    assert spans(mount) == [None]


def test_what_is_lost_while_the_hub_is_asked_is_fetched(mounts):
    first = mounts(SMALL, "first")
    first.read(SMALL)
    mount = mounts(SMALL, "second")
    mount.source.hold(PATH)
    sink = mount.load(mount.content(len(SMALL)))
    first.store._files.clear()
    mount.source.release(PATH)
    assert sink.wait().data == SMALL


@pytest.mark.parametrize("error", [RemoteUnavailable("HTTP 503"), AccessDenied("HTTP 403")])
def test_a_hub_that_does_not_tell_the_etag_is_the_readers_error(mounts, error: DagfsError):
    mounts(SMALL, "first").read(SMALL)
    mount = mounts(SMALL, "second")
    mount.fetcher.patience = 0.05
    mount.source.fail(f"open:{PATH}", error, 1_000)
    assert type(mount.load(mount.content(len(SMALL))).wait().error) is type(error)


def test_a_question_that_is_cancelled_ends_and_one_that_is_wanted_more_is_promoted(mounts):
    mounts(SMALL, "first").read(SMALL)
    mount = mounts(SMALL, "second")
    mount.source.hold(PATH)
    sink = mount.load(mount.content(len(SMALL)), urgency=Urgency.WARM_UP)
    sink.load.promote(Urgency.READER)  # type: ignore[attr-defined]
    (job,) = mount.fetcher._jobs
    assert job.urgency is Urgency.READER
    sink.load.cancel()  # type: ignore[attr-defined]
    assert isinstance(sink.wait().error, RemoteUnavailable)


def test_contents_of_commits_are_no_concern_of_it(mounts):
    mount = mounts(SMALL)
    entry = Entry("a", Kind.FILE, Versioning.GIT, "", 3)
    content = content_of(RepoRef("h", "o", "n"), mount.source.commit, entry)
    mount.versions.hold(content, '"one"')
    mount.versions.hold(content, '"two"')
    assert mount.versions.earlier(content) is None


def test_an_etag_that_compression_makes_weak_is_the_same_version(mounts):
    content = mounts(SMALL).content(len(SMALL))
    assembly = Assembly(content, None, RecordingSink(), BlobIds())
    assembly.head(BodyHead(0, None, False, 'W/"one"'))
    assembly.data(SMALL[:1000])
    assembly.head(BodyHead(1000, len(SMALL), True, '"one"'))
    with pytest.raises(ContentChanged):
        assembly.head(BodyHead(1000, len(SMALL), True, '"two"'))


def test_a_path_is_of_one_version_whatever_a_later_listing_says(mounts):
    """It was looked up by its name, and its directory listed after it had changed."""
    mount = mounts(SMALL)
    for _ in range(2):
        mount.versions.hold(mount.content(len(SMALL), etag="old"), '"old"')
    with pytest.raises(ContentChanged):
        mount.versions.hold(mount.content(len(SMALL), etag="new"), '"new"')
    mounts(SMALL, "another mount").versions.hold(mount.content(len(SMALL), etag="new"), '"new"')
