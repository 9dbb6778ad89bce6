"""A repository on a DagsHub-compatible hub: the real `source.Source`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dagfs.errors import AccessDenied, NotADirectory, ProtocolError, RemoteError
from dagfs.hub import listing, urls
from dagfs.hub.auth import Token
from dagfs.hub.buckets.storages import RootListing, Storages
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.streams import Stream
from dagfs.hub.curl.transport import STALL_SECONDS, Transport
from dagfs.hub.listing import ListingParser, Page, Row
from dagfs.hub.network import Network
from dagfs.hub.pages import Pages
from dagfs.hub.rest import Rest
from dagfs.hub.retry import Backoff
from dagfs.hub.revisions import Revisions
from dagfs.hub.source import BodySink, Transfer
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, RefKind, RepoRef, Span, Versioning, in_storages

log = logging.getLogger(__name__)

LISTING_PATIENCE = 60.0
"""Seconds without a new entry, over all tries, after which a listing fails."""

MAX_BARREN = 1000
"""Pages, or batches of a listing, one after another that bring nothing: a hub may filter, but not for ever."""

SUSPICIOUS_COUNT = 500
"""The hub once cut listings here without a word."""


def connect(
    repo: RepoRef, token: Token, metrics: Metrics, environment: Mapping[str, str], stall_after: float = STALL_SECONDS
) -> HubSource:
    """Build a source with its connections. Raises UsageError when the environment's certificates are missing."""
    network = Network.of(environment)
    rest = Rest(repo.host, token, metrics, network)
    return HubSource(repo, Transport(repo.host, token, metrics, network, stall_after), rest, metrics)


