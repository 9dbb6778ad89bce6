"""`dagfs warm`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dagfs.cli.complete import files
from dagfs.cli.values import size_text
from dagfs.model import printable


@click.command(short_help="Fetch paths of a mount into the cache.")
@click.argument("paths", nargs=-1, required=True, shell_complete=files)
def warm(paths: tuple[str, ...]) -> None:
    """Fetch everything under PATHS of a mount into the cache, with a progress bar."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from dagfs.config import places
    from dagfs.daemon.warming import warm as run

    columns = (TextColumn("{task.description}"), BarColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    failed: list[str] = []
    steps = run(places(os.environ), [Path(path) for path in paths])
    with Progress(*columns) as progress:
        bar = progress.add_task("listing", total=None)
        for step in steps:
            text = f"{step.done_files:,}/{step.files:,} files, {size_text(step.done_bytes)}"
            progress.update(bar, description=text, total=step.bytes, completed=step.done_bytes)
            failed.extend(step.failed)
    for line in failed:
        click.echo(f"dagfs: {printable(line)}", err=True)
    if failed:
        sys.exit(1)
