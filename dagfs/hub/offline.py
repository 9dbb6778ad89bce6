"""A hub that is never asked: the `source.Source` of a mount without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dagfs.errors import Offline
from dagfs.hub.source import BodySink, Transfer
from dagfs.model import Commit, Entry, RefKind, Span


class OfflineSource:
    """Refuses at once whatever the rooms above did not find in the cache. Opens no connection, starts no thread."""

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        raise Offline("a mount without a network resolves no revision", "", listing=True)

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        raise Offline(f"offline, and the listing of {path or '/'} is not in the cache", path, listing=True)

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        """What is missing is the directory's listing: with it, the path would be known or known to be absent."""
        directory = path.rpartition("/")[0]
        text = f"offline, and neither {path} nor the listing of {directory or '/'} is in the cache"
        raise Offline(text, directory, listing=True)

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        return iter(())

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        what = f"{entry.path} from byte {span.start} on" if span is not None and span.start else entry.path
        raise Offline(f"offline, and the cache does not have {what}", entry.path, listing=False)

    def standing(self) -> dict[str, Any]:
        return {"state": "offline", "error": "", "seconds": 0}

    def failing(self) -> bool:
        return True

    def close(self) -> None:
        pass
