"""`dagfs status`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from dagfs.cli.values import size_text


@click.command()
@click.argument("mountpoint", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list, for programs.")
def status(mountpoint: str | None, as_json: bool) -> None:
    """Tell what is mounted and how it fares; exit status 1 if MOUNTPOINT is not served."""
    from dagfs.config import places
    from dagfs.daemon.plan import absolute
    from dagfs.daemon.reports import reports

    found = reports(places(os.environ), absolute(mountpoint) if mountpoint else None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        click.echo(f"nothing is mounted at {mountpoint}" if mountpoint else "nothing is mounted")
    else:
        click.echo("\n\n".join(_paragraph(report) for report in found))
    if mountpoint and not any(report["state"] == "serving" for report in found):
        sys.exit(1)


def _paragraph(report: dict[str, Any]) -> str:
    metrics = report["metrics"]
    requests = sum(count for name, count in metrics.items() if name.startswith("hub.requests."))
    branch = f" ({report['branch']})" if report["branch"] else ""
    lines = [
        f"{report['mountpoint']}: {report['state']}",
        f"  repository  {report['host']}/{report['repo']}",
        f"  commit      {report['commit']}{branch}",
        f"  driver      {report['driver']}, dagfs {report['version']}, pid {report['pid']}",
        f"  fetched     {size_text(metrics.get('fetch.received_bytes', 0))} in {requests:,} requests",
        f"  cache       {report['cache']}",
        f"  log         {report['log']}",
    ]
    if report["hidden"]:
        lines.append(f"  hidden      {report['hidden']} names that no file system can show")
    return "\n".join(lines)
