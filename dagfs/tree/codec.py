"""How values of the tree lie in the store: marked with kind, version and digest, so that damage is a miss."""

from __future__ import annotations

import hashlib

FORMAT = 1
"""Raised whenever the layout of any sealed value changes; values of another format are misses."""

_DIGEST_BYTES = 16


def seal(kind: str, body: bytes) -> bytes:
    """Give the bytes to store: a line that names kind and format, a digest, and the body."""
    return _mark(kind) + _digest(body) + body


def unseal(kind: str, sealed: bytes | None) -> bytes | None:
    """Give the body of a stored value; None when there is none, or it is damaged or of another format."""
    mark = _mark(kind)
    if sealed is None or not sealed.startswith(mark):
        return None
    start = len(mark) + _DIGEST_BYTES
    body = sealed[start:]
    return body if sealed[len(mark) : start] == _digest(body) else None


def _mark(kind: str) -> bytes:
    return f"dagfs {kind} {FORMAT}\n".encode()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
