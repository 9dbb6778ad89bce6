"""The suite runs: a tiny size of it, on real mounts, beside what is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mount, pytest.mark.integration]

SUITE = Path(__file__).parents[2] / "benchmarks/suite.py"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SUITE), *words]
    return subprocess.run(
        command,
        env=os.environ | {"DAGFS_BENCH_KEEP_CACHES": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_tiny_run_prints_tables_with_a_figure_in_each_cell() -> None:
    done = run("--size", "tiny", "side_by_side", "scale")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert ["dagfs" in row for row in rows].count(True) == 3  # the heads of seconds, of traffic and of README's rows
    first = next(row for row in rows if row[0] == "first epoch, in order")
    assert all(float(cell) > 0 for cell in first[-1:])
    if shutil.which("curl") is None:
        assert "bare link (16 curls) is left out, curl missing: apt install curl" in done.stdout
        assert "part scale is left out, curl missing: apt install curl" in done.stderr
    else:
        requests = next(row for row in rows if row[0] == "`find`" and row[1].isdigit())
        assert requests[1] == "1"


def test_what_is_not_installed_is_left_out_and_said(tmp_path: Path) -> None:
    """Without rclone, curl and fio on the search path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("git", "fusermount3", "umount", "mount"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    done = run("--size", "tiny", "fio", "side_by_side", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert "part fio is left out, fio missing: apt install fio" in done.stderr
    assert "bare link (16 curls) is left out, curl missing: apt install curl" in done.stdout
    assert "| first epoch, in order |" in done.stdout


def test_a_part_that_does_not_exist_is_named() -> None:
    done = run("--size", "tiny", "no_such_part")
    assert done.returncode == 1
    assert "no part no_such_part; there are side_by_side" in done.stderr
