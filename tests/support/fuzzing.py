"""How the fuzz tests draw: the same examples at each `make test`, and many more, other ones, under `make stress`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

VARIABLE = "DAGFS_FUZZ_EXAMPLES"
EXAMPLES = int(os.environ.get(VARIABLE, "150"))

fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=VARIABLE not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
