"""A `.dir` manifest as the listings of all directories below the one that DVC tracks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dagfs.errors import ProtocolError
from dagfs.hub.dvc import ManifestEntry, parse_manifest
from dagfs.model import Entry, Kind, Versioning

BYTES_MAX = 16 << 20
"""Of a manifest, 200,000 files: it is in memory as a whole. A directory with more is listed by the hub in a stream."""

DEPTH_MAX = 256


class _Group(NamedTuple):
    files: list[ManifestEntry]
    directories: set[str]


def listings(root: str, data: bytes) -> Iterator[tuple[str, Sequence[Entry]]]:
    """Give each directory's path and entries, that of the tracked directory `root` last; sizes are not known.

    Raises ProtocolError before the first.
    """
    if len(data) > BYTES_MAX:
        raise ProtocolError(f"a manifest of {len(data)} bytes; {BYTES_MAX} are the limit here")
    groups: dict[str, _Group] = {"": _Group([], set())}
    for row in parse_manifest(data):
        _check(row.relpath)
        _group(groups, row.relpath.rpartition("/")[0]).files.append(row)
    top = groups.pop("")
    for where, group in groups.items():
        yield f"{root}/{where}", _entries(f"{root}/{where}", group)
    yield root, _entries(root, top)


def _group(groups: dict[str, _Group], where: str) -> _Group:
    """Give a directory's group, made together with those above it."""
    found = groups.get(where)
    if found is None:
        found = groups[where] = _Group([], set())
        parent, _, name = where.rpartition("/")
        _group(groups, parent).directories.add(name)
    return found


def _entries(path: str, group: _Group) -> list[Entry]:
    return [
        *(Entry(f"{path}/{name}", Kind.DIRECTORY, Versioning.DVC) for name in sorted(group.directories)),
        *(Entry(f"{path}/{row.relpath.rpartition('/')[2]}", Kind.FILE, Versioning.DVC, row.md5) for row in group.files),
    ]


def _check(relpath: str) -> None:
    parts = relpath.split("/")
    if len(parts) > DEPTH_MAX or not all(part not in ("", ".", "..") for part in parts):
        raise ProtocolError(f"a DVC directory manifest names {relpath!r:.100}, which lies in no directory")
