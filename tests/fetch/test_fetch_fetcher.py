"""Loads over a scripted hub: what is asked for, what is given, and what happens when it breaks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest
from support.contents import RecordingSink, claimed, dvc, git, noise
from support.waiting import until

from dagfs.errors import (
    AccessDenied,
    ContentChanged,
    DagfsError,
    DamagedBody,
    Disproved,
    IntegrityError,
    NotFound,
    ProtocolError,
    RemoteUnavailable,
    Stalled,
    TooLarge,
)
from dagfs.fetch import queue as queue_module
from dagfs.fetch import retries
from dagfs.fetch.assembly import Assembly
from dagfs.fetch.blobs import BlobIds
from dagfs.fetch.fetcher import Fetcher
from dagfs.fetch.job import Job
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.fetch.slots import Slots
from dagfs.hub.memory import MemorySource
from dagfs.hub.source import BodyHead
from dagfs.metrics import Metrics
from dagfs.model import Content, Entry, Kind, Span, Urgency, Versioning

SMALL = noise(100_000)
LARGE = noise(WHOLE_MAX + 300_000)
MiB = 1 << 20


class Hub:
    """A source, a fetcher over it, and loads."""

    def __init__(self, files: dict[str, bytes], *, slots: Slots | None = None, **options: bool) -> None:
        self.source = MemorySource(files, **options)
        self.metrics = Metrics()
        self.fetcher = Fetcher(self.source, self.source.commit, self.metrics, slots)

    def load(
        self,
        content: Content,
        span: Span | None = None,
        urgency: Urgency = Urgency.READER,
        sink: RecordingSink | None = None,
    ) -> RecordingSink:
        sink = sink or RecordingSink()
        sink.load = self.fetcher.load(content, span, urgency, sink)  # type: ignore[attr-defined]
        return sink

    def close(self) -> None:
        self.fetcher.close()
        self.source.close()


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    made: list[Hub] = []

    class Kept(Hub):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            made.append(self)

    yield Kept
    for hub in made:
        hub.close()


def test_a_small_file_of_known_size_is_one_request_without_a_range(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    sink = hub.load(dvc(SMALL, "a")).wait()
    assert (sink.size, sink.data, sink.error) == (len(SMALL), SMALL, None)
    assert sink.proof is not None
    assert sink.proof.md5 == hashlib.md5(SMALL).hexdigest()
    assert hub.source.spans == [("a", None)]


def test_a_file_of_unknown_size_is_asked_for_up_to_the_limit_of_small_ones(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    sink = hub.load(dvc(SMALL, "a", sized=False)).wait()
    assert sink.data == SMALL
    assert hub.source.spans == [("a", Span(0, WHOLE_MAX))]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("data", [b"", b"x", SMALL, noise(WHOLE_MAX)], ids=["empty", "byte", "small", "limit"])
def test_a_small_file_is_whole_and_proved_from_any_server(
    hubs: type[Hub], data: bytes, ranged: bool, announced: bool, sized: bool
) -> None:
    hub = hubs({"a": data}, ranged=ranged, announce_length=announced)
    sink = hub.load(dvc(data, "a", sized=sized)).wait()
    assert (sink.size, sink.data, sink.error, sink.pieces) == (len(data), data, None, {})


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("ranged", [True, False])
def test_a_large_file_begins_with_its_size_and_first_bytes_on_any_server(
    hubs: type[Hub], ranged: bool, announced: bool, sized: bool
) -> None:
    hub = hubs({"a": LARGE}, ranged=ranged, announce_length=announced)
    sink = hub.load(dvc(LARGE, "a", sized=sized)).wait()
    assert (sink.data, sink.error) == (None, None)
    assert len(sink.joined) >= WHOLE_MAX
    assert LARGE.startswith(sink.joined)
    assert sink.size == (len(LARGE) if announced or not sized else None)


def test_a_large_file_whose_size_the_hub_tells_nowhere_is_measured(
    hubs: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hubs({"a": LARGE}, ranged=False, announce_length=False)
    unsized = Entry("a", Kind.FILE, Versioning.DVC, "")
    monkeypatch.setattr(hub.source, "describe", lambda commit, path, *, sized: unsized)
    sink = hub.load(dvc(LARGE, "a", sized=False)).wait()
    assert sink.size == len(LARGE)
    assert LARGE.startswith(sink.joined)
    assert len(sink.joined) == WHOLE_MAX


def test_a_file_without_size_and_end_is_given_up_and_asked_for_no_more(
    hubs: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagfs.fetch.assembly.MEASURED_MAX", WHOLE_MAX + 100_000)
    hub = hubs({"a": LARGE}, ranged=False, announce_length=False)
    unsized = Entry("a", Kind.FILE, Versioning.DVC, "")
    monkeypatch.setattr(hub.source, "describe", lambda commit, path, *, sized: unsized)
    sink = hub.load(dvc(LARGE, "a", sized=False)).wait()
    assert isinstance(sink.error, TooLarge)
    assert not sink.pieces
    assert len(hub.source.spans) == 2  # the first 8 MiB, and the try to measure it


@pytest.mark.parametrize("ranged", [True, False])
def test_a_span_comes_exactly_or_with_the_whole_file(hubs: type[Hub], ranged: bool) -> None:
    hub = hubs({"a": LARGE}, ranged=ranged)
    sink = hub.load(dvc(LARGE, "a"), Span(5_000_000, 5_500_000)).wait()
    assert sink.error is None
    assert sink.joined == (LARGE[5_000_000:5_500_000] if ranged else LARGE)


@pytest.mark.parametrize("ranged", [True, False])
def test_a_cut_span_is_resumed_and_no_byte_is_given_twice(hubs: type[Hub], ranged: bool) -> None:
    hub = hubs({"a": LARGE}, ranged=ranged)
    hub.source.fail("open:a", RemoteUnavailable("cut"), times=2, after=1_000_000)
    span = Span(2_000_000, 6_000_000)
    sink = hub.load(dvc(LARGE, "a"), span).wait()
    assert sink.error is None
    start = span.start if ranged else 0
    assert LARGE[start : start + len(sink.joined)] == sink.joined
    assert start + len(sink.joined) >= span.end
    if ranged:
        assert [asked for _, asked in hub.source.spans] == [
            span,
            Span(3_000_000, 6_000_000),
            Span(4_000_000, 6_000_000),
        ]


def test_a_cut_small_file_is_resumed(hubs: type[Hub]) -> None:
    data = noise(MiB)
    hub = hubs({"a": data})
    hub.source.fail("open:a", Stalled("nothing came"), after=700_000)
    assert hub.load(dvc(data, "a")).wait().data == data
    assert hub.source.spans[1] == ("a", Span(700_000, MiB))
    assert hub.metrics.snapshot()["fetch.received_bytes"] == MiB


def test_wrong_bytes_are_fetched_again_twice_and_then_an_error(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    sink = hub.load(claimed("0" * 32, "a")).wait()
    assert isinstance(sink.error, IntegrityError)
    assert sink.data is None
    assert hub.source.calls["open:a"] == 3


def test_a_size_other_than_the_known_one_is_an_error(hubs: type[Hub]) -> None:
    for announced in (True, False):
        hub = hubs({"a": SMALL}, announce_length=announced)
        content = dvc(SMALL, "a")._replace(size=len(SMALL) + 1)
        hub.fetcher.patience = 0.2
        sink = hub.load(content).wait()
        assert isinstance(sink.error, (IntegrityError, ProtocolError))
        assert sink.data is None


def test_the_text_md5_of_dvc_2_proves_a_text_and_only_a_text(hubs: type[Hub]) -> None:
    text, binary = b"a\r\nb\r\n" * 1000, b"\0a\r\nb\r\n" * 1000
    hub = hubs({"text": text, "binary": binary})
    for path, data in (("text", text), ("binary", binary)):
        content = claimed(hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest(), path, len(data))
        sink = hub.load(content).wait()
        assert (sink.data == text) is (path == "text")
        assert isinstance(sink.error, IntegrityError) is (path == "binary")


@pytest.mark.parametrize("sized", [True, False])
def test_a_git_hash_proves_when_it_is_a_blob_id_and_nothing_else(hubs: type[Hub], sized: bool) -> None:
    hub = hubs({"a": SMALL}, versioning=Versioning.GIT)
    for content, proved in (
        (git(SMALL, "a", sized=sized), True),
        (git(SMALL, "a", claim="0" * 40, sized=sized), False),
    ):
        sink = hub.load(content).wait()
        assert sink.data == SMALL
        assert sink.proof is not None
        assert (content.claim in sink.proof.proved) is proved


@pytest.mark.parametrize(("error", "tries"), [(NotFound("a"), 1), (AccessDenied("a"), 2), (ContentChanged("a"), 1)])
def test_a_plain_no_is_not_asked_again(hubs: type[Hub], error: DagfsError, tries: int) -> None:
    hub = hubs({"a": SMALL})
    hub.source.fail("open:a", error, times=5)
    assert hub.load(dvc(SMALL, "a")).wait().error is error
    assert hub.source.calls["open:a"] == tries


def test_a_renewed_token_is_tried_once(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    hub.source.fail("open:a", AccessDenied("expired"))
    assert hub.load(dvc(SMALL, "a")).wait().data == SMALL


def test_a_hub_that_stays_away_is_given_up_and_the_next_load_starts_anew(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    hub.fetcher.patience = 0.3
    hub.source.fail("open:a", RemoteUnavailable("down"), times=10_000)
    assert isinstance(hub.load(dvc(SMALL, "a")).wait().error, RemoteUnavailable)
    assert hub.source.calls["open:a"] > 2
    hub.source._failures.clear()
    assert hub.load(dvc(SMALL, "a")).wait().data == SMALL


def test_retry_after_stops_everybody(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL, "b": SMALL})
    hub.source.fail("open:a", RemoteUnavailable("429", retry_after=0.3))
    first = hub.load(dvc(SMALL, "a"))
    until(lambda: hub.fetcher._queue.slots.paused_until > 0)
    second = hub.load(dvc(SMALL, "b"))
    assert hub.source.calls["open:b"] == 0
    assert second.wait().data == first.wait().data == SMALL
    assert hub.fetcher._queue.slots.limit < Slots().limit


def test_a_reader_finds_a_slot_however_many_guesses_hang(hubs: type[Hub]) -> None:
    files = {f"guess{number}": SMALL for number in range(100)} | {"wanted": SMALL}
    hub = hubs(files)
    for path in files:
        if path != "wanted":
            hub.source.hold(path)
    for number in range(100):
        hub.load(dvc(SMALL, f"guess{number}"), None, Urgency.PREFETCH)
    lower = Slots().lower
    assert hub.fetcher.in_flight() == (lower, 100 - lower)
    assert hub.load(dvc(SMALL, "wanted")).wait().data == SMALL


def test_a_reader_finds_a_slot_however_many_readers_hang(hubs: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the head, and in mid-body; nobody whose bytes may still come is given up for it."""
    monkeypatch.setattr(queue_module, "SILENCE", 0.1)
    monkeypatch.setattr(queue_module, "LOOK", 0.05)
    files = {f"stuck{number}": SMALL for number in range(72)} | {"wanted": SMALL, "sized": SMALL}
    hub = hubs(files)
    for number in range(72):
        hub.source.hold(f"stuck{number}", after=None if number % 2 else 1000)
    stuck = [hub.load(dvc(SMALL, f"stuck{number}")) for number in range(72)]
    assert hub.load(dvc(SMALL, "wanted")).wait().data == SMALL
    assert hub.load(dvc(SMALL, "sized", sized=False)).wait().size == len(SMALL)
    assert hub.fetcher.in_flight() == (72, 0)
    for number, sink in enumerate(stuck):
        hub.source.release(f"stuck{number}")
        assert sink.wait().data == SMALL
    assert sum(hub.source.calls[f"open:{path}"] for path in files) == len(files)


