"""`dagfs mount` and `dagfs unmount`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dagfs.cli.values import parse_size
from dagfs.config import DEFAULT_CACHE_BYTES
from dagfs.model import RefKind, printable


@click.command()
@click.argument("repo")
@click.argument("mountpoint")
@click.option("--branch", help="Branch to mount; the repository's default branch if not given.")
@click.option("--rev", metavar="SHA_OR_TAG", help="Commit or tag to mount instead of a branch.")
@click.option("--subdir", metavar="PATH", default="", help="Mount only this directory of the repository.")
@click.option("--host", metavar="URL", help="The hub; DAGSHUB_CLIENT_HOST or https://dagshub.com if not given.")
@click.option("--cache-dir", metavar="DIR", help="Where content is kept; DAGFS_CACHE_DIR or ~/.cache/dagfs.")
@click.option(
    "--cache-size",
    type=parse_size,
    default=DEFAULT_CACHE_BYTES,
    metavar="SIZE",
    help="What the cache may hold; 50GiB if not given.",
)
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path), help="File that holds the access token.")
@click.option("--allow-other", is_flag=True, help="Let other users of this machine read the mount.")
@click.option("--offline", is_flag=True, help="Serve what the cache has and ask no hub; the rest is an error at once.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to stderr, as services do.")
@click.option("--driver", type=click.Choice(["kernel", "libfuse"]), default=None, help="kernel on Linux, else libfuse.")
@click.option("--no-prefetch", is_flag=True, help="Fetch only what is read; guess nothing.")
@click.option("--passthrough", is_flag=True, help="As root: large cached files at the disk's own speed, dearer opens.")
@click.option(
    "--follow",
    type=click.IntRange(1, 7 * 86_400),
    metavar="SECONDS",
    help="Ask so often whether the branch has a new commit, and show it, all at once.",
)
@click.option("--hold-while-open", is_flag=True, help="With --follow: keep the commit while any file is open.")
@click.option("--source", default="", hidden=True)  # the two are mount.dagfs's
@click.option("--noexec", is_flag=True, hidden=True)
def mount(
    repo: str,
    mountpoint: str,
    branch: str | None,
    rev: str | None,
    subdir: str,
    host: str | None,
    cache_dir: str | None,
    cache_size: int,
    token_file: Path | None,
    allow_other: bool,
    offline: bool,
    foreground: bool,
    driver: str | None,
    no_prefetch: bool,
    passthrough: bool,
    follow: int | None,
    hold_while_open: bool,
    source: str,
    noexec: bool,
) -> None:
    """Mount REPO at MOUNTPOINT and return when it can be read.

    REPO is owner/name or https://host/owner/name, with an optional @revision. The mount shows one commit until it is
    unmounted, whatever is pushed meanwhile, unless --follow is given. MOUNTPOINT may be /dev/fd/N: an open descriptor
    of a mount that somebody else has made.
    """
    from dagfs.config import hub_host, places
    from dagfs.daemon.background import Herald, detach, guarded
    from dagfs.daemon.mounting import serve
    from dagfs.daemon.plan import MountPlan, absolute
    from dagfs.hub.urls import parse_repo
    from dagfs.kernel.mounting import is_automount
    from dagfs.kernel.passed import place_of

    reference, at = parse_repo(repo, hub_host(os.environ, host))
    if passthrough and (os.geteuid() != 0 or driver == "libfuse"):
        raise click.UsageError("--passthrough needs root and the kernel driver")
    revision, kind = _revision(branch, rev, at)
    driver = driver or ("kernel" if sys.platform == "linux" else "libfuse")
    if follow and rev:
        raise click.UsageError("--follow needs a branch: a commit or a tag does not move")
    if follow and offline:
        raise click.UsageError("--follow asks the hub, and --offline asks nobody")
    if follow and driver == "libfuse":
        raise click.UsageError("--follow needs the kernel driver: libfuse keeps names for as long as it is mounted")
    if hold_while_open and not follow:
        raise click.UsageError("--hold-while-open needs --follow")
    passed = _passed(mountpoint, driver, with_options=allow_other or noexec)
    plan = MountPlan(
        repo=reference,
        mountpoint=absolute((passed is not None and place_of(passed)) or mountpoint),
        places=places(os.environ, cache_dir),
        cache_bytes=cache_size,
        revision=revision,
        revision_kind=kind,
        subdir=subdir.strip("/"),
        token_file=token_file.absolute() if token_file else None,
        allow_other=allow_other,
        driver=driver,
        prefetch=not no_prefetch,
        passthrough=passthrough,
        follow=follow,
        hold_while_open=hold_while_open,
        offline=offline,
        passed=passed,
        source=source,
        noexec=noexec,
    )
    if foreground:
        sys.exit(guarded(lambda herald: serve(plan, herald, foreground=True), Herald(None)))
    outcome = detach(
        lambda herald: serve(plan, herald, foreground=False), keep=passed, leave=not is_automount(str(plan.mountpoint))
    )
    if outcome.error is not None:
        click.echo(f"dagfs: {printable(outcome.error)}", err=True)
        sys.exit(outcome.status)
    click.echo(printable(outcome.detail))


def _passed(mountpoint: str, driver: str, *, with_options: bool) -> int | None:
    """Give N of /dev/fd/N."""
    from dagfs.kernel.passed import number_of

    number = number_of(mountpoint)
    if number is not None and (with_options or driver != "kernel"):
        raise click.UsageError(f"{mountpoint} needs the kernel driver, and has the options of who mounted it")
    return number


def _revision(branch: str | None, rev: str | None, at: str | None) -> tuple[str | None, RefKind]:
    told = [pair for pair in ((branch, RefKind.BRANCH), (rev, RefKind.COMMIT), (at, RefKind.ANY)) if pair[0]]
    if len(told) > 1:
        raise click.UsageError("give one of --branch, --rev and REPO@revision")
    return told[0] if told else (None, RefKind.ANY)


@click.command()
@click.argument("mountpoint")
def unmount(mountpoint: str) -> None:
    """End the mount at MOUNTPOINT; downloads under way are dropped."""
    from dagfs.config import places
    from dagfs.daemon.ending import end
    from dagfs.daemon.plan import absolute

    click.echo(printable(end(absolute(mountpoint), places(os.environ))))
