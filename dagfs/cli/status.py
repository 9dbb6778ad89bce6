"""`dagfs status`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from dagfs.cli.complete import mountpoints
from dagfs.cli.values import size_text
from dagfs.model import printable

EXAMPLES = 10
EXAMPLE_WIDTH = 120  # characters
_EXAMPLES = {"hidden": "hidden_names", "refused": "refused_link_names"}

_STATES = {
    "starting": "not readable yet",
    "recovering": "its worker died and another starts; programs wait",
    "unresponsive": "programs may wait; the kernel driver replaces a worker that stays so, within a minute",
    "failed": "given up; programs get ENOTCONN: `dagfs unmount` clears the place, `dagfs mount` replaces it",
    "ending": "unmounted; its daemon ends when its files are closed",
    "dead": "its daemon is gone and programs get ENOTCONN: `dagfs unmount` clears the place, `dagfs mount` replaces it",
}

SHOWN = 5
"""Paths that are missing in the cache, as examples; the JSON has up to a hundred."""


@click.command()
@click.argument("mountpoint", required=False, shell_complete=mountpoints)
@click.option("--json", "as_json", is_flag=True, help="Print a list, for programs.")
def status(mountpoint: str | None, as_json: bool) -> None:
    """Tell what is mounted and how it fares.

    MOUNTPOINT may be any path in a mount; the exit status is 1 if that mount does not serve.
    """
    from dagfs.config import places
    from dagfs.daemon.plan import absolute
    from dagfs.daemon.reports import reports

    found = reports(places(os.environ), absolute(mountpoint) if mountpoint else None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        click.echo(f"no mount of yours at {printable(mountpoint)}" if mountpoint else "nothing is mounted")
    else:
        click.echo("\n\n".join(_paragraph(report) for report in found))
    if mountpoint and not any(report["state"] == "serving" for report in found):
        sys.exit(1)


def _paragraph(report: dict[str, Any]) -> str:
    rows = {
        "": _STATES.get(report["state"]),
        "reason": report["reason"],
        "repository": f"{report['host']}/{report['repo']}",
        "commit": f"{report['commit']}{_of_branch(report)}",
        **_following(report["follow"]),
        "driver": f"{report['driver']}, dagfs {report['version']}, pid {report['pid']}",
        "generation": str(report["generation"]) if report["workers"] else None,
        "hub": _hub(report["hub"]),
        **_ways(report.get("ways", [])),
        "missing": _missing(report["missing"]),
        **_figures(report),
        "cache": report["cache"],
        "not kept": f"what is fetched now: {report['not_kept']}" if report["not_kept"] else None,
        "log": report["log"],
    }
    lines = [f"{report['mountpoint']}: {report['state']}"]
    for name, value in rows.items():
        if value:
            lines.append(f"  {name:<11} {value}")
            lines += _examples(report.get(_EXAMPLES.get(name, ""), []))
    return "\n".join(map(printable, lines))


def _examples(names: list[str]) -> list[str]:
    """Show some of the names that a hub has made up, in a form that a terminal survives."""
    shown = [f"{'':<13} {printable(name)[:EXAMPLE_WIDTH]}" for name in names[:EXAMPLES]]
    return [*shown, f"{'':<13} and others: --json has more"] if len(names) > EXAMPLES else shown


def _hub(hub: dict[str, Any] | None) -> str | None:
    if hub is None or hub["state"] == "ok":
        return None
    if hub["state"] == "offline":
        return "not asked: the mount is offline and serves what the cache has"
    return f"{hub['state']} for {hub['seconds']:,} s: {hub['error']}"


def _ways(ways: list[dict[str, Any]]) -> dict[str, str]:
    """Say of each way to the bytes before the hub's API what it has brought, and why it is not in use."""
    rows = {}
    used = [way for way in ways if way["why"] or "writing" in way or way["hits"] + way["misses"] + way["manifests"]]
    for number, way in enumerate(used):
        told = f"{way['name']}: {way['hits']:,} files, {size_text(way['bytes'])}; {way['misses']:,} it had not"
        told += f"; {way['manifests']:,} manifests" if way["manifests"] else ""
        told += f"; {way['failures']:,} failures" if way["failures"] else ""
        told += f"; {way['wrong']:,} wrong" if way["wrong"] else ""
        told += f"; {way['state']}: {way['why']}" if way["why"] else ""
        rows["asks first" if not number else "then"] = told
        writing = way.get("writing")
        if writing is not None:
            left = f"; {writing['waiting']:,} wait" if writing["waiting"] else ""
            trouble = f"; {writing['state']}: {writing['why']}" if writing["why"] else ""
            rows["fills it"] = f"{writing['stored']:,} files, {size_text(writing['bytes'])}{left}{trouble}"
    return rows


def _missing(missing: dict[str, Any] | None) -> str | None:
    if not missing or not missing["directories"] + missing["files"]:
        return None
    counts = f"{missing['directories']:,} listings and {missing['files']:,} files that were asked for"
    return f"{counts}, among them {', '.join(missing['paths'][:SHOWN])}"


def _figures(report: dict[str, Any]) -> dict[str, str | None]:
    metrics = report["metrics"]
    if not metrics:
        return {}
    requests = _sum(metrics, "hub.requests.")
    loads, hits, misses = (metrics.get(name, 0) for name in ("fetch.loads", "cache.hits", "cache.misses"))
    failed, restarts = _sum(metrics, "vfs.failed."), report["generation"] - 1
    hidden, refused = report["hidden"], report["refused_links"]
    return {
        "fetched": f"{size_text(metrics.get('fetch.received_bytes', 0))} in {loads:,} loads, {requests:,} requests",
        "from cache": f"{hits:,} of {hits + misses:,} reads",
        "DVC's cache": _dvc_cache(metrics),
        "failed": f"{failed:,} operations; the log has each" if failed else None,
        "restarted": f"{restarts:,} times; the log says why" if restarts > 0 else None,
        "hidden": f"{hidden:,} names that no file system can show" if hidden else None,
        "refused": f"{refused:,} symbolic links that lead out of the mount" if refused else None,
    }


def _dvc_cache(metrics: dict[str, int]) -> str | None:
    names = ("hits", "given", "damaged", "failed")
    hits, given, damaged, failed = (metrics.get(f"dvc_cache.{name}", 0) for name in names)
    told = [f"{hits:,} files taken, {given:,} left there"] if hits or given else []
    told += [f"{damaged:,} of its files are damaged"] if damaged else []
    told += [f"{failed:,} could not be left there; the log says why"] if failed else []
    return ", ".join(told) or None


def _following(follow: dict[str, Any] | None) -> dict[str, str | None]:
    if follow is None:
        return {}
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(follow["since"]))
    return {
        "follows": f"its branch, asks every {follow['seconds']:g} s; this commit since {since}",
        "next": f"{follow['next']}, {follow['why']}" if follow["next"] else None,
        "complaint": f"{follow['error']}; asked again in {max(0, follow['again'] - time.time()):.0f} s"
        if follow["error"]
        else None,
    }


def _sum(metrics: dict[str, int], prefix: str) -> int:
    return sum(count for name, count in metrics.items() if name.startswith(prefix))


def _of_branch(report: dict[str, Any]) -> str:
    return f" ({report['branch']})" if report["branch"] else ""
