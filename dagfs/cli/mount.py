"""`dagfs mount` and `dagfs unmount`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from dagfs.cli.complete import directories, mountpoints
from dagfs.cli.mount_options import plan, with_options
from dagfs.model import printable


@click.command()
@click.argument("repo")
@click.argument("mountpoint", shell_complete=directories)
@with_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to stderr, as services do.")
def mount(repo: str, mountpoint: str, foreground: bool, **given: Any) -> None:
    """Mount REPO at MOUNTPOINT and return when it can be read.

    REPO is owner/name or https://host/owner/name, with an optional @revision. The mount shows one commit until it is
    unmounted, whatever is pushed meanwhile, unless --follow is given. MOUNTPOINT may be /dev/fd/N: an open descriptor
    of a mount that somebody else has made.
    """
    from dagfs.daemon.background import Herald, detach, guarded
    from dagfs.daemon.mounting import serve
    from dagfs.kernel.mounting import is_automount

    planned = plan(repo, mountpoint, given)
    if foreground:
        sys.exit(guarded(lambda herald: serve(planned, herald, foreground=True), Herald(None)))
    leave = not is_automount(str(planned.mountpoint))
    outcome = detach(lambda herald: serve(planned, herald, foreground=False), keep=planned.passed, leave=leave)
    if outcome.error is not None:
        click.echo(f"dagfs: {printable(outcome.error)}", err=True)
        sys.exit(outcome.status)
    click.echo(printable(outcome.detail))


@click.command()
@click.argument("mountpoint", shell_complete=mountpoints)
def unmount(mountpoint: str) -> None:
    """End the mount at MOUNTPOINT, also while it is in use.

    Downloads under way are dropped, and programs that still read there get ENOTCONN.
    """
    from dagfs.config import places
    from dagfs.daemon.ending import end
    from dagfs.daemon.plan import absolute

    click.echo(printable(end(absolute(mountpoint), places(os.environ))))
