"""Which deaths of workers are followed by a restart, after which pause, and which end the mount."""

from __future__ import annotations

import signal

from dagfs.supervisor.policy import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_FAULTS,
    SETTLED,
    UNSERVED,
    Ended,
    Restarts,
    oom_kills,
)

KILLED = Ended(0, signal.SIGKILL)
CRASHED = Ended(0, signal.SIGSEGV)
FAILED = Ended(1, 0)


def lives(restarts: Restarts, ended: Ended, start: float, served: float | None, last_answer: float | None = None):
    """One worker starts, is ready at once, and dies after `served` seconds; None: it dies before it is ready."""
    if served is not None:
        restarts.ready(start)
    died = start + (served or 0.0)
    return restarts.died(ended, died if last_answer is None else last_answer, died)


def test_a_worker_killed_every_second_is_replaced_at_once_for_ever():
    restarts = Restarts(0)
    for second in range(600):
        assert lives(restarts, KILLED, second, 0.9) is None
        assert restarts.pause == 0


def test_workers_that_die_soon_of_themselves_are_given_up_after_some_whatever_kills_come_between():
    for ended in (CRASHED, FAILED, Ended(0, signal.SIGKILL, starved=True), Ended(0, signal.SIGKILL, stuck=True)):
        restarts = Restarts(0)
        for turn in range(MAX_FAULTS - 1):
            assert lives(restarts, ended, 4 * turn, 1) is None
            assert lives(restarts, KILLED, 4 * turn + 2, 1) is None
        assert str(ended) in lives(restarts, ended, 4 * MAX_FAULTS, 1)


def test_a_worker_that_worked_for_a_while_before_it_crashed_is_worth_another_one():
    restarts = Restarts(0)
    for turn in range(10 * MAX_FAULTS):
        assert lives(restarts, CRASHED, turn * 2 * SETTLED, SETTLED) is None
        assert restarts.pause == 0
        assert restarts.settled
    lives(restarts, CRASHED, 1000 * SETTLED, 1)
    assert not restarts.settled


def test_a_stuck_worker_has_worked_until_its_last_answer():
    restarts = Restarts(0)
    stuck = Ended(0, signal.SIGKILL, stuck=True)
    lived = SETTLED + 30
    said = [lives(restarts, stuck, turn * lived, lived, turn * lived + 1) for turn in range(MAX_FAULTS)]
    assert said[:-1] == [None] * (MAX_FAULTS - 1)
    assert "stuck" in said[-1]


def test_workers_that_are_killed_before_they_serve_are_given_up_when_programs_have_waited_long_enough():
    restarts = Restarts(0)
    assert lives(restarts, KILLED, 0, 1) is None
    turns = [lives(restarts, KILLED, second, None) for second in range(2, 300)]
    assert turns.index(next(said for said in turns if said)) + 2 == UNSERVED + 1


def test_pauses_grow_to_a_bound_and_end_with_a_worker_that_serves():
    restarts = Restarts(0)
    pauses = []
    for second in range(40):
        lives(restarts, KILLED, second, None)
        pauses.append(restarts.pause)
    assert pauses[:4] == [0, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE
    lives(restarts, KILLED, 41, 1)
    assert restarts.pause == 0


def test_a_kill_for_want_of_memory_is_not_from_outside_and_the_kernel_tells_of_it(tmp_path):
    assert KILLED.from_outside
    assert Ended(0, signal.SIGTERM).from_outside
    assert Ended(128 + signal.SIGTERM, 0).from_outside
    assert not Ended(0, signal.SIGKILL, starved=True).from_outside
    assert not CRASHED.from_outside
    rows = tmp_path / "vmstat"
    rows.write_text("nr_free_pages 7\noom_kill 3\nthp_fault_alloc 5\n")
    assert oom_kills(str(rows)) == 3
    assert oom_kills(str(tmp_path / "none")) == 0


def test_a_worker_that_says_again_that_it_serves_has_served_since_the_first_time():
    restarts = Restarts(0)
    restarts.ready(0)
    restarts.ready(SETTLED)  # it shows another commit
    assert restarts.died(CRASHED, SETTLED + 1, SETTLED + 1) is None
    assert restarts.settled