def test_a_promoted_guess_overtakes_the_others(hubs: type[Hub]) -> None:
    hub = hubs({f"f{number}": SMALL for number in range(10)}, slots=Slots(1))
    hub.source.hold("f0")
    sinks = [hub.load(dvc(SMALL, f"f{number}"), None, Urgency.WARM_UP) for number in range(10)]
    sinks[7].load.promote(Urgency.PREFETCH)  # type: ignore[attr-defined]
    sinks[8].load.promote(Urgency.READ_AHEAD)  # type: ignore[attr-defined]
    hub.source.release("f0")
    for sink in sinks:
        sink.wait()
    assert [path for path, _ in hub.source.spans] == ["f0", "f8", "f7", "f1", "f2", "f3", "f4", "f5", "f6", "f9"]


def test_a_cancelled_load_ends_wherever_it_is(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL, "b": SMALL}, slots=Slots(1))
    hub.source.hold("a", after=1000)
    running, queued = hub.load(dvc(SMALL, "a")), hub.load(dvc(SMALL, "b"))
    queued.load.cancel()  # type: ignore[attr-defined]
    queued.load.cancel()  # type: ignore[attr-defined]
    assert queued.wait().error is not None
    running.load.cancel()  # type: ignore[attr-defined]
    assert running.wait().error is not None
    assert hub.fetcher.in_flight() == (0, 0)
    assert hub.source.calls["open:b"] == 0
    assert hub.fetcher._queue.slots.limit == 1, "a cancelled load says nothing about the hub"


