"""`mount.dagfs`: what mount(8) runs for a line of /etc/fstab, and systemd for a .mount unit."""

from __future__ import annotations

import contextlib
import getopt
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from dagfs.cli.main import main as dagfs
from dagfs.errors import UsageError
from dagfs.model import printable

MISUSED, FAILED = 1, 32
"""Exit statuses that mount(8) knows: wrong words, and a mount that failed."""

VALUES = frozenset(
    (
        *("branch", "rev", "subdir", "host", "token_file", "follow", "driver", "source", "metrics", "log_format"),
        *("cache_dir", "cache_size", "dvc_cache", "dvc_remote", "shared_cache"),
    )
)
FLAGS = frozenset(("allow_other", "offline", "no_prefetch", "passthrough", "hold_while_open", "noexec"))
ELSEWHERE = frozenset(
    (
        *("ro", "rw", "defaults", "auto", "noauto", "nofail", "_netdev", "comment"),
        *("user", "nouser", "users", "owner", "group", "suid", "nosuid", "dev", "nodev", "exec"),
        *("sync", "async", "dirsync", "mand", "nomand", "silent", "loud", "iversion", "noiversion"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
        *("lazytime", "nolazytime"),
    )
)
"""What mount(8) acts on itself, and what a mount is whatever is said: read-only, nosuid, nodev and noatime."""

_OPTION = re.compile(r'((?:"[^"]*"|[^,"])+)(?:,|$)')
USAGE = "usage: mount.dagfs [-sfnv] [-t TYPE] REPO DIRECTORY [-o OPTIONS]"


@dataclass(frozen=True, slots=True)
class Request:
    """What mount(8) asks for."""

    repo: str
    directory: str
    options: tuple[str, ...] = ()
    sloppy: bool = False
    fake: bool = False
    verbose: bool = False


def main() -> None:
    """Mount as mount(8) asks; ends with its exit statuses."""
    try:
        request = parse(sys.argv[1:])
        words = command(request)
    except UsageError as error:
        _complain(str(error))
        sys.exit(MISUSED)
    if request.verbose:
        click.echo(f"dagfs {' '.join(words)}")
    if not request.fake:
        sys.exit(_mount(words, quiet=not request.verbose))


def parse(words: Sequence[str]) -> Request:
    """Read the words of mount(8), in any order. Raises UsageError."""
    try:
        found, places = getopt.gnu_getopt(list(words), "sfnvo:t:")
        repo, directory = places
    except (getopt.GetoptError, ValueError):
        raise UsageError(USAGE) from None
    flags = {flag for flag, _ in found}
    options = [each.replace('"', "") for flag, value in found if flag == "-o" for each in _OPTION.findall(value)]
    return Request(repo, directory, tuple(options), "-s" in flags, "-f" in flags, "-v" in flags)


def command(request: Request) -> list[str]:
    """Give the words of `dagfs` that do what is asked. Raises UsageError for an option that is not known."""
    words = ["mount", request.repo, request.directory, "--source", request.repo]
    for option in request.options:
        name, sign, value = option.partition("=")
        if name == "remount":
            raise UsageError(f"a mount of dagfs is not remounted: `umount {request.directory}`, and mount again")
        if name in VALUES and sign:
            words.append(f"--{name.replace('_', '-')}={value}")
        elif name in FLAGS and not sign:
            words.append(f"--{name.replace('_', '-')}")
        elif not (name in ELSEWHERE or name.startswith(("x-", "X-")) or request.sloppy):
            raise UsageError(f"the option {option!r} is not known: docs/systemd.md has those that are")
    return words


def _mount(words: list[str], *, quiet: bool) -> int:
    _leave_the_login()
    try:
        with contextlib.redirect_stdout(None) if quiet else contextlib.nullcontext():
            dagfs.main(words, prog_name="dagfs", standalone_mode=False)
    except click.ClickException as error:
        _complain(error.format_message())
        return MISUSED
    except SystemExit as end:  # its line was printed
        return FAILED if end.code else 0
    return 0


def _leave_the_login() -> None:
    """Root's mounts are the machine's: at boot, by systemd and from a login's shell they are kept in one place, where
    `sudo dagfs status` finds them."""
    if os.geteuid() == 0:
        for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            os.environ.pop(name, None)


def _complain(line: str) -> None:
    click.echo(f"mount.dagfs: {printable(line)}", err=True)
