"""`dagfs pass-mount`: the two ends of a mount that is made by one process and served by another."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click


@click.group("pass-mount", hidden=True)
def pass_mount() -> None:
    """Make a mount as root and pass it to a daemon without rights, for containers and sealed services."""


@pass_mount.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("socket", type=click.Path(path_type=Path))
@click.option("--user", type=int, default=1000, show_default=True, help="The uid that serves and may connect.")
def give(target: Path, socket: Path, user: int) -> None:
    """As root: mount at TARGET for each daemon that connects to SOCKET, until SIGTERM; then unmount."""
    from dagfs.daemon.logs import start_log
    from dagfs.kernel.passing import give

    def end(_number: int, _frame: object) -> NoReturn:
        sys.exit(0)

    start_log(None)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    target.mkdir(parents=True, exist_ok=True)
    give(str(target.resolve()), socket, user)


@pass_mount.command(context_settings={"ignore_unknown_options": True})
@click.argument("socket", type=click.Path(path_type=Path, readable=False))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def take(socket: Path, command: tuple[str, ...]) -> None:
    """Connect to SOCKET and become COMMAND, in whose words {} is the mount that was passed: /dev/fd/3."""
    from dagfs.kernel.passed import STANDARD, name_of
    from dagfs.kernel.passing import take

    given = take(socket)
    if given != STANDARD:
        os.dup2(given, STANDARD)
        os.close(given)
    os.set_inheritable(STANDARD, True)
    words = [word.replace("{}", name_of(STANDARD)) for word in command]
    os.execvp(words[0], words)  # noqa: S606 -- what the caller has written behind it  # nosec B606
