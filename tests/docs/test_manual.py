"""The manual pages say what the commands say, and come out of the formatter without a complaint."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support.documents import ROOT
from support.tools import needed

from dagfs.cli.main import main

PAGES = sorted((ROOT / "man").glob("*.1"))


def test_the_pages_are_what_the_commands_say():
    done = subprocess.run([sys.executable, ROOT / "scripts/manual.py", "--check"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_every_command_has_a_page():
    assert {path.stem for path in PAGES} == {"dagfs", *(f"dagfs-{name}" for name in main.commands)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_formatted_without_a_warning(path):
    man = needed("man", "apt install man-db")
    done = subprocess.run(
        [man, "--warnings=w", "-E", "UTF-8", "-l", path],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    plain = re.sub(r".\x08", "", done.stdout)
    assert all(section in plain for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"))
    name = path.stem.removeprefix("dagfs-")
    for option in (
        word
        for one in getattr(main.commands.get(name), "params", [])
        if not getattr(one, "hidden", False)
        for word in one.opts
        if "--" in word
    ):
        assert re.search(rf"^ +{option}\b", plain, re.MULTILINE), option
