#!/usr/bin/env python3
"""release.py TAG: look whether tag, version and changelog agree. With --notes: print the changelog of that version."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version() -> str:
    found = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "dagfs/__init__.py").read_text("utf-8"), re.MULTILINE)
    assert found, "dagfs/__init__.py has no __version__"
    return found[1]


def notes(of: str, changelog: str) -> tuple[str, str]:
    """Give what stands beside a version's heading, "2026-01-31" or "unreleased", and what is below. Raises KeyError."""
    parts = re.split(r"^## +(\S+)(?: +\(([^)]*)\))? *$", changelog, flags=re.MULTILINE)
    for number, date, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if number == of:
            return date or "", text.strip()
    raise KeyError(of)


def complaints(tag: str, of: str, changelog: str) -> list[str]:
    """Say why this tag must not become a release."""
    found = [] if tag == f"v{of}" else [f"the tag is {tag} and the version {of}"]
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", of):
        found.append(f"{of} is no version of the kind 1.2.3 or 1.2.3rc1")
    try:
        date, text = notes(of, changelog)
    except KeyError:
        return [*found, f"CHANGELOG.md has no part for {of}"]
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        found.append(f"CHANGELOG.md calls {of} {date or 'nothing'}, and not by a date")
    return found if text else [*found, f"CHANGELOG.md says nothing of {of}"]


def main(words: list[str]) -> int:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    if "--notes" in words:
        print(notes(version(), changelog)[1])
        return 0
    found = complaints(words[0], version(), changelog)
    for line in found:
        print(f"release: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
