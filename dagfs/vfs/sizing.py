"""How a file's size becomes known: by what the program does, since the hub's listing has names only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dagfs.answers import settle, then
from dagfs.errors import ContentChanged, DagfsError, NotFound, RemoteError, RemoteUnavailable
from dagfs.hub.dvc import parse_dvc_file
from dagfs.model import Answer, Content, Span, Urgency, Versioning
from dagfs.reader import Bytes
from dagfs.tree.listing import Listing, Place
from dagfs.tree.numbers import Recent
from dagfs.tree.tree import Tree

T = TypeVar("T")

PATIENCE = 4
"""Lookups without a read that are answered file by file, before the directory's sizes are asked for at once."""

ROWS_PER_LOOKUP = 4096
"""Rows of a directory that cost as much to list with sizes as one lookup: a huge one is asked for later."""

_POINTER_MAX = 64 << 10  # bytes of a .dvc file; hubs may have any file of that name
_DIRECTORIES_KEPT = 4096
_PENDING_KEPT = 256  # lookups remembered for a directory


class SizePolicy:
    """Tells a program that reads what it looks up from one that only wants to know sizes. No threads, no network."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: Recent[int, dict[int, None]] = Recent(_DIRECTORIES_KEPT)  # directory -> unread nodes looked up
        self.stat_mode = False  # a directory has shown that sizes are what is wanted, and no read came since

    def looked_up(self, directory: int, node: int, rows: int) -> bool:
        """Note the lookup of an unsized file; True when all sizes of its directory should be asked for."""
        with self._lock:
            pending = self._pending.get(directory) or {}
            pending[node] = None
            if len(pending) > _PENDING_KEPT:
                del pending[next(iter(pending))]
            self._pending.put(directory, pending)
            if len(pending) <= min((0 if self.stat_mode else PATIENCE) + rows // ROWS_PER_LOOKUP, _PENDING_KEPT - 1):
                return False
            self.stat_mode = True
            return True

    def was_read(self, directory: int, node: int) -> None:
        """Note the first read of a file."""
        with self._lock:
            self.stat_mode = False
            pending = self._pending.get(directory)
            if pending:
                pending.pop(node, None)


class Sizer:
    """Finds sizes: from the entry, the store, the file's own transfer, or one sized listing of its directory."""

    def __init__(self, tree: Tree, cache: Bytes, stored: Callable[[Content], int | None], policy: SizePolicy) -> None:
        self._tree = tree
        self._cache = cache
        self._stored = stored
        self.policy = policy

    def size(self, place: Place, content: Content) -> Answer[int]:
        """Give a file's size in bytes. A submodule that was listed as a file turns into a directory meanwhile."""
        stored = self._stored(content)
        if stored is not None:
            return self._learnt(place, stored)
        listing = place.rows
        if isinstance(listing, Listing) and not listing.asked_sizes and not self._tree.hub_fails():
            listing.used = True
            if self.policy.looked_up(listing.number, place.node, len(listing)):
                return self._from_listing(place, listing, content)
        return self._from_transfer(place, content)

    def _from_listing(self, place: Place, listing: Listing, content: Content) -> Answer[int]:
        self._tree.walked(listing.directory, sized=True)

        def step(sized: Listing | None) -> Answer[int]:
            size = -1 if sized is None else sized.size(place.position)
            return size if size >= 0 else self._from_transfer(place, content)

        def ask() -> Answer[Listing | None]:
            return then(self._tree.sized(listing.directory), lambda sized: sized)

        return then(recover(ask, RemoteError, self._unlisted), step)

    def _unlisted(self, error: DagfsError) -> None:
        """Go on with the file itself; without a hub that would be a second deadline for one lookup."""
        if self._tree.hub_fails():
            raise error

    def _from_transfer(self, place: Place, content: Content) -> Answer[int]:
        """Start to read the file: its length comes first, and the read that follows finds the rest under way."""

        def ask() -> Answer[int]:
            return then(self._cache.size(content, Urgency.READER), lambda size: self._learnt(place, size))

        return recover(ask, NotFound, lambda _: self._without_content(place, content))

    def _without_content(self, place: Place, content: Content) -> Answer[int]:
        """The path is listed, but the hub has no bytes for it."""
        if content.entry.versioning is Versioning.GIT:
            self._tree.reveal_directory(place)
            return 0
        if content.entry.versioning is Versioning.BUCKET:
            raise never_pushed(content)
        pointer = self._tree.known(content.entry.path + ".dvc")
        if pointer is None:
            raise never_pushed(content)
        bytes_of_pointer = self._tree.content(pointer)
        text = then(
            self._cache.size(bytes_of_pointer, Urgency.READER),
            lambda size: self._cache.read(bytes_of_pointer, Span(0, min(size, _POINTER_MAX)), Urgency.READER),
        )
        return then(text, lambda text: self._learnt(place, _pointed_size(text, content)))

    def _learnt(self, place: Place, size: int) -> int:
        self._tree.learn(place, size)
        return size


def recover(
    ask: Callable[[], Answer[T]], error: type[DagfsError], step: Callable[[DagfsError], Answer[T]]
) -> Answer[T]:
    """Give what `ask` answers, now or later; go on with `step` when that is `error`."""

    def judged(result: Callable[[], Answer[T]]) -> Answer[T]:
        try:
            return result()
        except error as reason:
            return step(reason)

    answer = judged(ask)
    if not isinstance(answer, Future):
        return answer
    later: Future[T] = Future()

    answer.add_done_callback(lambda done: settle(later, lambda: judged(done.result)))
    return later


def never_pushed(content: Content) -> DagfsError:
    """Give the error for a path that is listed without content: the path exists, so it is not NotFound."""
    if content.entry.versioning is Versioning.BUCKET:
        return ContentChanged(f"{content.entry.path}: the bucket does not have this object any more")
    return RemoteUnavailable(f"{content.entry.path}: the hub lists it but has no content for it (was it pushed?)")


def _pointed_size(text: bytes, content: Content) -> int:
    directory = content.entry.path.rpartition("/")[0]
    for out in parse_dvc_file(text, directory):
        if out.path == content.entry.path and out.size is not None and not out.is_dir:
            return out.size
    raise never_pushed(content)
