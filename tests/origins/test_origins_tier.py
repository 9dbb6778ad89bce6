"""The tier over an object store in memory: who fetches, who waits, and what is brought."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

import pytest
from support.waiting import until

from dagfs.errors import AccessDenied, DagfsError, RemoteUnavailable
from dagfs.fetch.seam import PART
from dagfs.hub.memory import MemorySource
from dagfs.model import Content, Entry, Span, content_of
from dagfs.origins.leases import Leases, lease_key, name_of
from dagfs.origins.memory import MemoryObjects
from dagfs.origins.seam import object_key
from dagfs.origins.source import WaysSource
from dagfs.origins.tier import Tier
from dagfs.proofs import prove
from dagfs.store.memory import MemoryStore

LEASE = 2.0
DATA = b"content " * 100
MD5 = hashlib.md5(DATA).hexdigest()
LARGE = bytes(range(256)) * 40_000


class Body:
    """Takes a body, and waits for it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size: int | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()

    def head(self, head) -> None:
        self.size = head.total

    def data(self, chunk: bytes) -> None:
        self.pieces.append(chunk)

    def done(self, error) -> None:
        assert not self.ended.is_set(), "told twice"
        self.error = error
        self.ended.set()

    def wait(self, seconds: float = 10.0) -> bytes:
        assert self.ended.wait(seconds), "no end came"
        if self.error is not None:
            raise self.error
        return b"".join(self.pieces)


class Machine:
    """One node: a hub of its own counts what this node asks."""

    def __init__(self, objects: MemoryObjects, files: dict[str, bytes], *, ranged: bool = True) -> None:
        self.hub = MemorySource(files, ranged=ranged)
        self.store = MemoryStore()
        self.tier = Tier("tier", objects, self.store.find, Leases(objects, name_of(str(id(self))), LEASE))
        self.source = WaysSource(self.hub, self.tier, [])

    def entry(self, path: str, *, sized: bool = True) -> Entry:
        return self.hub.describe(self.hub.commit, path, sized=sized)

    def ask(self, path: str, span: Span | None = None, *, sized: bool = True) -> Body:
        sink = Body()
        self.transfer = self.source.open(self.hub.commit, self.entry(path, sized=sized), span, sink)
        return sink

    def keep(self, path: str, data: bytes) -> None:
        """What the cache does with a file that has come."""
        content = content_of(self.hub.repo, self.hub.commit, self.entry(path))
        self.store.put(content, data, prove(content, data))
        self.source.kept(content)

    def content(self, path: str) -> Content:
        return content_of(self.hub.repo, self.hub.commit, self.entry(path))

    def opened(self, path: str) -> int:
        return self.hub.calls[f"open:{path}"]

    def close(self) -> None:
        self.source.close()


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def machines(objects: MemoryObjects) -> Iterator[list[Machine]]:
    made = [Machine(objects, {"a": DATA}) for _ in range(3)]
    yield made
    for machine in made:
        machine.close()


@pytest.fixture
def two(objects: MemoryObjects) -> Iterator[list[Machine]]:
    """Machines with a large file: a hub in memory takes a second to name the commit."""
    made = [Machine(objects, {"a": DATA, "large": LARGE}) for _ in range(2)]
    yield made
    for machine in made:
        machine.close()


def test_one_machine_fetches_and_the_others_wait_for_it(objects: MemoryObjects, machines: list[Machine]) -> None:
    first, *others = machines
    first.hub.hold("a")
    leading = first.ask("a")
    until(lambda: lease_key(MD5) in objects.objects)
    waiting = [machine.ask("a") for machine in others]
    time.sleep(0.3)
    assert not any(body.ended.is_set() for body in waiting)
    first.hub.release("a")
    assert leading.wait() == DATA
    first.keep("a", DATA)
    assert [body.wait() for body in waiting] == [DATA, DATA]
    assert [machine.opened("a") for machine in machines] == [1, 0, 0]
    assert objects.objects[object_key(MD5)] == DATA
    until(lambda: lease_key(MD5) not in objects.objects)


