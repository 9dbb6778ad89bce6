"""The same properties for many more examples, drawn anew each time: `make stress`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fuzzing import VARIABLE

HERE = Path(__file__).parent


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("test_fuzz_*.py") if path != Path(__file__)))
def test_no_example_among_thousands_breaks_a_property(name):
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "1700", HERE / name]
    environment = os.environ | {VARIABLE: "5000"}
    done = subprocess.run(command, env=environment, cwd=HERE.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:]
