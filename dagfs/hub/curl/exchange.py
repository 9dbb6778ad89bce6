"""One body from its request to its end: over redirects, refused signatures and rotated tokens."""

from __future__ import annotations

import enum
import logging
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pycurl

from dagfs.errors import DagfsError, Obstacle, ProtocolError, RemoteUnavailable, Stalled
from dagfs.hub import redirects, reply
from dagfs.hub.curl.body import Body
from dagfs.hub.source import BodySink
from dagfs.hub.urls import origin, redact
from dagfs.model import Span

log = logging.getLogger(__name__)

DRAIN_BYTES = 64 << 10
"""Of an error's text are read before its connection is given up: less costs a new connection, more costs bytes."""

GATHERED_BYTES = 256 << 10
"""Passed on at once: curl may read on for long before its turn ends, and a slow sink wants to pause it."""

HEAD_BYTES = 256 << 10
"""Of an answer's headers, those of interim answers included; curl's own bound is about that, of each."""

ABORT = -1  # a count that is never the chunk's: curl ends the transfer
_REFUSALS = frozenset({400, 401, 403})  # the object stores do not agree on how to say that a signature has expired
_PROTOCOL_CODES = frozenset({
    pycurl.E_FTP_WEIRD_SERVER_REPLY,  # named so since before HTTP used it
    pycurl.E_URL_MALFORMAT,
    pycurl.E_UNSUPPORTED_PROTOCOL,
})  # fmt: skip

_OBSTACLES = {
    pycurl.E_PEER_FAILED_VERIFICATION: Obstacle.CERTIFICATE,
    pycurl.E_COULDNT_RESOLVE_HOST: Obstacle.NAME,
    pycurl.E_COULDNT_RESOLVE_PROXY: Obstacle.PROXY,
}


class Lane(enum.Enum):
    """Listings and bodies have separate connections: on a shared one, a listing would queue behind bodies."""

    LISTING = "listing"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Request:
    """A GET. `span`: the bytes of the file that are wanted, None for all. `basic`: the token goes as DVC sends it, as
    user and as password; that it is refused so does not say that the hub's API refuses it. `signs`: the token is not
    shown as such but signs the request, as S3 has it."""

    url: str
    lane: Lane
    span: Span | None = None
    basic: bool = False
    signs: bool = False


class Loop(Protocol):
    """The thread that an exchange lives in."""

    def gathers(self, exchange: Exchange) -> None:
        """Called in the loop's thread: have `pass_on` called when all that curl has read now has come."""

    def unpause(self, exchange: Exchange) -> None:
        """This one and `abandon` return at once and work from any thread."""

    def abandon(self, exchange: Exchange) -> None: ...


