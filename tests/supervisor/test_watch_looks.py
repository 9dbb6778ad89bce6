"""What the watch makes of its notes: questions put and answered, as it finds them at each look."""

from __future__ import annotations

import ctypes
import os

import pytest

from dagfs.kernel.mounting import Mount
from dagfs.supervisor.watch import _NOTES, MISSED, Watch


@pytest.fixture
def watch():
    one = Watch(Mount(-1, "/", None), 1.0, ctypes.CDLL(None))
    one._asker = os.getpid()  # one that runs
    yield one
    one._asker = 0
    one.end()


def looks(watch: Watch, notes: list[tuple[int, int]]) -> list[bool]:
    found = []
    for each in notes:
        watch._notes[:] = _NOTES.pack(*each)
        found.append(watch.look())
    return found


def test_a_question_that_stays_open_is_found_after_some_looks(watch):
    assert looks(watch, [(1, 1), *[(2, 1)] * (MISSED + 1)]) == [False] * (MISSED + 1) + [True]


def test_another_open_question_at_each_look_is_a_slow_answer_and_no_stuck_worker(watch):
    assert looks(watch, [(n, n - 1) for n in range(1, 50) for _ in range(MISSED)]) == [False] * 49 * MISSED


def test_an_answered_question_is_never_overdue_and_a_new_worker_has_all_the_time(watch):
    assert not any(looks(watch, [(1, 1)] * 10 * MISSED))
    assert not any(looks(watch, [(2, 1)] * MISSED))
    before = watch.last_answer
    watch.begin()
    assert watch.last_answer > before
    assert not any(looks(watch, [(2, 1)] * (MISSED - 1)))
    assert looks(watch, [(2, 1)]) == [True]
