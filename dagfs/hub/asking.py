"""Questions to the hub for a page or a small list, asked until they are answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from dagfs.errors import AccessDenied, ProtocolError, RemoteError
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.streams import Stream
from dagfs.hub.curl.transport import Transport
from dagfs.hub.listing import ListingParser, Page, Row
from dagfs.hub.retry import Backoff
from dagfs.metrics import Metrics

T = TypeVar("T")


class Once(Generic[T]):
    """An answer that is asked for once; who comes meanwhile shares it, or the failure, after which it is asked anew."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._flight: Future[T] | None = None  # under the lock; exists iff the answer is there or on its way

    def get(self) -> T:
        with self._lock:
            flight, fresh = self._flight or Future(), self._flight is None
            self._flight = flight
        if fresh:
            try:
                flight.set_result(self._ask())
            except BaseException as error:  # noqa: BLE001 -- the promise carries it to whoever waits
                with self._lock:
                    self._flight = None
                flight.set_exception(error)
        return flight.result()


class Asker:
    """Asks for one page at a time, and again when it fails: those before it are not asked for again. Thread-safe."""

    def __init__(self, transport: Transport, metrics: Metrics, patience: float) -> None:
        self._transport = transport
        self._metrics = metrics
        self._patience = patience
        self._closing = threading.Event()

    def close(self) -> None:
        self._closing.set()

    def page(self, url: str) -> list[Row] | Row | Page:
        """Give an answer of the hub's API: a page, a path's row, or all rows of a hub without pages."""
        return self.until_answered(lambda: self._page(url))

    def body(self, request: Request, most: int) -> bytes:
        """Give one answer's bytes. Raises ProtocolError when there are more than `most`."""
        stream, data = Stream(self._transport, request), bytearray()
        try:
            for chunk in stream.chunks():
                data += chunk
                if len(data) > most:
                    raise ProtocolError(f"a page of more than {most} bytes")
        finally:
            stream.leave()
        return bytes(data)

    def until_answered(self, ask: Callable[[], T]) -> T:
        backoff = Backoff(self._patience, self._closing)
        while True:
            try:
                return ask()
            except RemoteError as error:
                backoff.wait(error)
                self._metrics.add("hub.retries.listing")
            except AccessDenied as error:
                backoff.await_token(error)

    def _page(self, url: str) -> list[Row] | Row | Page:
        parser, rows = ListingParser(), list[Row]()
        stream = Stream(self._transport, Request(url, Lane.LISTING))
        try:
            for chunk in stream.chunks():
                rows += parser.feed(chunk)
            rest = parser.close()
        finally:
            stream.leave()
        return rows + rest if isinstance(rest, list) else rest