def test_closing_ends_every_load(hubs: type[Hub]) -> None:
    hub = hubs({f"f{number}": SMALL for number in range(40)})
    for number in range(40):
        hub.source.hold(f"f{number}", after=1000)
    sinks = [hub.load(dvc(SMALL, f"f{number}"), None, Urgency.PREFETCH) for number in range(40)]
    hub.fetcher.close()
    assert all(sink.wait().error is not None for sink in sinks)
    assert hub.load(dvc(SMALL, "f0")).wait().error is not None


def test_guesses_wait_for_a_congested_disk_and_readers_do_not(hubs: type[Hub]) -> None:
    hub = hubs({"guess": SMALL, "wanted": SMALL})
    congested = [True]
    hub.fetcher._congested = lambda: congested[0]
    guess = hub.load(dvc(SMALL, "guess"), None, Urgency.PREFETCH)
    assert hub.load(dvc(SMALL, "wanted")).wait().data == SMALL
    assert hub.source.calls["open:guess"] == 0
    congested[0] = False
    assert guess.wait().data == SMALL


def test_many_loads_leave_no_state(hubs: type[Hub]) -> None:
    hub = hubs({f"f{number}": noise(100, number) for number in range(300)})
    hub.source.fail("open:f7", RemoteUnavailable("cut"), times=2)
    sinks = [hub.load(dvc(noise(100, number), f"f{number}"), None, Urgency(number % 4)) for number in range(300)]
    for number, sink in enumerate(sinks):
        assert sink.wait().data == noise(100, number)
    assert hub.fetcher.in_flight() == (0, 0)
    assert not hub.fetcher._jobs
    assert hub.fetcher._queue._weight == 0


