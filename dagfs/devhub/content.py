"""Requests for content: listings and bytes of a commit, of buckets, and of the DVC remote."""

from __future__ import annotations

from dataclasses import dataclass

from dagfs.devhub.behaviour import Behaviour, Redirect
from dagfs.devhub.git import GitRepository
from dagfs.devhub.listing import Listings, Place
from dagfs.devhub.objects import Blobs, DvcCache, Stored, open_file
from dagfs.devhub.raw import Signer, content_response
from dagfs.devhub.snapshot import Snapshots
from dagfs.devhub.storage import Storages
from dagfs.devhub.wire import Exchange, HttpError, Response, in_memory, json_response
from dagfs.errors import NotFound

_MOST_SLASHES = 16
"""Parts of an address that are tried as a branch's name."""


@dataclass(frozen=True, slots=True)
class Stock:
    """All that is served of one repository, by the rooms that hold it."""

    git: GitRepository
    cache: DvcCache
    blobs: Blobs
    snapshots: Snapshots
    listings: Listings
    storages: Storages


class Contents:
    """Answers for content; thread-safe. `root` is the path of the repository's API, `origin` where redirects lead."""

    def __init__(self, stock: Stock, behaviour: Behaviour, root: bytes, origin: str) -> None:
        self._stock = stock
        self._behaviour = behaviour
        self._root = root
        self._origin = origin
        self._signer = Signer(behaviour.signature_seconds)

    def raw(self, exchange: Exchange, parts: list[bytes]) -> Response:
        """Answer `raw/:ref/:path`."""
        place = self._place(exchange, parts)
        stored = self._open_path(exchange, place)
        return self._redirect(exchange) or self._serve(exchange, stored)

    def listing(self, exchange: Exchange, parts: list[bytes]) -> Response:
        """Answer `content/:ref/:path`."""
        place = self._place(exchange, parts)
        snapshot = self._stock.snapshots.get(place.commit)
        sized = exchange.request.query.get("include_size", "").lower() in ("true", "1")
        more = () if place.path else self._stock.storages.root_entries()
        body = self._stock.listings.render(snapshot, place, sized=sized, more=more)
        return in_memory(body, "application/json; charset=UTF-8")

    def dvc_object(self, exchange: Exchange, key: bytes) -> Response:
        """Answer for a key of the DVC remote."""
        stored = exchange.held.enter_context(open_file(self._stock.cache.remote_paths(key.decode("latin-1"))))
        return self._serve(exchange, stored)

    def storage(self, exchange: Exchange, parts: list[bytes]) -> Response:
        """Answer `storage`, `storage/content/...` and `storage/raw/...`."""
        if not parts:
            return json_response(self._stock.storages.describe())
        what, where = parts[0], parts[1:]
        if where[-1:] == [b""]:
            where.pop()
        if what == b"content":
            return json_response(self._stock.storages.content(where, exchange.request.query))
        if what != b"raw":
            raise HttpError(404, "not found")
        stored = exchange.held.enter_context(self._stock.storages.open(where))
        return self._redirect(exchange) or self._serve(exchange, stored)

    def signed(self, exchange: Exchange) -> Response:
        """Answer for an address that a redirect gave out. Raises HttpError 403."""
        path = self._signer.verify(exchange.request)
        what, *parts = path[len(self._root) + 1 :].split(b"/")
        if what == b"raw":
            return self._serve(exchange, self._open_path(exchange, self._place(exchange, parts)))
        exchange.kind = "storage"
        return self._serve(exchange, exchange.held.enter_context(self._stock.storages.open(parts[1:])))

    def _place(self, exchange: Exchange, parts: list[bytes]) -> Place:
        """Split `:ref/:path`, where a branch's name may have slashes. Raises NotFound."""
        exchange.path = b"/".join(parts[1:]).decode("utf-8", "surrogateescape")
        words, commit = self._ref(parts)
        path = b"/".join(parts[words:]).rstrip(b"/")
        exchange.path = path.decode("utf-8", "surrogateescape")
        return Place(b"/".join(parts[:words]), commit, b"" if path == b"." else path)

    def _ref(self, parts: list[bytes]) -> tuple[int, str]:
        """Give how many of the parts name the commit, and its sha: a branch, a tag, or a full or short sha."""
        first = parts[0].decode("utf-8", "surrogateescape")
        if len(first) == 40 and self._stock.snapshots.known(first):
            return 1, first
        names = [b"/".join(parts[:n]) for n in range(1, min(len(parts), _MOST_SLASHES) + 1)]
        for find in (self._stock.git.branch, self._stock.git.tag):
            for n, name in enumerate(names, 1):
                found = find(name)
                if found:
                    return n, found
        found = self._stock.git.commit(parts[0])
        if found is None:
            raise NotFound("no such branch, tag or commit")
        return 1, found

    def _open_path(self, exchange: Exchange, place: Place) -> Stored:
        """Open a file of a commit until the answer is sent. Raises NotFound."""
        node = self._stock.snapshots.get(place.commit).lookup(place.path)
        if node.is_dir:
            raise NotFound("a directory has no bytes")
        if not node.dvc:
            return exchange.held.enter_context(self._stock.blobs.open(node.oid))
        paths = self._stock.cache.paths(node.oid, legacy=node.legacy)
        return exchange.held.enter_context(open_file(paths, node.oid))

    def _serve(self, exchange: Exchange, stored: Stored) -> Response:
        return content_response(exchange.request, stored, self._behaviour)

    def _redirect(self, exchange: Exchange) -> Response | None:
        if self._behaviour.redirect is Redirect.NONE:
            return None
        exchange.kind = "redirect"
        url = self._origin + self._signer.sign(exchange.request.path)
        response = in_memory(b"", "text/html", 302)
        response.headers["Location"] = url
        return response
