"""`dagfs doctor`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagfs.cli import options
from dagfs.cli.complete import directories

if TYPE_CHECKING:
    from dagfs.daemon.doctor.finding import Finding

_STYLES = {"ok": ("green", "ok"), "note": ("cyan", "note"), "warning": ("yellow", "warn"), "problem": ("red", "FAIL")}


@click.command(short_help="Say what stands in the way of a mount.")
@click.argument("repo", required=False)
@click.argument("mountpoint", required=False, shell_complete=directories)
@options.host
@options.token_file
@options.cache_dir
@click.option("--json", "as_json", is_flag=True, help="Print one object, for programs.")
def doctor(
    repo: str | None,
    mountpoint: str | None,
    host: str | None,
    token_file: Path | None,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Look for what stands between this machine and a mount, and say what to do about it.

    With REPO it also looks whether the token may read it and how the hub speaks, with MOUNTPOINT whether it can be
    mounted on. The exit status is 1 if something was found that lets a mount fail.
    """
    from dagfs.config import hub_host, places
    from dagfs.daemon.doctor.finding import Level
    from dagfs.daemon.doctor.hub import Target
    from dagfs.daemon.doctor.run import examine
    from dagfs.daemon.plan import absolute
    from dagfs.hub.urls import check_host, parse_repo

    chosen = check_host(hub_host(os.environ, host))
    reference, revision = parse_repo(repo, chosen) if repo else (None, None)
    target = Target(reference.host if reference else chosen, reference, revision, token_file)
    place = absolute(mountpoint) if mountpoint else None
    found = []
    for finding in examine(target, place, places(os.environ, cache_dir), os.environ):
        found.append(finding)
        if not as_json:
            click.echo(_line(finding))
    healthy = all(finding.level is not Level.PROBLEM for finding in found)
    if as_json:
        told = [asdict(finding) | {"level": finding.level.value} for finding in found]
        click.echo(json.dumps({"ok": healthy, "findings": told}, indent=2))
    sys.exit(0 if healthy else 1)


def _line(finding: Finding) -> str:
    color, word = _STYLES[finding.level.value]
    line = f"{click.style(f'{word:<4}', fg=color)}  {finding.name:<18}  {finding.text}"
    return f"{line}\n{'':<26}→ {finding.remedy}" if finding.remedy else line
