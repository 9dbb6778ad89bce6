"""The link: what it carries in how long, by a clock of the test's own."""

from __future__ import annotations

import heapq
from collections import Counter

import pytest

from dagfs.devhub.link import Link


class Clock:
    """Time that passes only while somebody sleeps, and `late` seconds longer than asked."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 100.0
        self.late = late

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late


def body(link: Link, size: int) -> None:
    since = None
    for _ in range(size // link.quantum):
        since = link.carry(link.quantum, since)


@pytest.mark.parametrize("mbit", [1, 10, 100, 1000, 10_000])
def test_a_body_takes_as_long_as_the_link_needs(mbit: float) -> None:
    clock = Clock()
    link = Link(mbit * 125_000, clock, clock.sleep)
    size = 200 * link.quantum
    body(link, size)
    assert clock.now - 100 == pytest.approx(size / (mbit * 125_000), rel=1e-6)


@pytest.mark.parametrize("mbit", [10, 100, 1000])
def test_sleeping_too_long_costs_no_bandwidth(mbit: float) -> None:
    clock = Clock(late=0.001)
    link = Link(mbit * 125_000, clock, clock.sleep)
    size = 500 * link.quantum
    body(link, size)
    assert clock.now - 100 == pytest.approx(size / (mbit * 125_000), rel=0.02)


def test_an_idle_link_saves_nothing_up() -> None:
    clock = Clock()
    link = Link(1_000_000, clock, clock.sleep)
    link.carry(1000)
    clock.now += 60
    before = clock.now
    link.carry(100_000)
    assert clock.now - before == pytest.approx(0.1)


def test_a_sender_that_waited_for_its_client_makes_up_for_little() -> None:
    clock = Clock()
    link = Link(1_000_000, clock, clock.sleep)
    since = link.carry(1000)
    clock.now += 60
    before = clock.now
    for _ in range(100):
        since = link.carry(4096, since)
    assert clock.now - before == pytest.approx(0.4096 - 0.05, rel=0.01)


def test_connections_share_the_link_fairly() -> None:
    clock = Clock()
    link = Link(4_000_000, clock, lambda _seconds: None)
    carried = Counter[int]()
    ready: list[tuple[float, int, float | None]] = [(clock.now, sender, None) for sender in range(4)]
    while ready[0][0] < 101:
        clock.now, sender, since = heapq.heappop(ready)
        done = link.carry(link.quantum, since)
        carried[sender] += link.quantum
        heapq.heappush(ready, (done, sender, done))
    assert sum(carried.values()) == pytest.approx(4_000_000, rel=0.02)
    assert max(carried.values()) - min(carried.values()) <= link.quantum