def test_the_lease_of_a_machine_that_died_is_taken_over_by_one(objects: MemoryObjects, machines: list[Machine]) -> None:
    objects.objects[lease_key(MD5)] = b"a dead one"
    bodies = [machine.ask("a") for machine in machines]
    until(lambda: any(body.ended.is_set() for body in bodies))
    (leader,) = [machine for machine, body in zip(machines, bodies, strict=True) if body.ended.is_set()]
    leader.keep("a", DATA)
    assert [body.wait() for body in bodies] == [DATA] * 3
    assert sum(machine.opened("a") for machine in machines) == 1
    assert leader.tier.report()["taken over"] == 1


def test_a_machine_whose_fetch_fails_lets_the_next_one_try_at_once(machines: list[Machine]) -> None:
    first, second, _ = machines
    first.hub.hold("a", 0)
    first.hub.fail("open:a", RemoteUnavailable("down"), after=10)
    failing = first.ask("a")
    until(lambda: first.opened("a") == 1)
    waiting = second.ask("a")
    first.hub.release("a")
    with pytest.raises(RemoteUnavailable, match="down"):
        failing.wait()
    assert waiting.wait() == DATA
    assert second.opened("a") == 1
    assert second.tier.report().get("taken over", 0) == 0


def test_who_gives_up_waiting_is_told_at_once_and_leaves_no_lease(
    objects: MemoryObjects, machines: list[Machine]
) -> None:
    objects.objects[lease_key(MD5)] = b"another one"
    body = machines[0].ask("a")
    time.sleep(0.1)
    machines[0].transfer.cancel()
    assert body.ended.wait(0.5)
    assert isinstance(body.error, RemoteUnavailable)
    time.sleep(1.5 * LEASE)
    assert objects.objects[lease_key(MD5)] == b"another one"
    assert machines[0].opened("a") == 0


def test_the_next_worker_of_a_mount_takes_up_the_leases_of_the_one_that_was_killed(
    objects: MemoryObjects, machines: list[Machine]
) -> None:
    objects.objects[lease_key(MD5)] = name_of(str(id(machines[0]))).encode()
    before = time.monotonic()
    assert machines[0].ask("a").wait() == DATA
    assert time.monotonic() - before < LEASE / 2
    assert machines[0].tier.report().get("waited", 0) == 0
    machines[0].keep("a", DATA)
    until(lambda: lease_key(MD5) not in objects.objects)


def test_a_cancelled_fetch_gives_its_lease_back(objects: MemoryObjects, machines: list[Machine]) -> None:
    machines[0].hub.hold("a")
    body = machines[0].ask("a")
    until(lambda: machines[0].opened("a") == 1)
    machines[0].transfer.cancel()
    assert body.ended.wait(5)
    until(lambda: lease_key(MD5) not in objects.objects, seconds=5)


def test_a_little_of_a_large_file_takes_no_lease_and_is_looked_for_once_in_a_while(
    objects: MemoryObjects, two: list[Machine]
) -> None:
    md5 = hashlib.md5(LARGE).hexdigest()
    for start in range(0, 4_000_000, 1_000_000):
        span = Span(start, start + 100_000)
        assert two[0].ask("large", span).wait() == LARGE[span.start : span.end]
    assert objects.calls == {f"open {object_key(md5)}": 1}
    two[0].keep("large", LARGE)
    until(lambda: object_key(md5) in objects.objects)
    assert two[1].ask("large", Span(5_000_000, 5_000_100)).wait() == LARGE[5_000_000:5_000_100]
    assert two[1].opened("large") == 0


PARTS = [Span(start, min(start + PART, len(LARGE))) for start in range(0, len(LARGE), PART)]


def test_machines_that_begin_a_large_file_at_once_fetch_each_part_once(
    objects: MemoryObjects, two: list[Machine]
) -> None:
    whole = Span(0, len(LARGE))
    bodies = [machine.ask("large", whole) for machine in two]
    assert [body.wait() for body in bodies] == [LARGE, LARGE]
    assert [body.size for body in bodies] == [len(LARGE)] * 2
    assert sum(machine.opened("large") for machine in two) == len(PARTS)
    for machine in two:
        until(lambda machine=machine: machine.tier.report()["writing"]["waiting"] == 0)
        machine.keep("large", LARGE)
    key = object_key(hashlib.md5(LARGE).hexdigest())
    until(lambda: objects.objects.keys() == {key})  # no part, no lease
    for machine in two:
        machine.close()
    assert objects.calls[f"write {key}"] <= 2