class HubSource:
    """A repository on a hub; thread-safe. Listings and descriptions are retried here, bodies by who asks for them."""

    def __init__(
        self, repo: RepoRef, transport: Transport, rest: Rest, metrics: Metrics, patience: float = LISTING_PATIENCE
    ) -> None:
        self.repo = repo
        self._transport = transport
        self._rest = rest
        self._revisions = Revisions(repo, rest)
        self._storages = Storages(repo, transport, rest, metrics, patience)
        self._metrics = metrics
        self._patience = patience
        self._closing = threading.Event()

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        return self._revisions.resolve(revision, kind)

    def whoami(self) -> str:
        """Give the login name that the token belongs to. Raises BadToken, HubUnreachable."""
        return self._revisions.whoami()

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        if not in_storages(path):
            return self._list(commit, path, sized)
        return self._storages.list_directory(path, lambda: self._list(commit, path, sized))

    def _list(self, commit: Commit, path: str, sized: bool) -> Iterator[Sequence[Entry]]:
        """After a failure the listing is asked for again, and what was given out already is passed over."""
        url = urls.content(self.repo, commit.sha, path, sized=sized)
        backoff = Backoff(self._patience, self._closing)
        given = 0
        last: Entry | None = None
        while True:
            try:
                for batch in _after(self._batches(url, path, sized), given, last):
                    backoff.progress()
                    given, last = given + len(batch), batch[-1]
                    yield batch
            except RemoteError as error:
                self._retry(backoff, error)
            except AccessDenied as error:
                backoff.await_token(error)
            else:
                if given == SUSPICIOUS_COUNT:
                    log.warning("%r has exactly %d entries, where a hub may have cut its listing", path, given)
                return

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        if not path:
            return Entry("", Kind.DIRECTORY, Versioning.GIT)
        if not in_storages(path):
            return self._description(commit, path, sized)
        return self._storages.describe(path, lambda: self._description(commit, path, sized))

    def _description(self, commit: Commit, path: str, sized: bool) -> Entry:
        url = urls.content(self.repo, commit.sha, path, sized=sized)
        backoff = Backoff(self._patience, self._closing)
        while True:
            try:
                return self._describe(url, path, sized)
            except RemoteError as error:
                self._retry(backoff, error)
            except AccessDenied as error:
                backoff.await_token(error)

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        if entry.versioning is Versioning.BUCKET:
            return self._transport.get(self._storages.request(entry, span), sink)
        return self._transport.get(Request(urls.raw(self.repo, commit.sha, entry.path), Lane.RAW, span), sink)

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        return iter(())  # the API tells of one directory at a time

    def remote_object(self, url: str, span: Span | None, sink: BodySink) -> Transfer:
        """Start to transfer an object of a DVC remote that the hub has (section 7 of its contract)."""
        return self._transport.get(Request(url, Lane.RAW, span, basic=True), sink)

    def failing(self) -> bool:
        return self._transport.standing.failing

    def standing(self) -> dict[str, Any]:
        """Tell how the hub has answered lately, see `standing.Standing.report`."""
        return self._transport.standing.report()

    def close(self) -> None:
        self._closing.set()
        self._storages.close()
        self._rest.close()
        self._transport.close()

    def _retry(self, backoff: Backoff, error: RemoteError) -> None:
        backoff.wait(error)
        self._metrics.add("hub.retries.listing")

    def _batches(self, url: str, path: str, sized: bool) -> Iterator[list[Entry]]:
        """Give the children of a directory as one try brings them."""
        barren, root = 0, RootListing()
        for rows in self._rows(url, path):
            if not path:
                root.look(rows)
            found = listing.entries(rows, path, sized=sized)
            barren = 0 if found else barren + 1
            if barren > MAX_BARREN:
                raise ProtocolError(f"the listing of {path!r} goes on without an entry")
            if found:
                yield found
        if root.more():
            yield root.more()

    def _rows(self, url: str, path: str) -> Iterator[Sequence[Row]]:
        """Give a listing's rows, over all of its pages when it has pages."""
        pages, token = Pages(path), None
        while True:
            page = yield from self._page(url if token is None else _next_page(url, token), path)
            token = pages.next(page.next_token if page is not None else None)
            if token is None:
                return

    def _page(self, url: str, path: str) -> Generator[Sequence[Row], None, Page | None]:
        """Give one answer's rows, and return the page that they were in; an array is no page."""
        parser = ListingParser()
        stream = Stream(self._transport, Request(url, Lane.LISTING))
        try:
            for chunk in stream.chunks():
                rows = parser.feed(chunk)
                if rows:
                    yield rows
            rest = parser.close()
        finally:
            stream.leave()
        if isinstance(rest, Row):
            if listing.entry(rest, path, sized=False).kind is Kind.DIRECTORY:
                raise ProtocolError(f"{path!r} is described as a directory, but not listed")
            raise NotADirectory(path)
        yield rest.entries or () if isinstance(rest, Page) else rest
        return rest if isinstance(rest, Page) else None

    def _describe(self, url: str, path: str, sized: bool) -> Entry:
        """Ask for a path; the first byte tells a directory, whose listing is not waited for."""
        parser = ListingParser()
        stream = Stream(self._transport, Request(url, Lane.LISTING))
        try:
            for chunk in stream.chunks():
                parser.feed(chunk)
                if parser.is_array:
                    return Entry(path, Kind.DIRECTORY, Versioning.GIT)
            told = parser.close()
        finally:
            stream.leave()
        if isinstance(told, Row):
            return listing.entry(told, path, sized=sized)
        return Entry(path, Kind.DIRECTORY, Versioning.GIT)


def _after(batches: Iterator[list[Entry]], given: int, last: Entry | None) -> Iterator[list[Entry]]:
    """Pass over the first `given` entries, which must end with `last`. Raises ProtocolError for another listing."""
    left = given
    for batch in batches:
        passed = min(left, len(batch))
        left -= passed
        if passed and not left and batch[passed - 1] != last:
            raise ProtocolError("a listing that differs from one try to the next")
        if passed < len(batch):
            yield batch[passed:]
    if left:
        raise ProtocolError("a listing that is shorter than at the try before")


def _next_page(url: str, token: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}paging=true&from_token={quote(token, safe='')}"
