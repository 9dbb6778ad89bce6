"""What an answer's status and headers mean. Pure: lines in, values or errors out."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from dagfs.errors import AccessDenied, DagfsError, NotFound, ProtocolError, RemoteUnavailable
from dagfs.hub.source import BodyHead
from dagfs.model import Span

_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)\s*\Z", re.IGNORECASE)
_WANTED = frozenset({b"content-length", b"content-range", b"content-encoding", b"date", b"etag", b"retry-after"})
_INITIALS = frozenset(
    {b"c", b"C", b"d", b"D", b"e", b"E", b"r", b"R"}
)  # of those: most lines are passed over at half the cost
MAX_RETRY_AFTER = 3600.0
"""Seconds. Nobody waits longer; a hub that asks for more is down for all that a reader cares."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`length`: bytes on the wire. `encoding`: None for plain bytes.

    `first`, `last`, `total`: from Content-Range, None where it says * or is missing.
    """

    status: int
    length: int | None = None
    encoding: str | None = None
    first: int | None = None
    last: int | None = None
    total: int | None = None
    validator: str | None = None
    retry_after: float | None = None


def parse(lines: Sequence[bytes]) -> Reply:
    """Read a status line and header lines. Raises ProtocolError."""
    try:
        status = int(lines[0].split(None, 2)[1])
    except (IndexError, ValueError):
        raise ProtocolError("an answer without a status") from None
    found: dict[bytes, str] = {}
    for line in lines:
        if line[:1] in _INITIALS:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in _WANTED:
                found[name] = value.strip().decode("latin-1")
    length = found.get(b"content-length", "")
    encoding = found.get(b"content-encoding", "").lower()
    first, last, total = _content_range(found.get(b"content-range"))
    return Reply(
        status=status,
        length=int(length) if length.isdecimal() and len(length) < 19 else None,
        encoding=None if encoding in ("identity", "") else encoding,
        first=first,
        last=last,
        total=total,
        validator=found.get(b"etag") or None,
        retry_after=retry_after(found.get(b"retry-after"), found.get(b"date")),
    )


def begin(reply: Reply, span: Span | None) -> tuple[BodyHead, int | None]:
    """Give the head of a body that is good to be read, and how many bytes will come, None when not announced.

    Raises ProtocolError for a span other than the one asked for, else the error that the status stands for.
    """
    if reply.status == 200:
        length = None if reply.encoding else reply.length  # the length of a compressed body is not the file's
        return BodyHead(0, length, False, reply.validator, reply.encoding is not None), length
    if reply.status == 206:
        return _partial(reply, span or Span(0, 1 << 62))
    if reply.status == 416 and span is not None and reply.total == 0:
        return BodyHead(0, 0, True, reply.validator), 0
    raise failure(reply)


def enough(head: BodyHead, received: int, span: Span | None) -> bool:
    """Tell whether a complete body also is all that was asked for: a hub may send less of a span than that."""
    if not head.ranged or head.total is None:
        return True
    end = head.total if span is None else min(span.end, head.total)
    return head.start + received >= end


def failure(reply: Reply) -> DagfsError:
    """Give the error that a status stands for."""
    status = reply.status
    if status in (404, 410):
        return NotFound(f"HTTP {status}")
    if status in (401, 403):
        return AccessDenied(f"HTTP {status}")
    if status in (408, 425, 429) or status >= 500:
        return RemoteUnavailable(f"HTTP {status}", reply.retry_after)
    return ProtocolError(f"unexpected HTTP {status}")


def plain_tag(etag: str | None) -> str:
    """Give an ETag without quotes and without the mark of a weak one: listings and heads spell one differently."""
    return (etag or "").strip().removeprefix("W/").strip('"')


def _partial(reply: Reply, span: Span) -> tuple[BodyHead, int]:
    if reply.encoding is not None:  # offsets and total are those of the compressed bytes
        raise ProtocolError("HTTP 206 with a span of a compressed body, which was not asked for")
    if reply.first is None or reply.last is None:
        raise ProtocolError("HTTP 206 without the span that it holds")
    if reply.first != span.start:
        raise ProtocolError(f"asked for the bytes from {span.start}, got those from {reply.first}")
    size = reply.last + 1 - reply.first
    if size <= 0 or (reply.total is not None and reply.last >= reply.total):
        raise ProtocolError(f"impossible span {reply.first}-{reply.last} of {reply.total}")
    return BodyHead(reply.first, reply.total, True, reply.validator), size


def _content_range(value: str | None) -> tuple[int | None, int | None, int | None]:
    match = _CONTENT_RANGE.match(value) if value else None
    if match is None:
        return None, None, None
    first, last, total = (int(group) if group and group != "*" else None for group in match.groups())
    return first, last, total


def retry_after(value: str | None, date: str | None) -> float | None:
    """Read seconds or an HTTP date; None for anything else.

    A date is compared with the answer's own `date`, which comes from the same clock; ours may be anywhere.
    """
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        then = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:
        wait = then - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        wait = then - time.time()
    return min(max(wait, 0.0), MAX_RETRY_AFTER)
