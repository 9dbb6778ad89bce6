"""Send an answer: plainly and quickly, or compressed, chunked, throttled, and broken on command."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from dagfs.devhub.behaviour import DRIP_SECONDS, Behaviour, Fault, Gzip
from dagfs.devhub.link import Link
from dagfs.devhub.objects import Stored
from dagfs.devhub.record import Record, Requests
from dagfs.devhub.wire import REASONS, Disconnected, Exchange, HttpError, Request, Response, head_bytes, refusal

_ONE_SEND_BYTES = 64 << 10
"""Up to here head and body go out in one call: copying costs less than a second system call."""

_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)
_MORE = getattr(socket, "MSG_MORE", 0)
_NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class Channel:
    """What lies between the hub and one client: links from narrow to wide, and the event that ends every wait."""

    links: tuple[Link, ...]
    stopping: threading.Event


class Sender:
    """Sends the answers of one connection."""

    def __init__(self, connection: socket.socket, behaviour: Behaviour, requests: Requests, channel: Channel) -> None:
        self._socket = connection
        self._behaviour = behaviour
        self._requests = requests
        self._channel = channel

    def send(self, exchange: Exchange, response: Response, fault: Fault | None) -> bool:
        """Send an answer; tell whether the connection can be used again. Raises Disconnected."""
        request, fault = exchange.request, fault or _NO_FAULT
        if fault.delay:
            self._channel.stopping.wait(fault.delay)
        if fault.status is not None:
            response = _failed(fault)
        plan = self._plan(request, response, fault)
        _displace(response, fault)
        headers = self._headers(response, plan, fault)
        silent = request.method == "HEAD" or response.status == 304
        size = 0 if silent else response.end - response.start
        span = request.headers.get("range")
        record = Record(request.method, exchange.kind, exchange.path, response.status, span)
        reusable = request.keep_alive and not plan.until_close
        if not reusable:
            headers["Connection"] = "close"
        head = head_bytes(response.status, headers)
        try:
            if silent:
                self._requests.begin(record)
                self._socket.sendall(head)
            elif plan.plain and fault is _NO_FAULT and not self._channel.links:
                record.bytes = size
                self._requests.begin(record)
                self._send_plainly(head, response, record)
            else:
                self._requests.begin(record)
                self._send_pieces(head, response, plan, fault, record)
        except OSError as error:
            raise Disconnected from error
        return reusable and not fault.length_error

    def _plan(self, request: Request, response: Response, fault: Fault) -> _Plan:
        wanted = self._behaviour.gzip
        accepted = "gzip" in request.headers.get("accept-encoding", "")
        compress = fault.gzip or wanted is Gzip.ALWAYS or (wanted is Gzip.ACCEPTED and accepted)
        compress = compress and response.status == 200 and response.end > 0
        unannounced = compress or (not self._behaviour.length and response.status in (200, 206))
        return _Plan(compress, unannounced and request.chunks_understood, unannounced and not request.chunks_understood)

    def _headers(self, response: Response, plan: _Plan, fault: Fault) -> dict[str, str]:
        headers = dict(response.headers)
        if plan.compress:
            headers["Content-Encoding"] = "gzip"
            headers["Vary"] = "Accept-Encoding"
            headers.pop("Accept-Ranges", None)
            if "ETag" in headers:
                headers["ETag"] = "W/" + headers["ETag"]
        if plan.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not plan.until_close and response.status != 304:
            headers["Content-Length"] = str(response.end - response.start + fault.length_error)
        if fault.start_error and response.status == 206:
            first, last = response.start + fault.start_error, response.end - 1 + fault.start_error
            headers["Content-Range"] = f"bytes {first}-{last}/{response.body.size}"
        return headers

    def _send_plainly(self, head: bytes, response: Response, record: Record) -> None:
        body, start, end = response.body, response.start, response.end
        try:
            if body.data is not None or end - start <= _ONE_SEND_BYTES:
                self._socket.sendall(b"".join((head, *body.read(start, end))))
            else:
                self._socket.sendall(head, _MORE)
                self._send_file(body, start, end)
        except OSError:
            self._requests.add_bytes(record, start - end)  # how many of them arrived is not known
            raise

    def _send_file(self, body: Stored, start: int, end: int) -> None:
        while start < end:
            sent = os.sendfile(self._socket.fileno(), body.fd, start, end - start)
            if sent == 0:
                raise OSError("the file became shorter while it was sent")
            start += sent

    def _send_pieces(self, head: bytes, response: Response, plan: _Plan, fault: Fault, record: Record) -> None:
        quantum = min((link.quantum for link in self._channel.links), default=1 << 16)
        self._socket.sendall(head)
        pieces = response.body.read(response.start, response.end)
        encoded = _deflated(pieces) if plan.compress else pieces
        since: list[float | None] = [None] * len(self._channel.links)
        for piece in _cut_at(_flipped(encoded, fault.flip), quantum, _stops(fault)):
            if not piece:
                self._act(fault, record.bytes)
                continue
            for i, link in enumerate(self._channel.links):
                since[i] = link.carry(len(piece), since[i])
            self._requests.add_bytes(record, len(piece))
            self._socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if plan.chunked else piece)
        if plan.chunked:
            self._socket.sendall(b"0\r\n\r\n")

    def _act(self, fault: Fault, sent: int) -> None:
        """Do what the fault wants once `sent` bytes of the body are out."""
        if sent <= fault.drip:
            self._channel.stopping.wait(DRIP_SECONDS)
        if sent == fault.stall_after:
            self._stall(fault.stall_seconds)
        if sent == fault.reset_after:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
            raise Disconnected
        if sent == fault.cut_after:
            raise Disconnected

    def _stall(self, seconds: float | None) -> None:
        """Wait until the time is over, the client has left, or the hub stops."""
        waited = 0.0
        while not self._channel.stopping.is_set() and (seconds is None or waited < seconds):
            step = 0.05 if seconds is None else min(0.05, seconds - waited)
            readable, _, _ = select.select([self._socket], [], [], step)
            if readable and not self._socket.recv(1, socket.MSG_PEEK):
                raise Disconnected
            if readable:
                self._channel.stopping.wait(step)
            waited += step


@dataclass(frozen=True, slots=True)
class _Plan:
    compress: bool
    chunked: bool
    until_close: bool

    @property
    def plain(self) -> bool:
        return not self.compress and not self.chunked


def _failed(fault: Fault) -> Response:
    status = fault.status or 500
    headers = {} if fault.retry_after is None else {"Retry_After": fault.retry_after}
    return refusal(HttpError(status, REASONS.get(status, "Failed"), **headers))


def _displace(response: Response, fault: Fault) -> None:
    """Change which bytes are sent, after the head has been made: it tells nothing of it."""
    if fault.misplaced and response.status == 206:
        response.start, response.end = 0, response.end - response.start
    response.end = max(response.start, response.end - fault.truncate)


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()


def _flipped(pieces: Iterator[bytes], offset: int | None) -> Iterator[bytes]:
    at = 0
    for piece in pieces:
        inside = -1 if offset is None else offset - at
        at += len(piece)
        if 0 <= inside < len(piece):
            changed = bytearray(piece)
            changed[inside] ^= 0xFF
            yield bytes(changed)
        else:
            yield piece


def _stops(fault: Fault) -> list[int]:
    wanted = (fault.stall_after, fault.reset_after, fault.cut_after)
    return sorted({*range(1, fault.drip + 1), *(offset for offset in wanted if offset is not None)})


def _cut_at(pieces: Iterator[bytes], quantum: int, stops: list[int]) -> Iterator[bytes]:
    """Give pieces of at most `quantum` bytes, with an empty one at each of the offsets `stops`."""
    at, ahead = 0, list(stops)
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if ahead and ahead[0] == at:
                ahead.pop(0)
                yield b""
            step = min(quantum, len(rest), ahead[0] - at if ahead else quantum)
            yield bytes(rest[:step])
            rest, at = rest[step:], at + step
    if at in ahead:
        yield b""