class Exchange:
    """A transfer under way (`source.Transfer`), with a pause for sinks that are slower than the network.

    Everything but `cancel`, `pause` and `resume` runs in the loop's thread.
    """

    __slots__ = (
        "_accepted", "_body", "_chunks", "_drained", "_gathered", "_head_bytes", "_lines", "_loop", "_reply",
        "_retried", "_sink", "cancelled", "ended", "failed", "handle", "hops", "last_byte", "paused", "refused",
        "request", "token", "url",
    )  # fmt: skip

    def __init__(self, request: Request, sink: BodySink, loop: Loop) -> None:
        self.request = request
        self._sink = sink
        self._loop = loop
        self.handle: Any = None  # the pycurl handle while it is running
        self.cancelled = False
        self.paused = False
        self.ended = False  # true iff sink.done has been called
        self.token: str | None = None  # that the running request carries
        self._retried = False
        self.aim(request.url, 0)

    @property
    def received(self) -> int:
        """Bytes of the body given to the sink."""
        return self._body.received if self._body is not None else 0

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._loop.abandon(self)

    def pause(self) -> None:
        """Take no more bytes from the network until `resume`; the chunk at hand is not lost."""
        self.paused = True

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._loop.unpause(self)

    def aim(self, url: str, hops: int) -> None:
        """Get ready to ask a URL; `hops` redirects have led to it."""
        self.url = url
        self.hops = hops
        self.last_byte = time.monotonic()
        self.refused = False  # the address behind the URL's name is not for redirects
        self.failed: DagfsError | None = None  # why the exchange broke the transfer off itself
        self._lines: list[bytes] = []
        self._head_bytes = 0  # of all header lines
        self._reply: reply.Reply | None = None
        self._body: Body | None = None  # of the file, or of its absence beyond the end; not an error's text
        self._accepted = False  # the body has bytes of the file
        self._drained = 0
        self._chunks: list[bytes] = []  # come and not passed on yet
        self._gathered = 0  # bytes in _chunks

    def on_header(self, line: bytes) -> int | None:
        """Called by curl for each header line; what follows the blank one, of a chunked body, is ignored."""
        if self._reply is not None:
            return None
        self._head_bytes += len(line)
        if self._head_bytes > HEAD_BYTES:
            self.failed = ProtocolError("an answer with headers without end")
            return ABORT
        if line not in (b"\r\n", b"\n"):
            self._lines.append(line)
            return None
        self.last_byte = time.monotonic()
        return self._guarded(self._begin)

    def on_data(self, chunk: bytes) -> int | None:
        """Called by curl for each 16 KiB of a body. They are passed on together: to hand up each by itself would cost
        100 KB seven times the way through the rooms, and seven turns of the interpreter's lock."""
        self.last_byte = time.monotonic()
        if self.cancelled or self.failed is not None:
            return ABORT
        if self.paused:
            return int(pycurl.WRITEFUNC_PAUSE)
        if self._body is None or not self._accepted:
            self._drained += len(chunk)
            return ABORT if self._drained > DRAIN_BYTES else None
        if self._body.compressed:  # each chunk may be a thousand times as much: it goes on by itself
            self._chunks.append(chunk)
            return None if self.pass_on() else ABORT
        if not self._chunks:
            self._loop.gathers(self)
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        return None if self._gathered < GATHERED_BYTES or self.pass_on() else ABORT

    def pass_on(self) -> bool:
        """Give the sink what has come; False when it cannot go on, and the transfer is to be broken off."""
        chunks, self._chunks, self._gathered = self._chunks, [], 0
        if not chunks or self.cancelled or self.failed is not None:
            return True
        return self._guarded(lambda: self._take(b"".join(chunks))) is None

    def _take(self, chunk: bytes) -> None:
        if self._body is None:
            return
        for plain in self._body.feed(chunk):
            if plain:
                self._sink.data(plain)
            if self.cancelled:
                return

    def _begin(self) -> None:
        answer = reply.parse(self._lines)
        if answer.status < 200:  # an interim answer; the real one follows
            self._lines = []
            return
        self._reply = answer
        if answer.status not in (200, 206, 416):
            return
        self._body = Body(answer, self.request.span, bounded=self.request.lane is Lane.LISTING)
        self._accepted = answer.status != 416
        self._sink.head(self._body.head)

    def _guarded(self, step: Callable[[], None]) -> int | None:
        try:
            step()
        except DagfsError as error:
            self.failed = error
            return ABORT
        except Exception as error:
            log.exception("the receiver of a body failed")
            self.failed = ProtocolError(f"the body could not be taken: {type(error).__name__}")
            return ABORT
        return None

    def redirect_target(self) -> str | None:
        """Give where the answer sends us, None when it is no redirect. Raises ProtocolError for one without target."""
        if self._reply is None or self._reply.status not in redirects.STATUSES:
            return None
        target: bytes | None = self.handle.getinfo_raw(pycurl.REDIRECT_URL)
        if not target:
            raise ProtocolError(f"HTTP {self._reply.status} without a usable Location")
        return target.decode("latin-1")

    @property
    def denied(self) -> bool:
        """The hub itself has refused the token."""
        return self._reply is not None and self._reply.status == 401 and not self.hops and not self.request.basic

    def second_chance(self, fresh_token: Callable[[], str | None]) -> bool:
        """Tell whether a new start may help: a redirect's signature ran out, or the token was replaced. Once only."""
        status = self._reply.status if self._reply else 0
        if self._retried or status not in _REFUSALS:
            return False
        self._retried = self.hops > 0 or (status == 401 and fresh_token() != self.token)
        return self._retried

    def outcome(self, code: int, message: str) -> DagfsError | None:
        """Give what the sink is to be told after curl has ended the transfer with `code`."""
        if self.cancelled:
            return RemoteUnavailable("the transfer was cancelled")
        error = self.failed or self._verdict(code, message)
        if error is not None:
            error.args = (f"{error} ({self.place()})",)
        return error

    def _verdict(self, code: int, message: str) -> DagfsError | None:
        answer = self._reply
        if answer is not None and self._body is None:
            return reply.failure(answer)
        if code != pycurl.E_OK:
            return self._broken(code, message)
        return self._body.shortage() if self._body is not None else ProtocolError("an answer without a head")

    def _broken(self, code: int, message: str) -> DagfsError:
        if self.refused:
            return ProtocolError("redirected into a network that the hub itself is not in")
        reason = re.sub(r"[?#]\S*", "", message or f"curl error {code}")
        if code in _PROTOCOL_CODES:
            return ProtocolError(reason)
        if code in _OBSTACLES:
            return RemoteUnavailable(reason, obstacle=_OBSTACLES[code])
        return RemoteUnavailable(f"cut after {self.received} bytes: {reason}" if self.received else reason)

    def place(self) -> str:
        """Name the URL for an error; of a redirect's target only the origin, as its path may be a secret."""
        return redact(self.url) if not self.hops else f"{origin(self.url)}, redirected from {redact(self.request.url)}"

    def stalled(self, seconds: float) -> Stalled:
        return Stalled(f"no byte for {seconds:g} s ({self.place()})")

    def finish(self, error: DagfsError | None) -> None:
        """Tell the sink, once."""
        if self.ended:
            return
        self.ended = True
        try:
            self._sink.done(error)
        except Exception:
            log.exception("the receiver of a body failed")

    def open_guarded(self, allowed: redirects.Reach, address: Any) -> socket.socket | int:
        """Connect for a redirect, unless the name turned out to be an address that it may not lead to."""
        if redirects.reach(address.addr[0]) > allowed:
            self.refused = True
            return int(pycurl.SOCKET_BAD)
        return redirects.open_socket(address)
