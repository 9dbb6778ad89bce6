"""Where a symbolic link of the repository may lead: into the mount, whatever the links on its way lead to."""

from __future__ import annotations

from dagfs.errors import UnsafeLink
from dagfs.model import printable

TARGET_MAX = 4095
"""Bytes. No Linux program can follow a longer one."""


def check(target: bytes, depth: int) -> None:
    """Raise UnsafeLink for the target of a link that lies `depth` directories below the mount's root, if it leads out.

    A `..` after a name is refused as well: the name may be a link, and what is above it is known to the kernel only.
    """
    if not target or b"\0" in target or len(target) > TARGET_MAX:
        raise UnsafeLink("a symbolic link without a usable target")
    if target.startswith(b"/"):
        raise UnsafeLink(f"a symbolic link out of the mount, to {_shown(target)}")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = next((i for i, part in enumerate(parts) if part != b".."), len(parts))
    if climbs > depth or b".." in parts[climbs:]:
        raise UnsafeLink(f"a symbolic link that may lead out of the mount, to {_shown(target)}")


def _shown(target: bytes) -> str:
    return printable(target[:200].decode("utf-8", "surrogateescape"))
