"""Each shell completes commands, options and mount points."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Home
from support.tools import needed

from dagfs.daemon.plan import mount_id
from dagfs.daemon.state import MountState, Registry, birth

ASK = {
    "bash": """
source {script}
COMP_WORDS=({words} "{last}"); COMP_CWORD={at}
_dagfs_completion dagfs "{last}" "" 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
compdef() {{ :; }}
compadd() {{ print -l -- $completions; }}
_describe() {{ print -l -- $completions_with_descriptions; }}
source {script}
words=({words} "{last}"); CURRENT={next}
_dagfs_completion
""",
    "fish": "source {script}; complete -C '{words} {last}'",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    scripts = Path(sys.executable).parent
    home.extra["PATH"] = f"{tmp_path}/bin:{scripts}:/usr/bin:/bin"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/dagfs"
    program.write_text(f"#!{sys.executable}\nfrom dagfs.cli.main import main\nmain()\n")  # as an installed one
    program.chmod(0o755)
    return home


def completed(shell: str, home: Home, tmp_path: Path, *words: str) -> str:
    needed(shell, f"apt install {shell}")
    script = tmp_path / f"dagfs.{shell}"
    script.write_text(home.run("completion", shell).stdout)
    *before, last = ("dagfs", *words)
    text = ASK[shell].format(script=script, words=" ".join(before), last=last, at=len(before), next=len(before) + 1)
    done = subprocess.run(
        [shell, "-c", text], env=home.environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("shell", list(ASK))
def test_commands_and_options_are_completed(shell, home, tmp_path):
    assert "unmount" in completed(shell, home, tmp_path, "unm")
    assert "--cache-size" in completed(shell, home, tmp_path, "mount", "--cache-s")
    assert "kernel" in completed(shell, home, tmp_path, "mount", "--driver", "ker")


@pytest.mark.parametrize("shell", list(ASK))
@pytest.mark.parametrize("command", ["unmount", "status", "top"])
def test_mount_points_are_completed_also_relative_to_here(shell, command, home, tmp_path):
    place = tmp_path / "data"
    state = MountState(
        *(str(place), "o/n", "http://h", "main", "c" * 40, "kernel", "1", "serving", 1, (), 1, "log", "cache", birth(1))
    )
    Registry(home.root / "run/dagfs").write(mount_id(place), state)
    assert str(place) in completed(shell, home, tmp_path, command, str(tmp_path)[:-1])
    assert re.search(r"^data\b", completed(shell, home, tmp_path, command, "da"), re.MULTILINE)
