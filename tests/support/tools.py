"""Programs of the system that only some tests need: CI has them all, and there a missing one is a failure."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(program: str, remedy: str) -> str:
    """Give a program's path; skip the test where it is not installed, but fail it in CI."""
    found = shutil.which(program)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is missing: {remedy}")
    return found
