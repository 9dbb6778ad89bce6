"""Which requests wait, and for how long: what `dagfs top` and the metrics are made of."""

from __future__ import annotations

import pytest

from dagfs.kernel.protocol import IN_HEADER, Op
from dagfs.kernel.waiting import BOUNDS, SLOW_KEPT, SLOW_SECONDS, Waiting


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waiting(clock: Clock) -> Waiting:
    return Waiting(clock)


def request(unique: int, node: int, pid: int) -> bytes:
    return IN_HEADER.pack(IN_HEADER.size, Op.READ, unique, node, 0, 0, pid, 0, 0)


def waits(waiting: Waiting, clock: Clock, node: int, seconds: float) -> None:
    waiting.begin(node, Op.READ, node, request(node, node, 1))
    clock.now += seconds
    waiting.end(node)


def test_who_waits_is_told_with_pid_and_seconds_the_longest_first(waiting, clock):
    waiting.begin(1, Op.READ, 11, request(1, 11, 501))
    clock.now += 2
    waiting.begin(2, Op.LOOKUP, 12, request(2, 12, 502), b"name")
    clock.now += 1
    assert [(seconds, one.pid, one.node, one.name) for seconds, one in waiting.now()] == [
        (3.0, 501, 11, b""),
        (1.0, 502, 12, b"name"),
    ]
    waiting.end(1)
    waiting.end(1)
    assert [one.pid for _, one in waiting.now()] == [502]


def test_each_wait_falls_into_one_class_of_the_histogram(waiting, clock):
    for node, seconds in enumerate((0.004, BOUNDS[0] * 1.5, 400.0)):
        waits(waiting, clock, node, seconds)
    classes, total = waiting.histogram()
    assert (classes[0], classes[1], classes[-1], sum(classes)) == (1, 1, 1, 3)
    assert total == pytest.approx(400.0 + 0.004 + BOUNDS[0] * 1.5)


def test_only_the_slowest_files_are_kept_however_many_are_read(waiting, clock):
    for node in range(10 * SLOW_KEPT):
        waits(waiting, clock, node, 0.001 * (node % 100))
    slow = [one for _, one in waiting.slowest()]
    assert len(slow) == SLOW_KEPT
    assert slow[0].seconds == pytest.approx(0.099)
    assert min(one.seconds for one in slow) > 0.085


def test_a_file_keeps_its_longest_wait(waiting, clock):
    for seconds in (1.0, 3.0, 2.0):
        waits(waiting, clock, 7, seconds)
    ((ago, slow),) = waiting.slowest()
    assert (slow.seconds, ago) == (3.0, 2.0)


def test_an_old_wait_makes_room_for_a_shorter_one(waiting, clock):
    for node in range(SLOW_KEPT):
        waits(waiting, clock, node, 5.0)
    clock.now += SLOW_SECONDS + 1
    waits(waiting, clock, 99, 0.5)
    assert [slow.node for _, slow in waiting.slowest()] == [99]
