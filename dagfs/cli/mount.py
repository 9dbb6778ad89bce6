"""`dagfs mount` and `dagfs unmount`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dagfs.cli.complete import mountpoints
from dagfs.cli.values import parse_address, parse_size
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
@click.option(
    "--dvc-cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A DVC repository, or DVC's cache: files are taken from it, and left in it.",
)
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path), help="File that holds the access token.")
@click.option("--allow-other", is_flag=True, help="Let other users of this machine read the mount.")
@click.option("--offline", is_flag=True, help="Serve what the cache has and ask no hub; the rest is an error at once.")
@click.option("--dvc-remote", metavar="NAME", help="Ask this remote of .dvc/config before the API; or: default.")
@click.option(
    "--shared-cache", metavar="URL", help="Tier of many machines: s3://BUCKET/PREFIX, gs://, az://, file:///."
)
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
@click.option("--metrics", type=parse_address, metavar="HOST:PORT", help="Answer Prometheus there, with no password.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="DAGFS_LOG_FORMAT",
    help="json: one object a line. DAGFS_LOG_FORMAT does the same.",
)
@click.option("--owner", type=int, metavar="PID", help="End the mount some seconds after this process has ended.")
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
    dvc_cache: Path | None,
    token_file: Path | None,
    allow_other: bool,
    offline: bool,
    dvc_remote: str | None,
    shared_cache: str | None,
    foreground: bool,
    driver: str | None,
    no_prefetch: bool,
    passthrough: bool,
    follow: int | None,
    owner: int | None,
    hold_while_open: bool,
    metrics: str | None,
    log_format: str,
    source: str,
    noexec: bool,
) -> None:
    """Mount REPO at MOUNTPOINT and return when it can be read.

    REPO is owner/name or https://host/owner/name, with an optional @revision. The mount shows one commit until it is
    unmounted, whatever is pushed meanwhile, unless --follow is given. MOUNTPOINT may be /dev/fd/N: an open descriptor
    of a mount that somebody else has made.
    """
    from dagfs.config import hub_host, places
    from dagfs.daemon import dvc_cache as dvc
    from dagfs.daemon.background import Herald, detach, guarded
    from dagfs.daemon.mounting import serve
    from dagfs.daemon.plan import MountPlan, absolute
    from dagfs.hub.urls import parse_repo
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
    _check_ways(dvc_remote, shared_cache, offline, absolute(mountpoint))
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
        dvc_cache=dvc.dvc_cache(dvc_cache) if dvc_cache else None,
        dvc_remote=dvc_remote,
        shared_cache=shared_cache,
        metrics=metrics,
        log_format=log_format,
        passed=passed,
        source=source,
        noexec=noexec,
        owner=_owner(owner),
    )
    if foreground:
        sys.exit(guarded(lambda herald: serve(plan, herald, foreground=True), Herald(None)))
    outcome = detach(lambda herald: serve(plan, herald, foreground=False), keep=passed)
    if outcome.error is not None:
        click.echo(f"dagfs: {printable(outcome.error)}", err=True)
        sys.exit(outcome.status)
    click.echo(printable(outcome.detail))


def _check_ways(dvc_remote: str | None, shared_cache: str | None, offline: bool, mountpoint: Path) -> None:
    from dagfs.origins.addresses import tier_address
    from dagfs.origins.bucket import check_installed

    if not dvc_remote and not shared_cache:
        return
    if offline:
        raise click.UsageError("--dvc-remote and --shared-cache are asked for bytes, and --offline asks nobody")
    if shared_cache:
        url = tier_address(shared_cache, os.environ).url
        if Path(url.removeprefix("file://")).resolve().is_relative_to(mountpoint):
            raise click.UsageError("--shared-cache lies inside the mount point: the mount would wait for itself")
    check_installed()


def _passed(mountpoint: str, driver: str, *, with_options: bool) -> int | None:
    """Give N of /dev/fd/N."""
    from dagfs.kernel.passed import number_of

    number = number_of(mountpoint)
    if number is not None and (with_options or driver != "kernel"):
        raise click.UsageError(f"{mountpoint} needs the kernel driver, and has the options of who mounted it")
    return number


def _owner(pid: int | None) -> tuple[int, int] | None:
    from dagfs.daemon.state import birth, lives

    if pid is None:
        return None
    born = birth(pid)
    if not lives(pid, born):
        raise click.BadParameter(f"there is no process {pid}", param_hint="--owner")
    return pid, born


def _revision(branch: str | None, rev: str | None, at: str | None) -> tuple[str | None, RefKind]:
    told = [pair for pair in ((branch, RefKind.BRANCH), (rev, RefKind.COMMIT), (at, RefKind.ANY)) if pair[0]]
    if len(told) > 1:
        raise click.UsageError("give one of --branch, --rev and REPO@revision")
    return told[0] if told else (None, RefKind.ANY)


@click.command()
@click.argument("mountpoint", shell_complete=mountpoints)
def unmount(mountpoint: str) -> None:
    """End the mount at MOUNTPOINT; downloads under way are dropped."""
    from dagfs.config import places
    from dagfs.daemon.ending import end
    from dagfs.daemon.plan import absolute

    click.echo(printable(end(absolute(mountpoint), places(os.environ))))
