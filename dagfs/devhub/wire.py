"""HTTP/1.1 on a socket, as far as a read-only server needs it: bounded requests, answers with one body."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote_to_bytes

from dagfs.devhub.objects import Stored

MAX_HEAD_BYTES = 64 << 10
"""A path of 4,096 bytes is 12 KiB when every byte is percent-encoded; a listing's token and cookies fit as well."""

MAX_BODY_BYTES = 64 << 10

REASONS = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_NO_BODY = Stored(0, "", b"")


class HttpError(Exception):
    """An answer other than the one asked for."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Disconnected(Exception):
    """The client has left, or must be left."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `path` is percent-decoded; `target` is as sent; header names are in lower case."""

    method: str
    target: str
    path: bytes
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool
    chunks_understood: bool
    body: bytes = b""


@dataclass(slots=True)
class Exchange:
    """A request on its way to an answer. Handlers say what it is about (`kind`, `path`: for counters and faults) as
    soon as they know, and enter into `held` what must stay open until the answer is sent."""

    request: Request
    held: ExitStack
    kind: str = "rest"
    path: str = ""


@dataclass(slots=True)
class Response:
    """An answer whose body is the bytes [start, end) of `body`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Stored = _NO_BODY
    start: int = 0
    end: int = 0


def in_memory(data: bytes, content_type: str, status: int = 200) -> Response:
    """Give an answer whose body is in memory."""
    return Response(status, {"Content-Type": content_type}, Stored(len(data), "", data), 0, len(data))


def json_response(value: object) -> Response:
    """Give an answer that is a JSON value."""
    return in_memory(json.dumps(value).encode(), "application/json; charset=UTF-8")


def refusal(error: HttpError) -> Response:
    """Give an answer that says why there is no other."""
    response = in_memory(f"{error}\n".encode(errors="replace"), "text/plain; charset=utf-8", error.status)
    response.headers.update(error.headers)
    return response


class Reader:
    """The requests of one connection, one after another."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def next(self) -> Request:
        """Give the next request. Raises Disconnected at the end, HttpError when it makes no sense."""
        head = self._head()
        request = _parse(head)
        body = self._body(request.headers)
        return replace(request, body=body) if body else request

    def _head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise HttpError(431, "request line and headers are too long")
            self._receive()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        if len(head) > MAX_HEAD_BYTES:
            raise HttpError(431, "request line and headers are too long")
        return head

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            raise HttpError(501, "no request here has a chunked body")
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
            raise HttpError(413, "no request here has a body of this size")
        left = int(announced)
        while len(self._buffer) < left:
            self._receive()
        body, self._buffer = self._buffer[:left], self._buffer[left:]
        return body

    def _receive(self) -> None:
        try:
            data = self._socket.recv(MAX_HEAD_BYTES)
        except OSError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        self._buffer += data


def _parse(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise HttpError(400, "malformed request line") from None
    if version not in ("HTTP/1.1", "HTTP/1.0") or not target.startswith("/"):
        raise HttpError(400, "malformed request line")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name.strip() != name:
            raise HttpError(400, "malformed header")
        headers[name.lower()] = value.strip()
    raw_path, mark, raw_query = target.partition("?")
    query = dict(parse_qsl(raw_query, keep_blank_values=True)) if mark else {}
    modern = version == "HTTP/1.1"
    wish = headers.get("connection", "").lower()
    keep_alive = wish != "close" if modern else wish == "keep-alive"
    return Request(method, target, unquote_to_bytes(raw_path), query, headers, keep_alive, modern)


def head_bytes(status: int, headers: Mapping[str, str]) -> bytes:
    """Give status line and headers, ready to be sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n{lines}\r\n".encode("latin-1")
