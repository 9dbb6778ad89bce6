"""What the hub says of a commit's paths, made fit for the tree. Blocks: for the workers only."""

from __future__ import annotations

import logging

from dagfs.errors import NotADirectory, NotFound, ProtocolError, TooLarge
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Versioning, printable
from dagfs.tree.builder import Giants, build, trusted_size
from dagfs.tree.columns import Columns

log = logging.getLogger(__name__)

PATH_MAX = 4096
"""Characters; bytes are what Linux counts, so this is at least as much."""


class Remote:
    """Thread-safe. `root_path`: the directory that is the mount's root, which must be one."""

    def __init__(self, source: Source, commit: Commit, root_path: str, metrics: Metrics) -> None:
        self._source = source
        self._commit = commit
        self._root_path = root_path
        self._metrics = metrics
        self._giants = Giants()

    def failing(self) -> bool:
        return self._source.failing()

    def describe(self, path: str) -> Entry:
        """Ask for one path. Raises NotFound, AccessDenied, RemoteError."""
        self._metrics.add("tree.describes")
        told = self._source.describe(self._commit, path, sized=True)
        return Entry(path, told.kind, told.versioning, told.hash, trusted_size(told))

    def columns(self, directory: Entry, sized: bool) -> Columns:
        """List a directory (`listings.Download`). Raises TooLarge, AccessDenied, RemoteError."""
        hold_to_path_max(directory.path)
        self._metrics.add("tree.listings_sized" if sized else "tree.listings")
        try:
            columns = self._giants.build(
                directory.path, self._source.list_directory(self._commit, directory.path, sized=sized)
            )
        except (NotFound, NotADirectory):
            if directory.path == self._root_path:
                raise
            if directory.versioning is Versioning.GIT:
                return build(directory.path, ())  # a submodule: an empty directory, as in a clone without it
            raise ProtocolError(f"{directory.path}: the hub names this directory but has no listing of it") from None
        if columns.hidden:
            self._metrics.add("tree.hidden_names", columns.hidden)
            names = printable(", ".join(columns.hidden_names[:3]))
            log.warning(
                "%s: %d names that no file system can show: %.200s",
                printable(directory.path or "/"),
                columns.hidden,
                names,
            )
        return columns


def hold_to_path_max(path: str) -> None:
    """Raise TooLarge below what any program can name: a hub may list every directory in itself."""
    if len(path) > PATH_MAX:
        raise TooLarge(f"{path[:80]}... is nested deeper than a path can be long")
