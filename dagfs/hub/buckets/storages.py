"""The buckets that are connected to a repository, as a part of its tree: `.dagshub/storage/PROTOCOL/BUCKET/KEY`.

They come through the hub's storage API; the repository's own bucket, `s3/NAME`, also through the hub's S3 endpoint
where that API is without it. Neither is versioned. Down to the protocols, what git has there is shown as well.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dagfs.errors import AccessDenied, NotADirectory, NotFound, ProtocolError, RemoteError
from dagfs.hub import listing, urls
from dagfs.hub.asking import Asker, Once
from dagfs.hub.buckets.own_bucket import OwnBucket
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.transport import Transport
from dagfs.hub.listing import Page, Row
from dagfs.hub.pages import Pages
from dagfs.hub.rest import Rest
from dagfs.metrics import Metrics
from dagfs.model import STORAGES, Entry, Kind, RepoRef, Span, Versioning, etag_of, in_a_bucket

log = logging.getLogger(__name__)

PAGE_ENTRIES = 1000
"""Asked for at a time; a hub may send fewer. Its default of a hundred would cost ten times the round trips."""

MAX_BARREN = 1000
"""Pages one after another that bring nothing: a hub may filter, but not for ever."""

STORAGES_MAX = 10_000
"""Connected buckets that are believed."""

PROTOCOLS = frozenset({"s3", "gs", "azure"})

_TOP = f"{STORAGES}/storage"

GitPart = Callable[[], Iterator[Sequence[Entry]]]
"""Gives what git has in a directory. Raises NotFound."""


class Way(enum.Enum):
    """How the repository's own bucket is reached."""

    API = "the storage API"
    S3 = "the S3 endpoint"
    NONE = "there is none, or it is empty"


