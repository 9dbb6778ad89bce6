"""The token that git's credential helper keeps for a hub: the last place to look, as the DagsHub client does."""

from __future__ import annotations

import re
import shutil
import subprocess  # one call, judged where it is  # nosec B404
from collections.abc import Mapping
from urllib.parse import urlsplit

SECONDS = 5.0
"""A helper that asks its user something is not waited for."""

_TOKEN = re.compile(r"[0-9a-f]{40}")
"""What DagsHub's tokens look like. git may keep the account's password for the host, which opens no API."""


def git_credential(host: str, environment: Mapping[str, str]) -> str | None:
    """Ask git for the password of a hub (a URL), without a prompt; None unless it looks like a token."""
    git = shutil.which("git", path=environment.get("PATH"))
    where = urlsplit(host)
    if git is None or not where.netloc:
        return None
    silent = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GCM_INTERACTIVE": "never"}
    try:
        done = subprocess.run(  # noqa: S603 -- git, found by its name  # nosec B603
            [git, "-c", "core.askPass=", "credential", "fill"],
            input=f"protocol={where.scheme}\nhost={where.netloc}\n\n",
            env={**environment, **silent},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    password = found.get("password", "")
    return password if done.returncode == 0 and _TOKEN.fullmatch(password) else None
