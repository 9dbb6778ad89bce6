"""The `dagfs` command."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from dagfs import __version__
from dagfs.cli.cache import cache
from dagfs.cli.complete import completion
from dagfs.cli.doctor import doctor
from dagfs.cli.login import login, logout, whoami
from dagfs.cli.mount import mount, unmount
from dagfs.cli.passing import pass_mount
from dagfs.cli.serve import demo, serve
from dagfs.cli.status import status
from dagfs.cli.top import top
from dagfs.cli.warm import warm
from dagfs.errors import DagfsError, NoFuse, UsageError
from dagfs.model import printable


class OneLineErrors(click.Group):
    """Ends with one line and the error's own exit status; a traceback only when DAGFS_DEBUG is set."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if sys.platform != "win32" or os.environ.get("DAGFS_DEBUG"):
                raise
            needs = f"dagfs: this command is about mounts, and Windows has none (no module {error.name})"
            click.echo(f"{needs}: read dagshub://owner/name/PATH, docs/python.md", err=True)
            sys.exit(NoFuse.exit_status)
        except (DagfsError, OSError) as error:
            if os.environ.get("DAGFS_DEBUG") or isinstance(error, BrokenPipeError):
                raise
            click.echo(f"dagfs: {printable(str(error))}", err=True)
            sys.exit(error.exit_status if isinstance(error, UsageError) else 1)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dagfs")
def main() -> None:
    """Mount a DagsHub branch as a read-only directory, pinned to one commit, and train on it."""


COMMANDS = (
    *(mount, unmount, status, top, doctor, warm, cache),
    *(login, logout, whoami),
    *(serve, demo, completion, pass_mount),
)

for command in COMMANDS:
    main.add_command(command)
