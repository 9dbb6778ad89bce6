"""Content over HTTP: spans, validators, and redirects to signed addresses."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from urllib.parse import quote

from dagfs.devhub.behaviour import Behaviour
from dagfs.devhub.objects import Stored
from dagfs.devhub.wire import HttpError, Request, Response

SIGNED_PREFIX = "/-/signed"

_SPAN = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def content_response(request: Request, stored: Stored, behaviour: Behaviour) -> Response:
    """Answer with a file's bytes, or the span of them that the request wants. Raises HttpError 416."""
    headers = {"Content-Type": "application/octet-stream"}
    etag = f'"{stored.tag}"' if behaviour.etag else None
    if etag:
        headers["ETag"] = etag
    if etag and etag in request.headers.get("if-none-match", ""):
        return Response(304, headers)
    response = Response(200, headers, stored, 0, stored.size)
    if not behaviour.ranges:
        return response
    headers["Accept-Ranges"] = "bytes"
    span = _span(request.headers.get("range"), stored.size)
    if span is None or request.headers.get("if-range", etag) != etag:
        return response
    response.start, response.end = span
    response.status = 206
    headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{stored.size}"
    return response


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Give [start, end); None when the whole is wanted, also for several spans at once. Raises HttpError 416."""
    match = _SPAN.match(header) if header else None
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise HttpError(416, "the span lies outside of the file", Content_Range=f"bytes */{size}")
    return start, end


class Signer:
    """Addresses that are valid for a time, and cannot be made up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._secret = os.urandom(32)

    def sign(self, path: bytes) -> str:
        """Give a path and query for the resource `path` (percent-decoded)."""
        expires = f"{time.time() + self._seconds:.3f}"
        return f"{SIGNED_PREFIX}{quote(path, safe='/')}?expires={expires}&signature={self._digest(path, expires)}"

    def verify(self, request: Request) -> bytes:
        """Give the path that was signed. Raises HttpError 403."""
        path = request.path.removeprefix(SIGNED_PREFIX.encode())
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not hmac.compare_digest(signature.encode(), self._digest(path, expires).encode()):
            raise HttpError(403, "the signature is wrong")
        if float(expires) < time.time():
            raise HttpError(403, "the signature has expired")
        return path

    def _digest(self, path: bytes, expires: str) -> str:
        return hmac.new(self._secret, path + b"\n" + expires.encode(), hashlib.sha256).hexdigest()