class Storages:
    """Thread-safe. Which there are is asked once, when somebody looks there. Raises what `source.Source` says."""

    def __init__(self, repo: RepoRef, transport: Transport, rest: Rest, metrics: Metrics, patience: float) -> None:
        self._repo = repo
        self._rest = rest
        self._asker = Asker(transport, metrics, patience)
        self._own = ("s3", repo.name)
        self._own_bucket = OwnBucket(repo, self._asker, f"{_TOP}/s3/{repo.name}")
        self._storages = Once(self._ask_storages)  # of each protocol, bucket, parts of a prefix
        self._way = Once(self._find_way)

    def list_directory(self, path: str, git: GitPart) -> Iterator[Sequence[Entry]]:
        """Stream a directory of `in_storages`, with what git has in it; sizes come along."""
        where = _where(path)
        storage = None if where is None else self._storage_of(where)
        if where is not None and storage is not None:
            yield from self._list(where, storage)
            return
        children = self._children(where)
        if children:
            yield [_directory(f"{path}/{name}") for name in sorted(children)]
        if in_a_bucket(path):  # of a bucket whose name goes on, or of none
            if not children:
                raise NotFound(path)
            return
        try:
            for batch in git():
                yield [entry for entry in batch if entry.path.rpartition("/")[2] not in children]
        except NotFound:
            if not children:
                raise

    def describe(self, path: str, git: Callable[[], Entry]) -> Entry:
        """Describe a path of `in_storages`; `git` gives what git has there, or raises NotFound."""
        where = _where(path)
        storage = None if where is None else self._storage_of(where)
        if where is not None and storage is not None:
            return self._describe(where, storage)
        if (where is not None or path == STORAGES) and self._children(where):
            return _directory(path)
        if in_a_bucket(path):
            raise NotFound(path)
        return git()

    def request(self, entry: Entry, span: Span | None) -> Request:
        """Give what to ask for an object's bytes. Asks nothing."""
        where = entry.path.removeprefix(f"{_TOP}/")
        parts = tuple(where.split("/"))
        if parts[:2] == self._own and etag_of(entry):  # only S3's listing tells it
            return self._own_bucket.request("/".join(parts[2:]), span)
        return Request(urls.storage_raw(self._repo, where), Lane.RAW, span)

    def close(self) -> None:
        self._asker.close()

    def _children(self, where: tuple[str, ...] | None) -> frozenset[str]:
        """Give the names in a directory above the buckets; of STORAGES itself, `where` is None."""
        storages = self._storages.get()
        try:
            own = self._way.get() is not Way.NONE
        except RemoteError:
            own = True  # not known now: it is shown, and an error for who looks into it
        if own:
            storages |= {self._own}
        if where is None:
            return frozenset({"storage"}) if storages else frozenset()
        depth = len(where)
        return frozenset(storage[depth] for storage in storages if storage[:depth] == where and len(storage) > depth)

    def _storage_of(self, where: tuple[str, ...]) -> tuple[str, ...] | None:
        """Give the storage that a path lies in, None above all of them and beside."""
        if len(where) < 2:
            return None
        found = next((storage for storage in self._storages.get() if where[: len(storage)] == storage), None)
        if found is None and where[:2] == self._own and self._way.get() is not Way.NONE:
            return self._own
        return found

    def _ask_storages(self) -> frozenset[tuple[str, ...]]:
        answer = self._rest.get(urls.storages(self._repo))
        if answer.status in (401, 403):
            raise AccessDenied(f"the hub does not tell the storages of {self._repo.slug} (HTTP {answer.status})")
        if answer.status != 200:
            return frozenset()  # a hub without storages
        rows = answer.body if isinstance(answer.body, list) else []
        found = frozenset(filter(None, map(_storage, rows[:STORAGES_MAX])))
        log.info("%s has %d connected storages", self._repo.slug, len(found))
        return found

    def _find_way(self) -> Way:
        """Find out how the own bucket is reached."""
        try:
            if _has_entries(self._asker.page(urls.storage_page(self._repo, "/".join(self._own), 1))):
                return Way.API
        except (NotFound, AccessDenied):
            pass
        try:
            return Way.S3 if self._own_bucket.has_objects() else Way.NONE
        except (NotFound, AccessDenied):
            return Way.NONE
        except ProtocolError as error:  # not every hub has the endpoint, and the other buckets are no worse for it
            log.warning("%s has no bucket of its own that can be listed: %s", self._repo.slug, error)
            return Way.NONE

    def _through_s3(self, storage: tuple[str, ...]) -> bool:
        return storage == self._own and self._way.get() is Way.S3

    def _list(self, where: tuple[str, ...], storage: tuple[str, ...]) -> Iterator[Sequence[Entry]]:
        name = "/".join(where)
        pages, token, barren = Pages(name), None, 0
        s3_folder = "/".join(where[2:]) if self._through_s3(storage) else None
        while True:
            if s3_folder is not None:
                entries, following = self._own_bucket.page(s3_folder, token)
            else:
                entries, following = self._api_page(name, token)
            barren = 0 if entries else barren + 1
            if barren > MAX_BARREN:
                raise ProtocolError(f"the listing of {name!r} goes on without an entry")
            if entries:
                yield entries
            token = pages.next(following, entries[0].path if entries else None)
            if token is None:
                return

    def _api_page(self, name: str, token: str | None) -> tuple[list[Entry], str | None]:
        url = urls.storage_page(self._repo, name, PAGE_ENTRIES, token)
        answer = self._asker.page(url)
        if isinstance(answer, Row):
            if listing.entry(answer, name, sized=True).kind is Kind.DIRECTORY:
                raise ProtocolError(f"{name!r} is described as a directory, but not listed")
            raise NotADirectory(name)
        rows, following = (answer.entries or [], answer.next_token) if isinstance(answer, Page) else (answer, None)
        return [_ours(entry) for entry in listing.entries(rows, name, sized=True)], following

    def _describe(self, where: tuple[str, ...], storage: tuple[str, ...]) -> Entry:
        path = f"{_TOP}/{'/'.join(where)}"
        if where == storage:
            return _directory(path)
        if self._through_s3(storage):
            return self._own_bucket.describe("/".join(where[2:]))
        answer = self._asker.page(urls.storage_page(self._repo, "/".join(where), 1))
        if isinstance(answer, Row):
            return _ours(listing.entry(answer, "/".join(where), sized=True))
        if not _has_entries(answer):
            raise NotFound(path)  # a folder is there where keys begin with it
        return _directory(path)


class RootListing:
    """Sees what passes by in the listing of a repository's root, and adds STORAGES where buckets are named in it."""

    def __init__(self) -> None:
        self._named = False
        self._listed = False

    def look(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._named = self._named or row.type == "storage"
            self._listed = self._listed or (row.path == STORAGES and row.type == "dir")

    def more(self) -> list[Entry]:
        return [_directory(STORAGES)] if self._named and not self._listed else []


def _where(path: str) -> tuple[str, ...] | None:
    """Give the parts of a path below STORAGES/storage, () for that itself; None for other paths."""
    if path == _TOP:
        return ()
    return tuple(path[len(_TOP) + 1 :].split("/")) if path.startswith(f"{_TOP}/") else None


def _storage(row: Any) -> tuple[str, ...] | None:
    """Read a storage; None for what is none, or could not be shown."""
    protocol, name = (row.get("protocol"), row.get("name")) if isinstance(row, dict) else (None, None)
    if not isinstance(protocol, str) or protocol not in PROTOCOLS or not isinstance(name, str) or len(name) > 1024:
        return None
    parts = tuple(name.strip("/").split("/"))
    return None if {"", ".", ".."}.intersection(parts) else (protocol, *parts)


def _has_entries(answer: list[Row] | Row | Page) -> bool:
    return bool(answer.entries if isinstance(answer, Page) else answer)


def _ours(entry: Entry) -> Entry:
    """Give an entry of the storage API as one of the repository's."""
    return Entry(f"{_TOP}/{entry.path}", entry.kind, Versioning.BUCKET, "", entry.size)  # no hash there is an ETag


def _directory(path: str) -> Entry:
    return Entry(path, Kind.DIRECTORY, Versioning.BUCKET)
