"""scripts/setup.sh repairs what an earlier run left, and does nothing when nothing is to be done.

Python and pip are stand-ins that write down how they were called; the decisions are the script's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/bash
# Stands for python and, as bin/python of an environment, for its pip.
here=$(cd "$(dirname "$0")" && pwd)
echo "$*" >>"$CALLS"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "#!$3/bin/python" >"$3/bin/pip" ;;
  *ensurepip*) [ -z "$WITHOUT_VENV" ] ;;
  *"import torch"*) true ;;
  *"sys.prefix"*) head -n 1 "$here/pip" | sed 's/^#!//; s#/bin/python$##' ;;
  "--version") echo "Python 3.11.0" ;;
  "-m pip --version") [ -e "$here/pip" ] ;;
  *"install"*"--editable"*) [ -z "$PIP_DIES" ] || exit 1
    printf '#!/bin/sh\\necho dagfs\\n' >"$here/dagfs" && chmod +x "$here/dagfs" ;;
esac
"""


class Checkout:
    """A copy of what setup reads, with the stand-in as the only Python."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("setup.sh", "system.sh", "torch.sh"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.python = root / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.calls = root / "calls"

    def setup(self, check: bool = True, **variables: str) -> list[str]:
        """Run setup, and give the environment's makings and installations, as "venv" and "install"."""
        self.calls.write_text("")
        environment = os.environ | {"PYTHON": str(self.python), "CALLS": str(self.calls)} | variables
        words = ["bash", str(self.root / "scripts/setup.sh")]
        self.done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert not check or self.done.returncode == 0, self.done.stderr
        made = {"-m venv": "venv", "--editable": "install"}
        return [word for call in self.calls.read_text().splitlines() for mark, word in made.items() if mark in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    assert checkout.setup() == ["venv", "install"]
    assert checkout.setup() == []


def test_an_interrupted_installation_is_made_anew(checkout: Checkout) -> None:
    assert checkout.setup(check=False, PIP_DIES="1") == ["venv", "install"]
    assert checkout.done.returncode != 0
    (checkout.root / ".venv/half-written").touch()
    assert checkout.setup() == ["venv", "install"]
    assert not (checkout.root / ".venv/half-written").exists()


def test_an_interrupted_update_is_made_anew(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert checkout.setup(check=False, PIP_DIES="1") == ["install"]
    assert checkout.setup() == ["venv", "install"]


def test_changed_dependencies_are_installed_into_the_same_environment(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert checkout.setup() == ["install"]


def test_an_environment_without_pip_or_python_is_made_anew(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.root / ".venv/bin/pip").unlink()
    assert checkout.setup() == ["venv", "install"]
    (checkout.root / ".venv/bin/python").unlink()
    assert checkout.setup() == ["venv", "install"]


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.setup()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.setup() == ["venv", "install"]


def test_a_lost_command_is_installed_again(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.root / ".venv/bin/dagfs").unlink()
    assert checkout.setup() == ["install"]


def test_a_missing_table_of_mounts_is_linked_and_a_present_one_is_kept(tmp_path: Path) -> None:
    for name in ("missing", "present"):
        (tmp_path / name).mkdir()
    (tmp_path / "present/mtab").write_text("kept")
    for name in ("missing", "present"):
        words = ["bash", "-ec", '. "$0"; link_mtab "$1"', ROOT / "scripts/system.sh", tmp_path / name / "mtab"]
        subprocess.run(words, check=True, timeout=20)
    assert os.readlink(tmp_path / "missing/mtab") == "../proc/self/mounts"
    assert (tmp_path / "present/mtab").read_text() == "kept"


def test_a_python_that_cannot_make_environments_is_one_clear_line(checkout: Checkout) -> None:
    assert checkout.setup(check=False, WITHOUT_VENV="1") == []
    assert checkout.done.returncode != 0
    assert "python3-venv" in checkout.done.stderr
    assert checkout.done.stderr.count("\n") == 1
