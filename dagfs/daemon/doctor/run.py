"""All checks in the order in which a mount would meet what they look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dagfs.config import Places, store_root
from dagfs.daemon.doctor import disk, hub, machine, mounts
from dagfs.daemon.doctor.finding import Check, Finding, findings


def examine(
    target: hub.Target, mountpoint: Path | None, places: Places, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Give what is found, one after another: some of it takes seconds."""
    checks: list[tuple[str, Check]] = [
        ("fuse-device", machine.device),
        ("fusermount3", machine.helper),
        ("user-allow-other", machine.others),
        ("mount", machine.trial),
        ("cache", lambda: disk.cache(store_root(places.cache, target.host))),
        ("mounts", lambda: mounts.mounts(places)),
        ("propagation", lambda: mounts.propagation(mountpoint or Path.cwd())),
        ("hub", lambda: hub.hub(target, places, environment)),
    ]
    if mountpoint is not None:
        checks.insert(6, ("mountpoint", lambda: mounts.mountpoint(mountpoint)))
    return findings(checks)