def test_a_hub_that_breaks_off_at_the_same_byte_each_time_is_given_up(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL}, ranged=False)
    hub.fetcher.patience = 0.3
    hub.source.fail("open:a", RemoteUnavailable("cut"), times=100_000, after=50_000)
    assert isinstance(hub.load(dvc(SMALL, "a")).wait().error, RemoteUnavailable)


def test_a_body_cut_after_all_that_was_asked_for_is_complete(hubs: type[Hub]) -> None:
    hub = hubs({"small": SMALL, "large": LARGE}, ranged=False)
    hub.source.fail("open:small", RemoteUnavailable("cut"), after=len(SMALL))
    hub.source.fail("open:large", RemoteUnavailable("cut"), after=5_000_000)
    assert hub.load(dvc(SMALL, "small")).wait().data == SMALL
    assert hub.load(dvc(LARGE, "large"), Span(0, 1_000_000)).wait().joined == LARGE[:5_000_000]
    assert len(hub.source.spans) == 2


@pytest.mark.parametrize(
    "error", [DamagedBody("its checksum does not fit"), RemoteUnavailable("cut"), Stalled("silent")]
)
@pytest.mark.parametrize("after", [50_000, len(SMALL)])
def test_nothing_of_a_compressed_body_without_its_end_is_kept_where_no_hash_could_find_it(
    hubs: type[Hub], error: DagfsError, after: int
) -> None:
    """A compressed stream tells at its end that a byte before was wrong; one that is cut never does."""
    hub = hubs({"a": SMALL}, versioning=Versioning.GIT, compressed=True)
    hub.source.fail("open:a", error, after=after)
    assert hub.load(git(SMALL, "a", claim="")).wait().data == SMALL
    assert [span for _, span in hub.source.spans] == [None, None], "the second time from its beginning"


def test_a_damaged_body_is_taken_where_its_hash_proves_it(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL}, compressed=True)
    hub.source.fail("open:a", DamagedBody("without its end"), after=len(SMALL))
    assert hub.load(dvc(SMALL, "a")).wait().data == SMALL
    assert len(hub.source.spans) == 1


