"""Any order of real system calls on a real mount, while the cache evicts, the hub fails and workers are killed."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from support.machines import PROFILE, MountMachine


def machine_on(truth, which):
    return type("Machine", (MountMachine,), {"sample": truth, "driver": which})


def test_any_order_of_system_calls_shows_the_truth(sample, driver):
    run_state_machine_as_test(
        machine_on(sample, driver), settings=settings(PROFILE, max_examples=2, stateful_step_count=80)
    )


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_any_long_order_of_system_calls_shows_the_truth(sample, driver):
    profile = settings(PROFILE, max_examples=15, stateful_step_count=400)
    run_state_machine_as_test(machine_on(sample, driver), settings=profile)
