"""What the documents show as commands, and how each is run.

A fenced block of `sh` or `bash` is run as it stands: the blocks of one page, one after another, by one bash with -e in
a directory and a home of its own, against a hub that serves the repository owner/name (branches main and feature/x, tag
v1.2, images/ and labels.tsv in it). A comment in the line before the fence says otherwise, and why:

    <!-- not run: needs docker -->              it cannot run here; the reason is for readers of this test
    <!-- run by: tests/demo/test_demo_run.py --> something else runs it: a file, or the name of a test
    <!-- each line alone -->                    a menu: before each `dagfs mount` what is mounted is unmounted

Other fences have another language, `text` where there is none. Commands are never shown by indentation alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "shell", "console", "zsh", "fish")
RUN = ("sh", "bash")

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)$")
_MARKER = re.compile(r"^ *<!-- *(not run|run by|each line alone):? *(.*?) *-->\s*$")


def pages() -> list[Path]:
    """Give the documents that are written for users."""
    return sorted(
        [
            ROOT / "README.md",
            ROOT / "SECURITY.md",
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("deploy/**/*.md"),
            *ROOT.glob("examples/*.md"),
        ]
    )


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: that of its fence; `how`: the marker's words, "" for a block that is run."""

    page: Path
    line: int
    language: str
    text: str
    how: str = ""
    why: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def lines(self) -> Iterator[str]:
        """Give its commands, one after another, without comments; a line that ends with a backslash goes on."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line


def indented_commands(page: Path) -> list[str]:
    """Give the places of code that is told from text by four spaces only: nobody would run it."""
    lines = page.read_text("utf-8").splitlines()
    fenced = {n for block in blocks(page) for n in range(block.line - 1, block.line + block.text.count("\n") + 1)}
    found, paragraph = [], ""  # the last line of text that was not indented
    for number, line in enumerate(lines):
        if line[:1] not in ("", " "):
            paragraph = line
        in_list = re.match(r"[*+-] |\d+[.)] ", paragraph)
        if number not in fenced and line.startswith("    ") and not in_list and not lines[number - 1].strip():
            found.append(f"{page.relative_to(ROOT)}:{number + 1}")
    return found


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text("utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        indent, ticks, language = fence.groups()
        end = at + 1
        while not re.match(rf"^ *{ticks[0]}{{{len(ticks)},}} *$", lines[end]):
            end += 1
        text = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end]) + "\n"
        before = next((line for line in reversed(lines[:at]) if line.strip()), "")
        marker = _MARKER.match(before)
        how, why = marker.groups() if marker else ("", "")
        found.append(Block(page, at + 1, (language.split() or [""])[0], text, how, why))
        at = end + 1
    return found