@pytest.mark.parametrize("after", [5_000_000, len(LARGE)])
def test_a_damaged_body_of_a_large_file_is_made_good_by_one_that_brings_the_same_and_ends_well(
    hubs: type[Hub], after: int
) -> None:
    hub = hubs({"a": LARGE}, versioning=Versioning.GIT, compressed=True)
    hub.source.fail("open:a", DamagedBody("its checksum does not fit"), after=after)
    sink = hub.load(git(LARGE, "a", claim=""), Span(0, len(LARGE))).wait()
    assert (sink.error, sink.joined) == (None, LARGE)


def test_bytes_of_a_large_file_that_come_otherwise_the_second_time_are_disproved(hubs: type[Hub]) -> None:
    """What was given cannot be taken back, and nobody knows which of the two was right."""
    hub = hubs({"a": LARGE}, versioning=Versioning.GIT, compressed=True)
    wrong = LARGE[:100] + bytes([LARGE[100] ^ 1]) + LARGE[101:]
    content, files = git(LARGE, "a", claim=""), hub.source._snapshots[hub.source.commit.sha].files
    files["a"] = wrong
    hub.source.hold("a", 5_000_000)
    hub.source.fail("open:a", RemoteUnavailable("cut"), after=5_000_001)
    sink = hub.load(content, Span(0, len(LARGE)))
    until(lambda: bool(sink.pieces))
    files["a"] = LARGE
    hub.source.release("a")
    assert isinstance(sink.wait().error, Disproved)


def test_what_was_given_of_bodies_that_are_all_damaged_is_disproved_and_their_last_bytes_are_not_given(
    hubs: type[Hub],
) -> None:
    hub = hubs({"a": LARGE}, versioning=Versioning.GIT, compressed=True)
    hub.fetcher.patience = 0.3
    hub.source.fail("open:a", DamagedBody("its checksum does not fit"), times=1_000, after=len(LARGE))
    sink = hub.load(git(LARGE, "a", claim=""), Span(0, len(LARGE))).wait()
    assert isinstance(sink.error, Disproved)
    assert 0 < len(sink.joined) < len(LARGE)


def test_of_a_large_compressed_file_of_unknown_size_nothing_is_given_that_was_left_before_its_end(
    hubs: type[Hub],
) -> None:
    hub = hubs({"a": LARGE}, versioning=Versioning.GIT, compressed=True)
    sink = hub.load(git(LARGE, "a", claim="", sized=False)).wait()
    assert (sink.size, sink.pieces, sink.error) == (len(LARGE), {}, None)


def test_pauses_between_tries_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(retries, "BACKOFF", 0.2)
    monkeypatch.setattr(retries.random, "uniform", lambda least, most: most)
    job = Job(dvc(SMALL, "a"), None, Urgency.READER, RecordingSink(), BlobIds())
    job.progress = now
    pauses = [retries.delay_of(job, RemoteUnavailable("HTTP 503"), now, 60.0) for _ in range(8)]
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert retries.delay_of(job, RemoteUnavailable("HTTP 503", 3.0), now, 60.0) == 13.0
    assert retries.delay_of(job, RemoteUnavailable("HTTP 503"), now + 60.0, 60.0) is None


def test_a_refusal_for_an_hour_stops_nobody_for_an_hour(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL, "b": SMALL})
    hub.fetcher.patience = 0.3
    hub.source.fail("open:a", RemoteUnavailable("503", retry_after=3600.0))
    assert isinstance(hub.load(dvc(SMALL, "a")).wait().error, RemoteUnavailable)
    assert hub.load(dvc(SMALL, "b")).wait().data == SMALL


def test_who_waits_for_a_slot_of_a_hub_that_is_away_is_given_up_with_those_who_have_one(hubs: type[Hub]) -> None:
    files = {f"f{number}": SMALL for number in range(40)}
    hub = hubs(files, slots=Slots(2))
    hub.fetcher.patience = 0.3
    for path in files:
        hub.source.fail(f"open:{path}", RemoteUnavailable("503", retry_after=3600.0), times=100)
    sinks = [hub.load(dvc(SMALL, path)) for path in files]
    assert all(isinstance(sink.wait().error, RemoteUnavailable) for sink in sinks)
    assert len(hub.source.spans) <= 10


