"""Each shell completes commands, options and mount points."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


REST = ("1", "serving", 1, (), 1, "log", "cache", birth(1))


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


ZSH = """fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' insert-tab false"""
"""The last, since a TAB is taken for itself where Enter has been typed already."""
TERMINAL = {
    "bash": ("source dagfs.bash", "bash", "--noprofile", "--norc", "-i"),
    "zsh": (ZSH, "zsh", "-f", "-i"),
    "fish": ("source dagfs.fish", "fish", "--no-config", "-i"),
}
TYPED = """#!{python}
import json, os, sys
from dagfs.cli.main import main
if "_DAGFS_COMPLETE" in os.environ:
    main()
with open("typed.part", "w") as file:
    json.dump(sys.argv[1:], file)
os.rename("typed.part", "typed")
"""


@contextlib.contextmanager
def terminal(shell: str, home: Home, place: Path) -> Iterator[Callable[[str], list[str]]]:
    """Run a shell in a terminal; gives what types a line there, and tells with which words `dagfs` was called."""
    needed(shell, f"apt install {shell}")
    (place / ("_dagfs" if shell == "zsh" else f"dagfs.{shell}")).write_text(home.run("completion", shell).stdout)
    (place / "bin/dagfs").write_text(TYPED.format(python=sys.executable))
    first, *command = TERMINAL[shell]
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.execvpe(command[0], command, home.environment() | {"TERM": "xterm"})
    seen = b""

    def line(keys: str) -> list[str]:
        nonlocal seen
        os.write(screen, keys.encode() + b"\r")
        deadline = time.monotonic() + 30
        while not (place / "typed").exists():
            assert time.monotonic() < deadline, seen[-2000:]
            if select.select([screen], [], [], 0.05)[0]:
                seen += (said := os.read(screen, 65536))
                if b"\x1b[c" in said or b"\x1b[0c" in said:  # fish asks what kind of terminal this is
                    os.write(screen, b"\x1b[?62c")
        words = json.loads((place / "typed").read_text())
        (place / "typed").unlink()
        return [word.removesuffix("/") for word in words]  # zsh takes it away again

    try:
        line(f"{first}\ndagfs ready")
        yield line
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(screen)


@pytest.mark.parametrize("shell", list(TERMINAL))
def test_a_tab_completes_in_a_terminal(shell, home, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures.txt").touch()
    (tmp_path / "token.txt").touch()
    with terminal(shell, home, tmp_path) as typed:
        assert typed("dagfs unmo\t") == ["unmount"]
        assert typed("dagfs mount --cache-s\t") == ["mount", "--cache-size"]
        assert typed("dagfs mount o/n pict\t") == ["mount", "o/n", "pictures"]
        assert typed("dagfs doctor o/n pict\t") == ["doctor", "o/n", "pictures"]
        assert typed("dagfs mount --cache-dir pict\t") == ["mount", "--cache-dir", "pictures"]
        assert typed("dagfs doctor --token-file tok\t") == ["doctor", "--token-file", "token.txt"]
        assert typed("dagfs warm pictures.\t") == ["warm", "pictures.txt"]


@pytest.mark.parametrize("shell", list(TERMINAL))
def test_a_mount_point_with_a_space_is_completed_as_one_word(shell, home, tmp_path):
    place = tmp_path / "my data"
    state = MountState(*(str(place), "o/n", "http://h", "main", "c" * 40, "kernel"), *REST)
    Registry(home.root / "run/dagfs").write(mount_id(place), state)
    with terminal(shell, home, tmp_path) as typed:
        assert typed("dagfs unmount my\t") == ["unmount", "my data"]


@pytest.mark.parametrize("shell", list(ASK))
def test_commands_and_options_are_completed(shell, home, tmp_path):
    assert "unmount" in completed(shell, home, tmp_path, "unm")
    assert "--cache-size" in completed(shell, home, tmp_path, "mount", "--cache-s")
    assert "kernel" in completed(shell, home, tmp_path, "mount", "--driver", "ker")


@pytest.mark.parametrize("shell", list(ASK))
@pytest.mark.parametrize("command", ["unmount", "status", "top"])
def test_mount_points_are_completed_also_relative_to_here(shell, command, home, tmp_path):
    place = tmp_path / "data"
    state = MountState(*(str(place), "o/n", "http://h", "main", "c" * 40, "kernel"), *REST)
    Registry(home.root / "run/dagfs").write(mount_id(place), state)
    assert str(place) in completed(shell, home, tmp_path, command, str(tmp_path)[:-1])
    assert re.search(r"^data\b", completed(shell, home, tmp_path, command, "da"), re.MULTILINE)
