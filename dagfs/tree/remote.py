"""What the hub says of a commit's paths, made fit for the tree. Blocks: for the workers only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from dagfs.errors import ContentChanged, NotADirectory, NotFound, ProtocolError, TooLarge
from dagfs.hub.source import Source
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, Versioning, in_a_bucket, printable, snapshot_mark
from dagfs.tree.builder import Giants, build, trusted_size
from dagfs.tree.columns import Columns

log = logging.getLogger(__name__)

PATH_MAX = 4096
"""Characters; bytes are what Linux counts, so this is at least as much."""


class Remote:
    """Thread-safe. `root_path`: the directory that is the mount's root, which must be one. `snapshot`: marks objects of
    buckets whose listing tells no ETag."""

    def __init__(self, source: Source, commit: Commit, root_path: str, snapshot: str, metrics: Metrics) -> None:
        self._source = source
        self._commit = commit
        self._root_path = root_path
        self._mark = snapshot_mark(snapshot)
        self._metrics = metrics
        self._giants = Giants()
        self.shelve: Callable[[str, Columns], None] = lambda path, columns: None  # of listings that came along

    def failing(self) -> bool:
        return self._source.failing()

    def describe(self, path: str) -> Entry:
        """Ask for one path. Raises NotFound, AccessDenied, RemoteError."""
        self._metrics.add("tree.describes")
        told = self._source.describe(self._commit, path, sized=True)
        (told,) = self._marked([told])
        return Entry(path, told.kind, told.versioning, told.hash, trusted_size(told))

    def columns(self, directory: Entry, sized: bool) -> Columns:
        """List a directory (`listings.Download`). Raises TooLarge, AccessDenied, RemoteError."""
        hold_to_path_max(directory.path)
        whole = None if sized else self._from_manifest(directory)
        if whole is not None:
            return whole
        self._metrics.add("tree.listings_sized" if sized else "tree.listings")
        try:
            batches = self._source.list_directory(self._commit, directory.path, sized=sized)
            columns = self._giants.build(
                directory.path, self._marked_all(batches) if in_a_bucket(directory.path) else batches
            )
        except (NotFound, NotADirectory):
            if directory.path == self._root_path:
                raise
            if directory.versioning is Versioning.GIT:
                return build(directory.path, ())  # a submodule: an empty directory, as in a clone without it
            if directory.versioning is Versioning.BUCKET:
                raise ContentChanged(f"{directory.path}: the bucket does not have this folder any more") from None
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

    def _from_manifest(self, directory: Entry) -> Columns | None:
        """Build the listings of a directory and of all below it from one answer, and have those below stored; None
        without such an answer."""
        found = None
        for path, entries in self._source.below(self._commit, directory):
            columns = build(path, (entries,))
            if path == directory.path:
                self._metrics.add("tree.manifests")
                found = columns
            elif len(path) <= PATH_MAX:
                self.shelve(path, columns)
        return found

    def _marked_all(self, batches: Iterator[Sequence[Entry]]) -> Iterator[Sequence[Entry]]:
        for batch in batches:
            yield self._marked(batch)

    def _marked(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        bucket, file = Versioning.BUCKET, Kind.FILE
        return [
            entry._replace(hash=self._mark) if entry[2] is bucket and entry[1] is file and not entry[3] else entry
            for entry in batch
        ]


def hold_to_path_max(path: str) -> None:
    """Raise TooLarge below what any program can name: a hub may list every directory in itself."""
    if len(path) > PATH_MAX:
        raise TooLarge(f"{path[:80]}... is nested deeper than a path can be long")
