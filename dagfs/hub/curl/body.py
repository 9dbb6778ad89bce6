"""What comes of a file after the head: unfolded, counted, and compared with what was announced and asked for."""

from __future__ import annotations

from collections.abc import Iterator

from dagfs.errors import DagfsError, DamagedBody, ProtocolError, RemoteUnavailable
from dagfs.hub import reply
from dagfs.hub.curl.inflate import Inflater
from dagfs.model import Span

LISTING_RATIO = 200
"""How many times its size a compressed listing may unfold to: names in order make twenty, a bomb a thousand."""

RATIO_GRACE = 4 << 20
"""Bytes that may unfold whatever the ratio."""


class Body:
    """One answer's body, for the span asked for (None: the whole file); `bounded`: one that must not unfold for ever.

    Raises ProtocolError for an answer that is no body of that span, else the error that its status stands for.
    """

    __slots__ = ("_announced", "_bounded", "_inflater", "_span", "_wire", "head", "received")

    def __init__(self, answer: reply.Reply, span: Span | None, *, bounded: bool) -> None:
        self.head, self._announced = reply.begin(answer, span)
        self.received = 0  # bytes given out
        self._span = span
        self._bounded = bounded
        self._wire = 0  # bytes that have come, of a compressed body
        self._inflater: Inflater | None = None
        if answer.encoding is not None and answer.length != 0:  # no bytes are no compressed stream either
            self._inflater = Inflater(answer.encoding)

    @property
    def compressed(self) -> bool:
        return self._inflater is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the file's bytes of a chunk. Raises DamagedBody, and ProtocolError for more than there may be."""
        if self._inflater is None:
            yield self._counted(chunk)
            return
        self._wire += len(chunk)
        for plain in self._inflater.feed(chunk):
            yield self._counted(plain)
            if self._bounded and self.received > LISTING_RATIO * self._wire + RATIO_GRACE:
                raise ProtocolError(f"a listing that unfolds to more than {LISTING_RATIO} times its size")

    def shortage(self) -> DagfsError | None:
        """Compare what came with what was announced and what was asked for."""
        if self._inflater is not None and not self._inflater.complete:
            return DamagedBody(f"a compressed body without its end, after {self.received} bytes")
        if self._announced is not None and self.received != self._announced:
            return RemoteUnavailable(f"cut after {self.received} of {self._announced} bytes")
        if not reply.enough(self.head, self.received, self._span):
            return ProtocolError("fewer bytes than the file has of the span asked for")
        return None

    def _counted(self, plain: bytes) -> bytes:
        self.received += len(plain)
        if self._announced is not None and self.received > self._announced:
            raise ProtocolError("more bytes than announced")
        return plain
