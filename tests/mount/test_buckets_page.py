"""The page about buckets is copied and pasted as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/buckets.md"


def test_the_commands_of_the_page_work_as_they_stand(home, tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cleaning = "trap '(kill $!; dagfs unmount data) 2>/dev/null || true' EXIT\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", cleaning + "\n".join(blocks)],
        cwd=tmp_path,
        env=home.environment() | {"PATH": path, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("picture\n") == 3
    assert "labels.tsv" in done.stdout
    assert not os.path.ismount(tmp_path / "data")
