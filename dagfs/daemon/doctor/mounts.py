"""The mounts that there are, and whether a new one would be seen by others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dagfs.config import Places
from dagfs.daemon.doctor.finding import Finding, Level
from dagfs.daemon.reports import reports
from dagfs.errors import BadMountPoint
from dagfs.kernel.mountinfo import ANSWER_SECONDS, Life, find_mount, holder, lives, mount_points
from dagfs.kernel.mounting import check_directory


def mounts(places: Places) -> Iterator[Finding]:
    """Tell of each mount whether it serves; of those that no state file knows, whether anybody answers."""
    known = reports(places)
    for report in known:
        yield _mount(report["mountpoint"], report["state"], report["reason"])
    told = {report["mountpoint"] for report in known}
    others = sorted({point.path for point in mount_points() if point.ours} - told)
    for path, life in lives(others).items():
        if life is Life.DEAD:
            text = f"{path}: dead, and no state file knows it"
            yield Finding("mounts", Level.WARNING, text, f"`dagfs unmount {path}`, as the user who mounted it")
        elif life is Life.SILENT:
            text = f"{path}: no answer within {ANSWER_SECONDS:.0f} s"
            yield Finding("mounts", Level.WARNING, text, f"if it stays so: `dagfs unmount {path}`, as who mounted it")
    if not known:
        yield Finding("mounts", Level.OK, "none of this user")


def _mount(path: str, state: str, reason: str) -> Finding:
    text = f"{path}: {state}{f', {reason}' if reason else ''}"
    if state in ("dead", "failed"):
        return Finding("mounts", Level.PROBLEM, text, f"`dagfs unmount {path}`; its log says why")
    if state in ("recovering", "ending"):
        return Finding("mounts", Level.WARNING, text, "look again in some seconds; `dagfs status` names its log")
    return Finding("mounts", Level.OK, text)


def mountpoint(path: Path) -> Iterator[Finding]:
    """Look at a directory that shall be mounted on."""
    present = find_mount(str(path))
    if present is not None:
        text = f"{path} is a mount point already ({present.file_system})"
        remedy = f"`dagfs unmount {path}` first" if present.ours else "choose another directory"
        yield Finding("mountpoint", Level.PROBLEM, text, remedy)
        return
    try:
        check_directory(str(path))
    except BadMountPoint as error:
        text, _, remedy = str(error).partition(": ")
        yield Finding("mountpoint", Level.PROBLEM, text, remedy or "choose another directory")
    else:
        yield Finding("mountpoint", Level.OK, f"{path} is an empty directory")


def propagation(path: Path) -> Iterator[Finding]:
    """Tell whether what is mounted at `path` reaches other mount namespaces: containers, as a rule."""
    at = os.path.realpath(path) if find_mount(str(path)) is None else str(path)
    held = holder(at)
    if held is not None and held.shared:
        yield Finding("propagation", Level.OK, f"containers that share {held.path} see what is mounted below")
        return
    where = held.path if held else "/"
    remedy = f"for containers: `sudo mount --make-rshared {where}`; in a container: bind its directory with rshared"
    yield Finding(
        "propagation", Level.NOTE, f"{where} is private: a mount below is seen in this namespace only", remedy
    )
