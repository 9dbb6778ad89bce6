"""`dagfs top`."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from dagfs.cli.complete import mountpoints
from dagfs.cli.load import Rates, Report, processes, rates
from dagfs.cli.values import size_text
from dagfs.model import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.table import Table

SHOWN = 10
"""Waiting processes and slow files, each, of one mount; fewer where the terminal is low."""

PATH_WIDTH = 60  # columns

OTHER_LINES = 9
"""Of a mount without waiting processes and slow files: its frame, what it is, four figures, two headings."""


@click.command(short_help="Show what mounts are doing, and who waits.")
@click.argument("mountpoint", required=False, shell_complete=mountpoints)
@click.option("--once", is_flag=True, help="Print what happens within one interval, and end.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, metavar="SECONDS", help="Between two looks; 1."
)
def top(mountpoint: str | None, once: bool, interval: float) -> None:
    """Show what mounts are doing: throughput, hits, queues, who waits and for how long.

    Without a terminal, as with --once, it prints once.
    """
    from rich.console import Console
    from rich.live import Live

    from dagfs.daemon.plan import absolute

    path = absolute(mountpoint) if mountpoint else None
    console = Console(highlight=False)
    prints = once or not console.is_terminal
    looks = _Looks(path, None if prints else console)
    looks.look()
    if prints:
        time.sleep(interval)
        console.print(looks.look())
        sys.exit(0 if looks.serving or not mountpoint else 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves the terminal as it was
    try:
        with Live(looks.view(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(looks.look(), refresh=True)
    except KeyboardInterrupt:
        pass


class _Looks:
    """Looks at the mounts again and again, and compares each look with the one before."""

    def __init__(self, path: Path | None, screen: Console | None) -> None:
        self._path = path
        self._screen = screen  # has the lines that all mounts share; None: there are as many as wanted
        self._before: dict[str, Report] = {}  # by mount point
        self._after: dict[str, Report] = {}
        self._at = 0.0
        self._seconds = 1.0  # between the two

    def look(self) -> RenderableType:
        from dagfs.config import places
        from dagfs.daemon.reports import reports

        found = {report["mountpoint"]: report for report in reports(places(os.environ), self._path, "activity")}
        now = time.monotonic()
        self._before, self._after = self._after, found
        self._seconds, self._at = max(now - self._at, 0.001), now
        return self.view()

    @property
    def serving(self) -> bool:
        return any(report["state"] == "serving" for report in self._after.values())

    def view(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        if not self._after:
            where = f" at {printable(str(self._path))}" if self._path else ""
            return Text(f"nothing is mounted{where}")
        return Group(*(self._panel(report) for report in self._after.values()))

    def _panel(self, report: Report) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        title = Text(
            printable(f"{report['mountpoint']}: {report['state']}"),
            style="bold" if report["state"] == "serving" else "bold red",
        )
        about = Text(printable(_about(report)), style="dim")
        if "queue" not in report:
            reason = report.get("error") or report["reason"] or "its worker does not answer now"
            return Panel(Group(about, Text(printable(reason))), title=title, title_align="left")
        change = rates(self._before.get(report["mountpoint"]), report, self._seconds)
        shown = self._shown()
        parts = [about, _figures(report, change), *_waiting(report, shown), *_slowest(report, shown)]
        return Panel(Group(*parts), title=title, title_align="left")

    def _shown(self) -> int:
        """Give how many waiting processes, and slow files, of each mount the screen has lines for."""
        if self._screen is None:
            return SHOWN
        lines = self._screen.height // len(self._after)
        return min(SHOWN, max(1, (lines - OTHER_LINES) // 2))


def _about(report: Report) -> str:
    branch = f" ({report['branch']})" if report["branch"] else ""
    restarts = max(0, report["generation"] - 1)
    replaced = f", worker replaced {restarts:,} times" if restarts else ""
    return f"{report['host']}/{report['repo']} at {report['commit'][:12]}{branch}{replaced}"


def _figures(report: Report, change: Rates) -> Table:
    from rich.table import Table

    hub, queue, cached = report["hub"], report["queue"], report["cached"]
    hits = "" if change.hits is None else f", {change.hits:.0%} from the cache"
    share = cached["bytes"] / cached["limit"] if cached["limit"] else 0.0
    rows = {
        "hub": f"{size_text(change.received_bytes)}/s, {change.requests:,.0f} requests/s",
        "reads": f"{change.reads:,.0f}/s{hits}",
        "queue": f"{queue['running']:,} transfers under way, {queue['waiting']:,} waiting",
        "cache": f"{size_text(cached['bytes'])}, {share:.0%} of what it may hold, {cached['files']:,} files",
    }
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=max(map(len, rows)))
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, printable(text))
        if name == "hub" and hub["state"] not in ("ok", "offline"):
            table.add_row("", printable(f"{hub['state']} for {hub['seconds']:,} s: {hub['error']}"), style="red")
    return table


def _waiting(report: Report, shown: int) -> list[RenderableType]:
    if report["waiting"] is None:
        return []
    waiting = processes(report["waiting"])
    table = _table("WAITING PID", "COMMAND", "REQUESTS", "FOR", "OPERATION", "PATH")
    for one in waiting[:shown]:
        pid = str(one.pid) if one.pid else "?"
        row = (pid, one.command, f"{one.requests:,}", f"{one.seconds:.1f} s", one.operation, _short(one.path))
        table.add_row(*map(printable, row))
    return [table] if waiting else []


def _slowest(report: Report, shown: int) -> list[RenderableType]:
    table = _table("SLOWEST", "AGO", "PATH")
    for one in (report["slowest"] or [])[:shown]:
        table.add_row(f"{one['seconds']:.2f} s", f"{one['ago']:.0f} s", printable(_short(one["path"])))
    return [table] if table.row_count else []


def _table(*titles: str) -> Table:
    """Give a table whose last column is a path, which is folded where it does not fit."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(titles[-1], overflow="fold")
    return table


def _short(path: str) -> str:
    """Keep a path's end, which tells files apart."""
    return path if len(path) <= PATH_WIDTH else f"…{path[1 - PATH_WIDTH :]}"
