"""How many transfers run: grows while it helps, shrinks when refused, always leaves room for readers."""

from __future__ import annotations

import math

import pytest

from dagfs.fetch.pace import FILLED, SAMPLES, SPARE, Pace
from dagfs.fetch.queue import GUESSED_BYTES_MAX, Queue
from dagfs.fetch.slots import CEILING, FLOOR, LENT_MAX, LOOK, RATED, SILENCE, START, Slots
from dagfs.model import Urgency


def run(slots: Slots, seconds: float, rate: float, now: float, *, crowded: bool = True) -> float:
    """End transfers of 100 KB at `rate` bytes a second for a while; gives the time then."""
    until = now + seconds
    while now < until:
        now += 100_000 / rate
        slots.ended(100_000, now, busy=True, crowded=crowded)
    return now


def test_the_number_grows_while_throughput_does() -> None:
    slots, now = Slots(), 0.0
    for _ in range(200):
        now = run(slots, 0.3, 1e6 * slots.limit, now)
    assert slots.limit == CEILING


def test_the_number_stays_when_more_does_not_help() -> None:
    slots = Slots()
    run(slots, 60, 50e6, 0.0)
    assert START <= slots.limit <= 2 * START


def test_an_idle_queue_says_nothing() -> None:
    slots = Slots()
    for number in range(1000):
        slots.ended(100_000, number / (1 + number), busy=False, crowded=False)
    assert slots.limit == START


def test_a_refusal_halves_it_once_for_a_burst_and_pauses() -> None:
    slots = Slots()
    for number in range(10):
        slots.refused(5.0 + number / 100, 30.0)
    assert slots.limit == START // 2
    assert slots.paused_until == 5.09 + 30.0
    for number in range(20):
        slots.refused(100.0 + 2 * number, None)
    assert slots.limit == FLOOR
    assert slots.lower >= 1


def test_it_grows_again_after_a_refusal() -> None:
    slots, now = Slots(), 0.0
    slots.refused(0.0, None)
    for _ in range(100):
        now = run(slots, 0.3, 1e6 * slots.limit, now)
    assert slots.limit > START


class Load:
    def __init__(self, urgency: Urgency, weight: int = 1, heard: float = 0.0) -> None:
        self.urgency = urgency
        self.weight = weight
        self.heard = heard


def test_classes_are_served_in_order_and_first_come_first() -> None:
    queue = Queue(Slots(64))
    loads = [Load(urgency) for urgency in (*reversed(Urgency), *Urgency)]
    queue.pace.measured(0.02, 0.001)
    for load in loads:
        queue.add(load)
    order = [queue.start(number / 1000, guesses=True) for number, _ in enumerate(loads)]
    assert order == sorted(loads, key=lambda load: load.urgency)


def test_bets_start_only_in_what_a_waiting_reader_leaves_idle() -> None:
    queue = Queue(Slots(64))
    for _ in range(20):
        queue.add(Load(Urgency.BET))
    assert queue.start(0.0, guesses=True) is None, "nothing is known of the link yet"
    queue.pace.measured(0.020, 0.004)
    queue.add(reader := Load(Urgency.READER))
    assert queue.start(1.0, guesses=True) is reader
    assert queue.start(1.003, guesses=True) is None, "its bytes would come together with the reader's"
    assert queue.bets_at(1.003) == 1.004
    assert [queue.start(1.004, guesses=True) is None for _ in range(6)] == [False] * 3 + [True] * 3
    assert queue.start(1.021, guesses=True) is None
    queue.ended(reader, 1.024)
    assert queue.bets_at(1.024) == pytest.approx(1.029), "it may ask for the next at once"
    assert queue.start(1.03, guesses=True) is not None, "nobody waits: as many as the link carries in a round trip"


def test_a_quarter_of_the_slots_is_the_readers() -> None:
    queue = Queue(Slots(16))
    for _ in range(20):
        queue.add(Load(Urgency.READ_AHEAD))
    started = 0
    while queue.start(0.0, guesses=True):
        started += 1
    assert started == 12
    for _ in range(6):
        queue.add(Load(Urgency.READER))
    readers = 0
    while queue.start(0.0, guesses=True):
        readers += 1
    assert readers == 4


def test_guesses_hold_a_bounded_number_of_bytes() -> None:
    queue = Queue(Slots(64))
    for _ in range(64):
        queue.add(Load(Urgency.PREFETCH, 8 << 20))
    started = 0
    while queue.start(0.0, guesses=True):
        started += 1
    assert started == GUESSED_BYTES_MAX // (8 << 20)


def test_nothing_starts_in_a_pause() -> None:
    queue = Queue(Slots())
    queue.add(Load(Urgency.READER))
    queue.slots.refused(10.0, 5.0)
    assert queue.start(14.9, guesses=True) is None
    assert queue.start(15.0, guesses=True) is not None


def start_all(queue: Queue, now: float) -> list[Load]:
    """Start what may run at one moment."""
    started = []
    while (load := queue.start(now, guesses=True)) is not None:
        started.append(load)
    return started