def test_a_large_file_whose_size_nobody_knows_is_shared_as_soon_as_the_hub_has_told_it(two: list[Machine]) -> None:
    """Each machine asks the hub for the size; what comes with it is cut off."""
    beginning = Span(0, 8 << 20)
    bodies = [machine.ask("large", beginning, sized=False) for machine in two]
    assert [body.wait() for body in bodies] == [LARGE[: 8 << 20]] * 2
    assert [body.size for body in bodies] == [len(LARGE)] * 2
    assert sum(machine.opened("large") for machine in two) == 2 + 8


def test_a_large_file_that_another_machine_has_brought_is_not_sent_again(
    objects: MemoryObjects, two: list[Machine]
) -> None:
    key = object_key(hashlib.md5(LARGE).hexdigest())
    for machine in two:
        assert machine.ask("large", Span(0, 100)).wait() == LARGE[:100]  # it is missing for both
    for machine in two:
        machine.keep("large", LARGE)
        machine.close()
    assert objects.calls[f"write {key}"] == 1
    assert two[1].tier.report()["writing"]["there already"] == 1


def test_a_span_brings_whole_parts_for_the_others_and_its_own_bytes_for_the_reader(
    objects: MemoryObjects, two: list[Machine]
) -> None:
    """Half of a part and more is asked for as a part, less as it is."""
    md5 = hashlib.md5(LARGE).hexdigest()
    span = Span(PART // 4, 3 * PART + PART // 4)
    assert two[0].ask("large", span).wait() == LARGE[span.start : span.end]
    parts = {f"dagfs/parts/{md5}/{start * PART}" for start in range(3)}
    until(lambda: objects.objects.keys() == parts)
    assert two[1].ask("large", Span(0, 3 * PART)).wait() == LARGE[: 3 * PART]
    assert [machine.opened("large") for machine in two] == [4, 0]


def test_a_hub_without_ranges_sends_the_whole_file_once(objects: MemoryObjects) -> None:
    machine = Machine(objects, {"large": LARGE}, ranged=False)
    try:
        assert machine.ask("large", Span(0, len(LARGE))).wait() == LARGE
        assert machine.opened("large") == 1
    finally:
        machine.close()


def test_the_part_of_a_machine_that_died_is_taken_over(objects: MemoryObjects, two: list[Machine]) -> None:
    md5 = hashlib.md5(LARGE).hexdigest()
    objects.objects[lease_key(f"{md5}-{PART}")] = b"a dead one"
    bodies = [machine.ask("large", Span(0, 3 * PART)) for machine in two]
    assert [body.wait() for body in bodies] == [LARGE[: 3 * PART]] * 2
    assert sum(machine.opened("large") for machine in two) == 3
    assert sum(machine.tier.report().get("taken over", 0) for machine in two) == 1


def test_a_part_of_another_size_is_a_miss(objects: MemoryObjects, two: list[Machine]) -> None:
    md5 = hashlib.md5(LARGE).hexdigest()
    objects.objects[f"dagfs/parts/{md5}/0"] = b"short"
    assert two[0].ask("large", Span(0, 2 * PART)).wait() == LARGE[: 2 * PART]
    assert two[0].tier.report()["wrong"] == 1


def test_wrong_bytes_of_a_part_are_told_by_who_proves_the_file_and_go_with_it(
    objects: MemoryObjects, two: list[Machine]
) -> None:
    md5 = hashlib.md5(LARGE).hexdigest()
    objects.objects[f"dagfs/parts/{md5}/0"] = bytes(PART)
    whole = Span(0, len(LARGE))
    assert two[0].ask("large", whole).wait() == bytes(PART) + LARGE[PART:]
    two[0].source.disproved(two[0].content("large"))
    assert two[0].ask("large", whole).wait() == LARGE
    two[0].keep("large", LARGE)
    until(lambda: objects.objects.keys() == {object_key(md5)})
    assert objects.objects[object_key(md5)] == LARGE


def test_who_gives_up_in_a_large_file_leaves_no_lease(objects: MemoryObjects, two: list[Machine]) -> None:
    two[0].hub.hold("large")
    body = two[0].ask("large", Span(0, len(LARGE)))
    until(lambda: two[0].opened("large") == 1)
    two[0].transfer.cancel()
    assert body.ended.wait(5)
    assert isinstance(body.error, DagfsError)
    until(lambda: objects.objects == {}, seconds=5)
    two[0].hub.release("large")
    assert two[0].opened("large") == 1


@pytest.mark.parametrize(
    ("tag", "asked_of_hub"), [(None, 1), (hashlib.md5(LARGE).hexdigest(), 0)], ids=["opaque", "its MD5"]
)
def test_the_size_of_a_large_file_is_the_hubs_word_or_proved_by_the_stores_tag(
    objects: MemoryObjects, two: list[Machine], tag: str | None, asked_of_hub: int
) -> None:
    key = object_key(hashlib.md5(LARGE).hexdigest())
    objects.objects[key] = LARGE
    if tag:
        objects.tags[key] = f'"{tag}"'
    first = two[0].ask("large", Span(0, 8 << 20), sized=False)
    assert first.wait() == LARGE[: 8 << 20]
    assert first.size == len(LARGE)
    assert two[0].opened("large") == asked_of_hub


def test_what_proved_wrong_is_not_asked_for_again_until_it_is_replaced(
    objects: MemoryObjects, machines: list[Machine]
) -> None:
    key = object_key(MD5)
    objects.objects[key] = DATA[:-1] + b"?"
    for _ in range(3):
        assert machines[0].ask("a").wait() == DATA
    assert objects.calls[f"open {key}"] == 1
    assert machines[0].tier.report()["wrong"] == 1
    machines[0].keep("a", DATA)
    until(lambda: objects.objects[key] == DATA)
    assert machines[1].ask("a").wait() == DATA
    assert machines[1].opened("a") == 0


def test_a_file_is_brought_once_however_often_it_is_kept(objects: MemoryObjects, machines: list[Machine]) -> None:
    assert machines[0].ask("a").wait() == DATA
    for _ in range(5):
        machines[0].keep("a", DATA)
    until(lambda: object_key(MD5) in objects.objects)
    machines[0].keep("a", DATA)
    machines[0].close()
    assert objects.calls[f"create {object_key(MD5)}"] == 1


def test_a_damaged_copy_of_the_cache_does_not_reach_the_tier(objects: MemoryObjects, two: list[Machine]) -> None:
    machine = two[0]
    for path, data in (("a", DATA), ("large", LARGE)):
        content = machine.content(path)
        wrong = bytes(len(data))
        machine.ask(path, None if path == "a" else Span(0, 100)).wait()
        machine.store.put(content, wrong, prove(content, data))
        machine.source.kept(content)
    machine.close()
    assert [key for key in objects.objects if key.startswith("files/")] == []


def test_a_tier_that_fails_is_not_asked_and_nothing_waits_for_it(
    objects: MemoryObjects, machines: list[Machine]
) -> None:
    objects.failing = AccessDenied("not you")
    for _ in range(10):
        assert machines[0].ask("a").wait() == DATA
    assert sum(objects.calls.values()) == 1
    assert machines[0].tier.report()["state"] == "resting"


def test_wrong_bytes_of_a_large_file_are_told_by_who_proves_it(two: list[Machine], objects: MemoryObjects) -> None:
    md5 = hashlib.md5(LARGE).hexdigest()
    objects.objects[object_key(md5)] = bytes(len(LARGE))
    assert two[0].ask("large", Span(100, 200)).wait() == bytes(100)
    two[0].source.disproved(two[0].content("large"))
    assert two[0].ask("large", Span(100, 200)).wait() == LARGE[100:200]
    two[0].keep("large", LARGE)
    until(lambda: objects.objects[object_key(md5)] == LARGE)
