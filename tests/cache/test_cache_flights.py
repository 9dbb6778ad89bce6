"""The cache over fakes: one download for any number of readers, and what every one of them gets."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from support.contents import claimed, dvc, git, noise
from support.waiting import until

from dagfs.answers import wait
from dagfs.cache import Cache
from dagfs.cache.blocks import BlocksFlight
from dagfs.errors import DagfsError, IntegrityError, RemoteUnavailable
from dagfs.fetch.memory import MemoryLoad, MemoryLoader
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.metrics import Metrics
from dagfs.model import Answer, Content, Span, Urgency
from dagfs.store.handles import BLOCK
from dagfs.store.memory import MemoryPartial, MemoryStore

SMALL = noise(100_000)
LARGE = noise(WHOLE_MAX + 5 * BLOCK + 77)
READER = Urgency.READER
EVERYTHING = Span(0, 1 << 40)


class Rig:
    """A cache whose loads bring bytes when told to."""

    def __init__(self, files: dict[str, bytes], *, manual: bool = True) -> None:
        self.store = MemoryStore()
        self.loader = MemoryLoader(files, manual=manual)
        self.cache = Cache(self.store, self.loader, Metrics())

    def read(self, content: Content, start: int = 0, end: int = 1 << 40, urgency: Urgency = READER) -> Answer[bytes]:
        return self.cache.read(content, Span(start, end), urgency)

    @property
    def loads(self) -> list[MemoryLoad]:
        return self.loader.loads

    def idle(self) -> bool:
        flights = self.cache.in_flight()
        return flights.whole == flights.large == 0


def pending(answer: Answer[bytes]) -> Future[bytes]:
    assert isinstance(answer, Future)
    assert not answer.done()
    return answer


def test_any_number_of_readers_cause_one_load_and_get_their_spans() -> None:
    rig = Rig({"a": SMALL})
    answers = [(start, pending(rig.read(dvc(SMALL, "a"), start, start + 999))) for start in range(0, 90_000, 1000)]
    assert len(rig.loads) == 1
    rig.loads[0].run()
    assert all(answer.result(0) == SMALL[start : start + 999] for start, answer in answers)
    assert rig.read(dvc(SMALL, "a")) == SMALL
    assert len(rig.loads) == 1
    assert rig.idle()


def test_a_hit_is_given_at_once() -> None:
    rig = Rig({"a": SMALL}, manual=False)
    wait(rig.read(dvc(SMALL, "a")))
    assert rig.read(dvc(SMALL, "a"), 10, 20) == SMALL[10:20]
    assert rig.read(dvc(SMALL, "a"), len(SMALL), len(SMALL) + 10) == b""
    assert rig.cache.cached(dvc(SMALL, "a"))


def test_an_empty_file_is_read() -> None:
    rig = Rig({"a": b""}, manual=False)
    assert wait(rig.read(dvc(b"", "a"))) == b""
    assert rig.read(dvc(b"", "a")) == b""


def test_followers_share_the_leaders_failure_and_the_next_read_starts_anew() -> None:
    rig = Rig({"a": SMALL})
    answers = [pending(rig.read(dvc(SMALL, "a"))) for _ in range(5)]
    error = RemoteUnavailable("down")
    rig.loads[0].run(error=error)
    assert [answer.exception(0) for answer in answers] == [error] * 5
    assert rig.idle()
    again = pending(rig.read(dvc(SMALL, "a")))
    rig.loads[1].run()
    assert again.result(0) == SMALL


def test_a_waiting_reader_promotes_a_guess() -> None:
    rig = Rig({"a": SMALL, "b": LARGE})
    rig.cache.prepare(dvc(SMALL, "a"), None, Urgency.PREFETCH)
    rig.cache.prepare(dvc(LARGE, "b"), Span(0, 1000), Urgency.READ_AHEAD)
    assert [load.urgency for load in rig.loads] == [Urgency.PREFETCH, Urgency.READ_AHEAD]
    rig.read(dvc(SMALL, "a"))
    rig.read(dvc(LARGE, "b"), 10, 20)
    assert [load.urgency for load in rig.loads] == [READER, READER]


def test_prepare_fetches_once_and_the_read_is_a_hit() -> None:
    rig = Rig({"a": SMALL}, manual=False)
    for _ in range(3):
        rig.cache.prepare(dvc(SMALL, "a"), None, Urgency.PREFETCH)
    assert rig.read(dvc(SMALL, "a")) == SMALL
    assert len(rig.loads) == 1


def test_the_size_comes_with_the_first_answer_and_the_read_joins_the_same_load() -> None:
    rig = Rig({"a": SMALL})
    size = rig.cache.size(dvc(SMALL, "a", sized=False), READER)
    answer = pending(rig.read(dvc(SMALL, "a", sized=False)))
    assert len(rig.loads) == 1
    rig.loads[0].run()
    assert wait(size, 0) == len(SMALL)
    assert answer.result(0) == SMALL
    assert rig.cache.size(dvc(SMALL, "a", sized=False), READER) == len(SMALL)


def test_a_known_size_asks_nobody() -> None:
    rig = Rig({})
    assert rig.cache.size(dvc(SMALL, "a"), READER) == len(SMALL)
    assert rig.loads == []


def test_a_large_file_whose_size_alone_is_wanted_is_not_downloaded() -> None:
    rig = Rig({"a": LARGE})
    size = rig.cache.size(git(LARGE, "a", sized=False), READER)
    rig.loads[0].run()
    assert wait(size, 0) == len(LARGE)
    assert rig.loads[0].cancelled
    assert rig.store.calls["partial"] == 0
    assert rig.idle()


def test_a_failed_size_is_an_error_and_asked_anew() -> None:
    rig = Rig({"a": SMALL})
    size = rig.cache.size(dvc(SMALL, "a", sized=False), READER)
    rig.loads[0].run(error=RemoteUnavailable("down"))
    with pytest.raises(RemoteUnavailable):
        wait(size, 0)
    again = rig.cache.size(dvc(SMALL, "a", sized=False), READER)
    rig.loads[1].run()
    assert wait(again, 0) == len(SMALL)


def test_a_file_that_turns_out_large_is_read_by_blocks() -> None:
    rig = Rig({"a": LARGE})
    content = git(LARGE, "a", sized=False)
    first = pending(rig.read(content, 0, 100))
    last = pending(rig.read(content, len(LARGE) - 100))
    rig.loads[0].run()
    assert first.result(0) == LARGE[:100]
    (rest,) = rig.loads[1:]
    assert rest.span is not None
    assert rest.span.start >= WHOLE_MAX
    rest.run()
    assert last.result(0) == LARGE[-100:]


def test_spans_of_a_large_file_load_what_is_missing_and_not_under_way() -> None:
    rig = Rig({"a": LARGE})
    content = dvc(LARGE, "a")
    first = pending(rig.read(content, 0, 2 * BLOCK))
    second = pending(rig.read(content, BLOCK, 4 * BLOCK))
    assert [load.span for load in rig.loads] == [Span(0, 2 * BLOCK), Span(2 * BLOCK, 4 * BLOCK)]
    rig.loads[0].run()
    assert first.result(0) == LARGE[: 2 * BLOCK]
    assert not second.done()
    rig.loads[1].run()
    assert second.result(0) == LARGE[BLOCK : 4 * BLOCK]
    assert rig.read(content, 100, 3 * BLOCK) == LARGE[100 : 3 * BLOCK]
    assert len(rig.loads) == 2
    assert rig.idle()


def test_a_reader_of_a_large_file_is_served_before_the_load_ends() -> None:
    rig = Rig({"a": LARGE})
    rig.cache.prepare(dvc(LARGE, "a"), Span(0, 8 * BLOCK), Urgency.READ_AHEAD)
    answer = pending(rig.read(dvc(LARGE, "a"), 0, BLOCK))
    rig.loads[0].sink.piece(0, LARGE[: BLOCK + 10])
    assert answer.result(0) == LARGE[:BLOCK]
    assert not rig.loads[0].ended


def test_a_broken_span_fails_its_readers_and_no_others() -> None:
    rig = Rig({"a": LARGE})
    content = dvc(LARGE, "a")
    one, other = pending(rig.read(content, 0, BLOCK)), pending(rig.read(content, 4 * BLOCK, 5 * BLOCK))
    rig.loads[0].run(cut_after=100, error=RemoteUnavailable("cut"))
    assert isinstance(one.exception(0), RemoteUnavailable)
    assert not other.done()
    rig.loads[1].run()
    assert other.result(0) == LARGE[4 * BLOCK : 5 * BLOCK]
    again = pending(rig.read(content, 0, BLOCK))
    rig.loads[2].run()
    assert again.result(0) == LARGE[:BLOCK]


def test_a_load_that_ends_early_without_an_error_is_asked_again_and_not_for_ever() -> None:
    rig = Rig({"a": LARGE})
    answer = pending(rig.read(dvc(LARGE, "a"), 0, BLOCK))
    for load in rig.loads:  # grows while it runs
        load.run(cut_after=100)
    assert isinstance(answer.exception(0), DagfsError)
    assert len(rig.loads) <= 5


def test_a_large_file_becomes_whole_and_proved() -> None:
    rig = Rig({"a": LARGE}, manual=False)
    content = dvc(LARGE, "a")
    assert wait(rig.read(content)) == LARGE
    until(lambda: rig.cache.cached(content))
    until(rig.idle)
    assert rig.store.calls["publish"] == 1
    assert rig.read(content) == LARGE


class Spoilt(MemoryStore):
    """Forgets the blocks of a wrong file, as the real one does."""

    def whole(self, content: Content, data: bytes) -> None:
        try:
            super().whole(content, data)
        except IntegrityError:
            self._partials.pop(content.key)._blocks.clear()
            raise


WRONG = LARGE[:100] + b"?" + LARGE[101:]


def wrong_rig(*, manual: bool = False) -> Rig:
    rig = Rig({"a": WRONG}, manual=manual)
    rig.store = Spoilt()
    rig.cache = Cache(rig.store, rig.loader, Metrics())
    return rig


def test_a_large_file_that_was_wrong_gives_nothing_until_it_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagfs.cache.core.WRONG_SECONDS", 0.0)
    rig = wrong_rig()
    content = dvc(LARGE, "a")
    assert wait(rig.read(content, 0, 100)) == LARGE[:100], "not proved yet"
    with pytest.raises(IntegrityError):
        wait(rig.read(content), 20)
    assert content.key in rig.cache._broken
    until(rig.idle)
    with pytest.raises(IntegrityError):
        wait(rig.read(content, 0, 100), 20)
    until(rig.idle)
    rig.loader.files["a"] = LARGE
    assert wait(rig.read(content, 0, 100), 20) == LARGE[:100]
    until(lambda: rig.cache.cached(content))
    assert content.key not in rig.cache._broken


def test_the_read_that_completes_a_wrong_large_file_fails_and_those_before_it_do_not() -> None:
    rig = wrong_rig()
    content, last = dvc(LARGE, "a"), len(LARGE) - BLOCK
    for start in range(0, last, BLOCK):
        assert wait(rig.read(content, start, min(start + BLOCK, last)), 20) == WRONG[start : min(start + BLOCK, last)]
    with pytest.raises(IntegrityError):
        wait(rig.read(content, last), 20)


def test_a_program_that_asks_again_or_reads_on_after_its_file_was_found_wrong_gets_no_other_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dagfs.cache.core.WRONG_SECONDS", 1000.0)
    rig = wrong_rig()
    content = dvc(LARGE, "a")
    with pytest.raises(IntegrityError):
        wait(rig.read(content), 20)
    until(rig.idle)
    rig.loader.files["a"] = LARGE
    loads = len(rig.loads)
    for start in (0, 4 * BLOCK, len(LARGE) - 10):
        with pytest.raises(IntegrityError):
            wait(rig.read(content, start, start + 10), 20)
    rig.cache.prepare(content, Span(0, BLOCK), Urgency.READ_AHEAD)
    assert len(rig.loads) == loads


@pytest.mark.parametrize("ends", [True, False], ids=["once", "before the load has ended"])
def test_the_last_read_waits_for_the_proof_and_no_read_before_it_does(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    rig = Rig({"a": LARGE})
    content, last = dvc(LARGE, "a"), Span(len(LARGE) - 10, len(LARGE))
    go, publish = threading.Event(), MemoryPartial.publish
    monkeypatch.setattr(MemoryPartial, "publish", lambda partial: go.wait(20) and publish(partial))
    footer = pending(rig.read(content, last.start))
    rig.loads[0].run()
    assert footer.result(0) == LARGE[-10:], "of a file that is not there"
    middle, before = BLOCK * 8, pending(rig.read(content, 0, BLOCK * 8))
    rig.loads[1].run()
    assert before.result(0) == LARGE[:middle]
    final = pending(rig.read(content, middle))
    for start in range(middle, len(LARGE), 65536):
        rig.loads[2].sink.piece(start, LARGE[start : start + 65536])
    if ends:
        rig.loads[2].end(None)
    held = pending(rig.read(content, 0, 10))
    assert not final.done()
    go.set()
    assert final.result(20) == LARGE[middle:]
    assert held.result(20) == LARGE[:10]
    rig.loads[2].end(None)
    until(rig.idle)
    assert rig.store.calls["publish"] == 1


def test_a_file_without_an_md5_waits_for_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig({"a": LARGE}, manual=False)
    go, publish = threading.Event(), MemoryPartial.publish
    monkeypatch.setattr(MemoryPartial, "publish", lambda partial: go.wait(20) and publish(partial))
    assert wait(rig.read(git(LARGE, "a")), 5) == LARGE
    assert rig.read(git(LARGE, "a"), 0, 10) == LARGE[:10]
    go.set()
    until(rig.idle)


@pytest.mark.parametrize("why", ["the disk is full", "a block is damaged", "it is refused for ever"])
def test_a_file_that_cannot_be_proved_here_is_given(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    rig = Rig({"a": LARGE}, manual=False)

    def publish(partial: MemoryPartial) -> bool:
        if why == "the disk is full":
            raise OSError(28, why)
        if why == "a block is damaged":
            partial._blocks.pop(3, None)
        return False

    monkeypatch.setattr(MemoryPartial, "publish", publish)
    content = dvc(LARGE, "a")
    for _ in range(2):
        assert wait(rig.read(content, len(LARGE) - 10), 5) == LARGE[-10:]
        rig.cache.prepare(content, Span(0, len(LARGE)), Urgency.READ_AHEAD)
        assert wait(rig.read(content, 0, BLOCK), 5) == LARGE[:BLOCK]
    until(rig.idle)


def test_a_read_that_waits_for_a_proof_when_the_cache_closes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig({"a": LARGE, "b": LARGE[::-1]}, manual=False)
    go, publish = threading.Event(), MemoryPartial.publish
    monkeypatch.setattr(MemoryPartial, "publish", lambda partial: go.wait(20) and publish(partial))
    first, second = pending(rig.read(dvc(LARGE, "a"))), pending(rig.read(dvc(LARGE[::-1], "b")))
    closing = threading.Thread(target=rig.cache.close)
    closing.start()
    until(lambda: rig.cache._closing)
    go.set()
    closing.join(20)
    assert first.result(0) == LARGE
    assert isinstance(second.exception(0), RemoteUnavailable)
    third = rig.read(dvc(LARGE[::-1], "b"), 0, 10)
    assert isinstance(third, Future)
    assert isinstance(third.exception(0), RemoteUnavailable)
    assert rig.idle()


def test_wrong_bytes_of_a_small_file_reach_nobody() -> None:
    rig = Rig({"a": SMALL}, manual=False)
    with pytest.raises(IntegrityError):
        wait(rig.read(claimed("0" * 32, "a", len(SMALL))))
    assert rig.store.calls["put"] == 0
    assert rig.idle()


def test_closing_the_loader_ends_every_wait() -> None:
    rig = Rig({"a": SMALL, "b": LARGE})
    answers = [pending(rig.read(dvc(SMALL, "a"))), pending(rig.read(dvc(LARGE, "b"), 0, 10))]
    rig.loader.close()
    rig.cache.close()
    assert all(isinstance(answer.exception(0), RemoteUnavailable) for answer in answers)
    assert rig.idle()


def test_readers_that_come_while_a_load_ends_cause_no_second_one() -> None:
    files = {f"f{number}": noise(500, number) for number in range(150)}
    rig = Rig(files)
    errors: list[BaseException] = []
    barrier = threading.Barrier(5)

    def read() -> None:
        for path, data in files.items():
            barrier.wait(20)
            try:
                assert wait(rig.read(dvc(data, path)), 20) == data
            except BaseException as error:  # noqa: BLE001 -- told to the test's thread
                errors.append(error)

    def deliver() -> None:
        for number in range(len(files)):
            barrier.wait(20)
            until(lambda number=number: len(rig.loads) > number)  # type: ignore[misc]
            rig.loads[number].run()

    threads = [threading.Thread(target=read) for _ in range(4)] + [threading.Thread(target=deliver)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert len(rig.loads) == len(files)
    assert rig.idle()


def test_many_files_leave_no_state() -> None:
    rig = Rig({f"f{number}": b"%d" % number for number in range(3000)}, manual=False)
    for number in range(3000):
        assert wait(rig.read(dvc(b"%d" % number, f"f{number}"))) == b"%d" % number
    assert rig.idle()
    assert len(rig.cache._just_ended) <= 512


def test_readers_of_a_file_that_grows_are_not_lost_when_its_blocks_end_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig({"a": LARGE})
    answer = pending(rig.read(git(LARGE, "a", sized=False), 0, 100))
    adopt, refused = BlocksFlight.adopt, [True]

    def late(flight: BlocksFlight, *arguments: object) -> object:
        return None if refused and refused.pop() else adopt(flight, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BlocksFlight, "adopt", late)
    rig.loads[0].run()
    assert answer.result(5) == LARGE[:100]


def test_a_reader_whose_blocks_left_memory_while_it_waited_is_served_or_told() -> None:
    rig = Rig({"a": LARGE})
    content = dvc(LARGE, "a")
    rig.read(content, 0, BLOCK)
    rig.loads[0].run()
    waiting = pending(rig.read(content, 0, 2 * BLOCK))
    other = pending(rig.read(content, 4 * BLOCK, 5 * BLOCK))
    partial = rig.store.partial(content, len(LARGE))
    partial._blocks.pop(0)  # as others' blocks do when many come at once
    for load in rig.loads[1:]:
        load.run()
    assert other.result(0) == LARGE[4 * BLOCK : 5 * BLOCK]
    assert not waiting.done()
    for load in rig.loads[3:]:
        load.run()
    assert waiting.result(5) == LARGE[: 2 * BLOCK]


def test_a_proof_that_fails_unexpectedly_leaves_a_flight_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig({"a": LARGE}, manual=False)

    def fail(_: object) -> bool:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(MemoryPartial, "publish", fail)
    assert wait(rig.read(dvc(LARGE, "a")), 5) == LARGE
    until(rig.idle)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("ask", ["read", "prepare"])
def test_a_load_that_ends_after_the_look_into_the_store_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, ask: str, data: bytes
) -> None:
    rig = Rig({"a": data})
    content = dvc(data, "a")
    first = pending(rig.read(content))
    known = rig.cache._known_size

    def late(content: Content) -> int | None:
        for load in rig.loads:
            load.run()
        until(rig.idle)
        return known(content)

    monkeypatch.setattr(rig.cache, "_known_size", late)
    if ask == "read":
        assert wait(rig.read(content), 5) == data
    else:
        rig.cache.prepare(content, None, Urgency.PREFETCH)
    assert first.result(5) == data
    assert len(rig.loads) == 1
