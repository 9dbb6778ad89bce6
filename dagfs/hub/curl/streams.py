"""A body read by a thread that may be slower than the network."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from dagfs.errors import DagfsError
from dagfs.hub.curl.exchange import Exchange, Request
from dagfs.hub.curl.transport import Transport
from dagfs.hub.source import BodyHead

HIGH_BYTES = 4 << 20
"""Kept for the reader before the network has to wait: more than it parses while one round trip passes."""

GRACE_BYTES = 64 << 10
"""Of an answer that nobody needs are still taken: its connection can be used again then."""


class Stream:
    """Gives a body's bytes as they come, holding at most about HIGH_BYTES of them. One reader.

    As a `source.BodySink` it is called by the transport's thread.
    """

    def __init__(self, transport: Transport, request: Request) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._chunks: list[bytes] = []
        self._kept = 0  # bytes in _chunks
        self._ended = False
        self._error: DagfsError | None = None
        self._grace: int | None = None  # bytes still welcome after the reader has left; None while it has not
        self._exchange: Exchange | None = None
        exchange = transport.get(request, self)
        with self._changed:
            self._exchange = exchange

    def head(self, head: BodyHead) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        with self._changed:
            if self._grace is not None:
                self._grace -= len(chunk)
            else:
                self._chunks.append(chunk)
                self._kept += len(chunk)
                self._changed.notify()
            exchange, tired = self._exchange, self._grace is not None and self._grace < 0
            full = self._kept > HIGH_BYTES
            if full and exchange is not None:
                exchange.pause()  # a flag only; set under the lock, so that a resume cannot overtake it
        if tired and exchange is not None:
            exchange.cancel()

    def done(self, error: DagfsError | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def chunks(self) -> Iterator[bytes]:
        """Give what has come since the last one, and end with the body. Raises what the body ended with."""
        while True:
            with self._changed:
                while not self._chunks and not self._ended:
                    self._changed.wait()
                chunks, self._chunks, self._kept = self._chunks, [], 0
                exchange, ended, error = self._exchange, self._ended, self._error
                if exchange is not None:
                    exchange.resume()
            if chunks:
                yield from chunks  # one by one: what is cut from a joined piece of megabytes is copied again and again
            elif ended and error is not None:
                raise error
            elif ended:
                return

    def leave(self) -> None:
        """The reader needs no more; a long rest is cut off. Idempotent."""
        with self._changed:
            self._grace, self._chunks, self._kept = GRACE_BYTES, [], 0
            exchange = self._exchange
        if exchange is not None:
            exchange.resume()