def test_a_load_that_is_cancelled_while_a_slot_falls_free_is_not_started(
    hubs: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hubs({"a": SMALL, "b": SMALL}, slots=Slots(1))
    hub.source.hold("a")
    running, queued = hub.load(dvc(SMALL, "a")), hub.load(dvc(SMALL, "b"))
    finish = hub.fetcher._finish

    def late(job: object, error: DagfsError | None) -> None:
        if threading.current_thread() is threading.main_thread():
            hub.source.release("a")
            running.wait()
            until(lambda: hub.fetcher.in_flight()[0] == 0)
        finish(job, error)  # type: ignore[arg-type]

    monkeypatch.setattr(hub.fetcher, "_finish", late)
    queued.load.cancel()  # type: ignore[attr-defined]
    assert queued.wait().error is not None
    assert hub.source.calls["open:b"] == 0


def test_a_load_that_cannot_be_started_ends_with_an_error(hubs: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hubs({"a": SMALL})
    hub.fetcher.patience = 0.3

    def fail(*_: object) -> None:
        raise ValueError("unexpected")

    monkeypatch.setattr(hub.source, "open", fail)
    assert isinstance(hub.load(dvc(SMALL, "a")).wait().error, ProtocolError)


def test_any_number_of_waiting_loads_end_when_none_can_be_started(
    hubs: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hubs({"a": SMALL, "b": SMALL}, slots=Slots(1))
    hub.fetcher.patience = 0.3
    hub.source.hold("a")
    sinks = [hub.load(dvc(SMALL, "a")), *(hub.load(dvc(SMALL, "b")) for _ in range(1000))]

    def fail(*_: object) -> None:
        raise RemoteUnavailable("closed")

    monkeypatch.setattr(hub.source, "open", fail)
    hub.source.release("a")
    assert sinks[0].wait().data == SMALL
    assert all(isinstance(sink.wait().error, RemoteUnavailable) for sink in sinks[1:])


def test_a_load_that_is_cancelled_while_its_size_is_asked_for_ends_once(
    hubs: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hubs({"a": LARGE}, ranged=False, announce_length=False)
    asked, go = threading.Event(), threading.Event()

    def describe(*_: object, sized: bool) -> Entry:
        asked.set()
        go.wait(20)
        raise NotFound("a")

    monkeypatch.setattr(hub.source, "describe", describe)
    sink = hub.load(dvc(LARGE, "a", sized=False))
    assert asked.wait(20)
    sink.load.cancel()  # type: ignore[attr-defined]
    assert isinstance(sink.wait().error, RemoteUnavailable)
    go.set()
    hub.fetcher._describer.shutdown(wait=True)
    assert not sink.faults


def test_the_bytes_of_a_file_are_not_held_after_they_were_given(hubs: type[Hub]) -> None:
    hub = hubs({"a": SMALL})
    sink = hub.load(dvc(SMALL, "a")).wait()
    assert sink.load._job.assembly._pieces == []  # type: ignore[attr-defined]


# One load's bytes, without any thread


def body(assembly: Assembly, data: bytes, start: int = 0, *, total: int | None = None, tag: str = "v1") -> None:
    assembly.head(BodyHead(start, total, True, tag))
    assembly.data(data)


def test_two_versions_of_an_object_never_mix() -> None:
    entry = Entry("bucket/a", Kind.FILE, Versioning.BUCKET)
    content = Content(git(LARGE).key, entry, None, len(LARGE))
    sink = RecordingSink()
    assembly = Assembly(content, Span(0, 1000), sink, BlobIds())
    body(assembly, LARGE[:500], total=len(LARGE))
    with pytest.raises(ContentChanged):
        body(assembly, LARGE[500:1000], 500, tag="v2")
    assert sink.joined == LARGE[:500]


def test_a_small_file_without_hash_starts_over_when_its_validator_changes() -> None:
    sink = RecordingSink()
    assembly = Assembly(git(SMALL, sized=False), None, sink, BlobIds())
    body(assembly, SMALL[:500])
    with pytest.raises(ProtocolError):
        body(assembly, SMALL[500:], 500, tag="v2")
    assert assembly.request() == Span(0, WHOLE_MAX)
    body(assembly, SMALL, tag="v2")
    assembly.complete()
    assert sink.data == SMALL


def test_a_large_file_without_hash_is_not_joined_from_two_versions() -> None:
    assembly = Assembly(git(LARGE), Span(0, 1000), RecordingSink(), BlobIds())
    body(assembly, LARGE[:500])
    with pytest.raises(IntegrityError):
        body(assembly, LARGE[500:1000], 500, tag="v2")


@pytest.mark.parametrize(("span", "came"), [(Span(0, 2000), 1999), (Span(len(LARGE) - 500, len(LARGE) + 500), 499)])
def test_a_body_that_ends_before_its_span_or_the_file_does_is_an_error(span: Span, came: int) -> None:
    """On a hub that announces no length nothing else shows it."""
    assembly = Assembly(git(LARGE), span, RecordingSink(), BlobIds())
    assembly.head(BodyHead(span.start, None, True, None))
    assembly.data(LARGE[span.start : span.start + came])
    with pytest.raises(ProtocolError):
        assembly.complete()
    assembly.data(LARGE[span.start + came : span.end])
    assembly.complete()


def damaged(assembly: Assembly, data: bytes) -> BaseException:
    """A compressed body of two pieces, whose checksum does not fit."""
    assembly.head(BodyHead(0, None, False, None, compressed=True))
    assembly.data(data[:5000])
    assembly.data(data[5000:])
    return assembly.broken_off(DamagedBody("its checksum does not fit"))


def test_after_a_damaged_body_a_plain_one_has_to_bring_the_same_from_the_beginning() -> None:
    sink = RecordingSink()
    assembly = Assembly(git(LARGE), Span(0, len(LARGE)), sink, BlobIds())
    assert isinstance(damaged(assembly, LARGE[:9000]), DamagedBody)
    assert assembly.request() == Span(0, len(LARGE))
    assert isinstance(assembly.verdict(RemoteUnavailable("given up")), Disproved)
    body(assembly, LARGE, total=len(LARGE))
    assembly.complete()
    assert sink.joined == LARGE
    assert isinstance(assembly.verdict(RemoteUnavailable("cancelled")), RemoteUnavailable)
    wrong = Assembly(git(LARGE), Span(0, len(LARGE)), RecordingSink(), BlobIds())
    damaged(wrong, LARGE[1:9001])
    with pytest.raises(Disproved):
        body(wrong, LARGE, total=len(LARGE))


def test_after_a_damaged_body_that_followed_a_span_nothing_can_be_compared() -> None:
    assembly = Assembly(git(LARGE), Span(1000, len(LARGE)), RecordingSink(), BlobIds())
    assembly.head(BodyHead(1000, None, True, None))
    assembly.data(LARGE[1000:2000])
    assembly.broken_off(RemoteUnavailable("cut"))
    assert assembly.request() == Span(2000, len(LARGE))
    assert isinstance(damaged(assembly, LARGE[:9000]), Disproved)


def test_a_small_body_that_ends_early_is_no_wrong_content() -> None:
    """It is asked for as long as a cut one; wrong content only twice."""
    assembly = Assembly(git(SMALL), None, RecordingSink(), BlobIds())
    assembly.head(BodyHead(0, None, False, None))
    assembly.data(SMALL[:-1])
    with pytest.raises(ProtocolError):
        assembly.complete()
    assert assembly.request() == Span(len(SMALL) - 1, len(SMALL))


def test_more_bytes_than_the_file_has_are_an_error() -> None:
    assembly = Assembly(dvc(SMALL), None, RecordingSink(), BlobIds())
    with pytest.raises(ProtocolError):
        body(assembly, SMALL + b"x")


def test_bytes_after_those_asked_for_are_an_error() -> None:
    assembly = Assembly(dvc(LARGE), Span(0, 1000), RecordingSink(), BlobIds())
    with pytest.raises(ProtocolError):
        body(assembly, LARGE[10:], 10)


@pytest.mark.parametrize("error", [7, -7])
def test_a_content_length_alone_is_no_size_to_show(error: int) -> None:
    """A proxy may have cut or changed the body; what stat has shown cannot be taken back."""
    sink = RecordingSink()
    assembly = Assembly(git(SMALL, sized=False), None, sink, BlobIds())
    assembly.head(BodyHead(0, len(SMALL) + error, False, None))
    assert sink.size is None
    assembly.data(SMALL[: len(SMALL) + min(error, 0)])
    assert sink.size is None
    assembly.restart()  # the transport noticed, or the hash did not fit
    assembly.head(BodyHead(0, len(SMALL), False, None))
    assembly.data(SMALL)
    assembly.complete()
    assert (sink.size, sink.data) == (len(SMALL), SMALL)
