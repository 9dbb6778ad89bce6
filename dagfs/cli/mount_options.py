"""The options of `dagfs mount`, and the plan that they make."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dagfs.cli import options
from dagfs.cli.values import parse_address, parse_size
from dagfs.config import DEFAULT_CACHE_BYTES
from dagfs.model import RefKind

if TYPE_CHECKING:
    from dagfs.daemon.plan import MountPlan

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option("--branch", help="Branch to mount; the repository's default branch if not given."),
    click.option("--rev", metavar="SHA_OR_TAG", help="Commit or tag to mount instead of a branch."),
    click.option("--subdir", metavar="PATH", default="", help="Mount only this directory of the repository."),
    options.host,
    options.cache_dir,
    click.option(
        "--cache-size",
        type=parse_size,
        default=DEFAULT_CACHE_BYTES,
        metavar="SIZE",
        help="What the cache may hold; 50GiB if not given.",
    ),
    click.option(
        "--dvc-cache",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="A DVC repository, or DVC's cache: files are taken from it, and left in it.",
    ),
    click.option("--dvc-remote", metavar="NAME", help="Ask this remote of .dvc/config before the API; or: default."),
    click.option(
        "--shared-cache", metavar="URL", help="Tier of many machines: s3://BUCKET/PREFIX, gs://, az://, file:///."
    ),
    options.token_file,
    click.option("--allow-other", is_flag=True, help="Let other users of this machine read the mount."),
    click.option(
        "--offline", is_flag=True, help="Serve what the cache has and ask no hub; the rest is an error at once."
    ),
    click.option(
        "--driver", type=click.Choice(["kernel", "libfuse"]), default=None, help="kernel on Linux, else libfuse."
    ),
    click.option("--no-prefetch", is_flag=True, help="Fetch only what is read; guess nothing."),
    click.option(
        "--passthrough", is_flag=True, help="As root: large cached files at the disk's own speed, dearer opens."
    ),
    click.option(
        "--follow",
        type=click.IntRange(1, 7 * 86_400),
        metavar="SECONDS",
        help="Ask so often whether the branch has a new commit, and show it, all at once.",
    ),
    click.option("--hold-while-open", is_flag=True, help="With --follow: keep the commit while any file is open."),
    click.option(
        "--metrics", type=parse_address, metavar="HOST:PORT", help="Answer Prometheus there, with no password."
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        envvar="DAGFS_LOG_FORMAT",
        help="json: one object a line. DAGFS_LOG_FORMAT does the same.",
    ),
    click.option("--owner", type=int, metavar="PID", help="End the mount some seconds after this process has ended."),
    click.option("--source", default="", hidden=True),  # the two are mount.dagfs's
    click.option("--noexec", is_flag=True, hidden=True),
)


def with_options(command: Command) -> Command:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def plan(repo: str, mountpoint: str, given: dict[str, Any]) -> MountPlan:
    """Check what was given, by the options' names, and decide the rest. Raises UsageError."""
    from dagfs.config import hub_host, places
    from dagfs.daemon import dvc_cache as dvc
    from dagfs.daemon.plan import MountPlan, absolute
    from dagfs.hub.urls import parse_repo
    from dagfs.kernel.passed import place_of

    host, cache_dir, dvc_cache, token_file = (given.pop(n) for n in ("host", "cache_dir", "dvc_cache", "token_file"))
    reference, at = parse_repo(repo, hub_host(os.environ, host))
    revision, kind = _revision(given.pop("branch"), given["rev"], at)
    given["driver"] = given["driver"] or ("kernel" if sys.platform == "linux" else "libfuse")
    _check_driver(given)
    _check_follow(given)
    _check_ways(given, absolute(mountpoint))
    passed = _passed(mountpoint, given)
    del given["rev"]
    return MountPlan(
        repo=reference,
        mountpoint=absolute((passed is not None and place_of(passed)) or mountpoint),
        places=places(os.environ, cache_dir),
        cache_bytes=given.pop("cache_size"),
        revision=revision,
        revision_kind=kind,
        subdir=given.pop("subdir").strip("/"),
        token_file=token_file.absolute() if token_file else None,
        prefetch=not given.pop("no_prefetch"),
        dvc_cache=dvc.dvc_cache(dvc_cache) if dvc_cache else None,
        passed=passed,
        owner=_owner(given.pop("owner")),
        **given,  # the others are what they are
    )


def _check_driver(given: dict[str, Any]) -> None:
    if given["passthrough"] and (os.geteuid() != 0 or given["driver"] == "libfuse"):
        raise click.UsageError("--passthrough needs root and the kernel driver")


def _check_follow(given: dict[str, Any]) -> None:
    if given["hold_while_open"] and not given["follow"]:
        raise click.UsageError("--hold-while-open needs --follow")
    if not given["follow"]:
        return
    if given["rev"]:
        raise click.UsageError("--follow needs a branch: a commit or a tag does not move")
    if given["offline"]:
        raise click.UsageError("--follow asks the hub, and --offline asks nobody")
    if given["driver"] == "libfuse":
        raise click.UsageError("--follow needs the kernel driver: libfuse keeps names for as long as it is mounted")


def _check_ways(given: dict[str, Any], mountpoint: Path) -> None:
    from dagfs.origins.addresses import tier_address
    from dagfs.origins.bucket import check_installed

    shared_cache = given["shared_cache"]
    if not given["dvc_remote"] and not shared_cache:
        return
    if given["offline"]:
        raise click.UsageError("--dvc-remote and --shared-cache are asked for bytes, and --offline asks nobody")
    if shared_cache:
        url = tier_address(shared_cache, os.environ).url
        if Path(url.removeprefix("file://")).resolve().is_relative_to(mountpoint):
            raise click.UsageError("--shared-cache lies inside the mount point: the mount would wait for itself")
    check_installed()


def _passed(mountpoint: str, given: dict[str, Any]) -> int | None:
    """Give N of /dev/fd/N."""
    from dagfs.kernel.passed import number_of

    number = number_of(mountpoint)
    if number is not None and (given["allow_other"] or given["noexec"] or given["driver"] != "kernel"):
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