def test_a_silent_transfer_lends_its_slot_to_a_reader_and_to_nobody_else() -> None:
    queue = Queue(Slots(8))
    for _ in range(8):
        queue.add(Load(Urgency.READER))
    silent = start_all(queue, 0.0)
    assert len(silent) == 8
    queue.add(Load(Urgency.READ_AHEAD))
    assert queue.lends_at() == math.inf, "no reader waits, so nobody looks"
    queue.add(reader := Load(Urgency.READER))
    assert queue.start(SILENCE - 0.1, guesses=True) is None
    assert queue.lends_at() == pytest.approx(SILENCE - 0.1 + LOOK)
    assert start_all(queue, queue.lends_at()) == [reader]


def test_a_slot_that_was_lent_is_taken_back_when_bytes_come_again_and_given_up_at_the_end() -> None:
    queue = Queue(Slots(2))
    for _ in range(4):
        queue.add(Load(Urgency.READER))
    first = start_all(queue, 0.0)
    now = SILENCE + LOOK
    second = start_all(queue, now)
    assert (len(first), len(second)) == (2, 2)
    first[0].heard = second[0].heard = second[1].heard = now + LOOK
    queue.add(last := Load(Urgency.READER))
    assert start_all(queue, now + LOOK) == []
    queue.ended(first[1], now + LOOK)
    assert start_all(queue, now + LOOK) == [], "three move, for two slots"
    queue.ended(first[0], now + LOOK)
    queue.ended(second[0], now + LOOK)
    assert start_all(queue, now + LOOK) == [last]


def test_the_slots_that_are_lent_have_a_bound() -> None:
    queue = Queue(Slots(START))
    for _ in range(2 * (START + LENT_MAX)):
        queue.add(Load(Urgency.READER))
    started = sum(len(start_all(queue, round_ * SILENCE)) for round_ in range(100))
    assert started == START + LENT_MAX


def test_while_transfers_bring_bytes_nothing_is_lent() -> None:
    queue = Queue(Slots(4))
    for _ in range(8):
        queue.add(Load(Urgency.READER))
    running = start_all(queue, 0.0)
    for second in range(100):
        for load in running:
            load.heard = float(second)
        assert start_all(queue, second + 0.9) == []


def beside_readers(slots: Slots, now: float, quickest: float, *, samples: int = 1, readers: int = 4) -> int:
    """Start guesses while readers wait for files of their own; give how many may run; `quickest` in seconds."""
    queue = Queue(slots)
    for _ in range(samples):
        queue.pace.measured(0.9 * quickest, 0.1 * quickest)
    for _ in range(readers):
        queue.add(Load(Urgency.READER))
    for _ in range(100):
        queue.add(Load(Urgency.PREFETCH))
    return len(start_all(queue, now)) - readers


def full_link(seconds: float, rate: float) -> Slots:
    """Give slots that have found out that more than `rate` bytes a second do not come."""
    slots = Slots()
    run(slots, seconds, rate, 0.0)
    return slots


def test_guesses_fill_the_link_and_no_more_while_readers_wait_for_what_nobody_foresaw() -> None:
    slots = full_link(3, 50e6)  # 500 transfers a second
    assert beside_readers(slots, 3.0, 0.022) == math.ceil(FILLED * 11 + SPARE) - 4  # the link holds 11
    assert beside_readers(slots, 3.0, 0.022, readers=1) == slots.lower - 1, "its epoch ends with the last byte"
    assert beside_readers(slots, 3.0 + RATED, 0.022) == slots.lower - 4, "the link may be faster by now"


def test_guesses_use_all_slots_where_more_transfers_bring_more() -> None:
    slots, now = Slots(), 0.0
    for _ in range(50):
        now = run(slots, 0.3, 1e6 * slots.limit, now)  # 0.1 s each, however many run
    assert beside_readers(slots, now, 0.1) == slots.lower - 4


def test_the_link_is_not_taken_for_full_before_that_was_seen_nor_after_a_refusal() -> None:
    assert beside_readers(Slots(), 0.0, 0.022) == Slots().lower - 4
    slots = Slots()
    run(slots, 3, 50e6, 0.0, crowded=False)
    assert beside_readers(slots, 3.0, 0.022) == slots.lower - 4, "it was not tried with all slots"
    slots = full_link(3, 50e6)
    assert beside_readers(slots, 3.0, 0.022, samples=0) == slots.lower - 4
    slots.refused(3.0, None)
    assert beside_readers(slots, 3.0, 0.022) == slots.lower - 4


def test_a_link_that_brings_more_than_it_did_is_filled_with_more() -> None:
    slots = full_link(3, 50e6)
    run(slots, 1, 100e6, 3.0, crowded=False)
    assert slots.rate(4.0) == pytest.approx(1000, rel=0.1)


def test_a_way_that_has_become_longer_is_noticed() -> None:
    pace = Pace()
    pace.started("a reader", 0.0)
    pace.started("another", 0.0)
    for seconds in (0.02, *[0.2] * (2 * SAMPLES)):
        pace.measured(seconds, 0.0)
    assert pace.filled(running=26, rate=100.0) is False
    assert pace.filled(running=27, rate=100.0) is True
