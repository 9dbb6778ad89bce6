"""The suite runs: a tiny size of it, on real mounts, beside what is installed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[2] / "benchmarks/suite.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SUITE), *words], capture_output=True, text=True, timeout=100)


@pytest.mark.mount
def test_a_tiny_run_prints_tables_with_a_figure_in_each_cell() -> None:
    done = run("--size", "tiny", "side_by_side", "scale")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert ["dagfs" in row for row in rows].count(True) == 2  # the heads of seconds and of traffic
    first = next(row for row in rows if row[0] == "first epoch, in order")
    assert all(float(cell) > 0 for cell in first[-1:])
    requests = next(row for row in rows if row[0] == "`find`" and row[1].isdigit())
    assert requests[1] == "1"
    for tool, left_out in (("curl", "bare link (16 curls) is left out"), ("curl", "part scale is left out")):
        assert (left_out in done.stdout + done.stderr) == (subprocess.run(["which", tool]).returncode != 0)


def test_a_part_that_does_not_exist_is_named() -> None:
    done = run("--size", "tiny", "no_such_part")
    assert done.returncode == 1
    assert "no part no_such_part; there are side_by_side" in done.stderr
