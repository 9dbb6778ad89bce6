"""The tree as prefetch sees it, and the word of each opening on its way there."""

from __future__ import annotations

from dagfs.model import Content, Kind
from dagfs.prefetch.prefetcher import Prefetcher
from dagfs.prefetch.seam import FileRef
from dagfs.tree.listing import Listing, Place
from dagfs.tree.tree import Tree


class TreeCatalogue:
    """Files of the listings at hand (`prefetch.seam.Catalogue`)."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def find(self, path: str) -> FileRef | None:
        place = self._tree.known(path)
        return None if place is None else self._file(place)

    def at(self, directory: str, position: int) -> FileRef | None:
        listing = self._tree.listing_of(directory)
        if listing is None or position >= len(listing):
            return None
        return self._file(Place(listing, position))

    def rows(self, directory: str) -> int:
        listing = self._tree.listing_of(directory)
        return 0 if listing is None else len(listing)

    def _file(self, place: Place) -> FileRef | None:
        if place.kind is not Kind.FILE:
            return None
        content = self._tree.content(place)
        return _ref(place, content)


class OpeningWatcher:
    """Passes openings on to prefetch (`core.Watcher`)."""

    def __init__(self, prefetcher: Prefetcher) -> None:
        self._prefetcher = prefetcher

    def opened(self, place: Place, content: Content) -> None:
        self._prefetcher.opened(_ref(place, content))


def _ref(place: Place, content: Content) -> FileRef:
    path = content.entry.path
    position = place.position if isinstance(place.rows, Listing) else -1
    return FileRef(path, path.rpartition("/")[0], position, content)
