"""A hub that serves one repository and lies in it as a test wants: names, sizes, types, links and whole answers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, repeat
from typing import Any

from support.scripted_hub import Answer, ScriptedHub

from dagfs.hub.urls import encode

SHA = "0123456789abcdef0123456789abcdef01234567"
API = "/api/v1/repos/owner/name"


class HostileHub(ScriptedHub):
    """`repository` is its URL. A path that is not scripted is 404."""

    def __init__(self) -> None:
        super().__init__()
        self.repository = f"{self.url}/owner/name"
        commit = {"commit": {"id": SHA, "timestamp": "2024-01-02T03:04:05Z"}}
        self.on(API, say({"default_branch": "main"}))
        self.on(f"{API}/branches/main", say(commit))
        self.on(f"{API}/commits/{SHA}", say(commit))

    def list(self, path: str, rows: list[dict[str, Any]]) -> None:
        self.answer_listing(path, Answer(body=json.dumps(rows).encode()))

    def answer_listing(self, path: str, *answers: Answer) -> None:
        """Script a directory, asked for with and without sizes."""
        for query in ("", "?include_size=true"):
            self.on(f"{API}/content/{SHA}/{encode(path)}{query}", *answers)

    def file(self, path: str, answer: bytes | Answer, **more: Any) -> dict[str, Any]:
        """Script a file's description and bytes, and give the row that lists it."""
        row = {"path": path, "type": "file", "hash": "", "versioning": "git", **more}
        answer = Answer(body=answer, ranges=True) if isinstance(answer, bytes) else answer
        self.on(self.raw(path), answer)
        self.answer_listing(path, say(row))
        return row

    @staticmethod
    def raw(path: str) -> str:
        return f"{API}/raw/{SHA}/{encode(path)}"


def say(value: object) -> Answer:
    return Answer(body=json.dumps(value).encode())


class Endless:
    """An answer that never ends: `head`, then what `body` makes of 0, 1, 2, ... Counts the bytes that were taken."""

    def __init__(self, body: Callable[[int], bytes], head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.sent = 0
        self._head = head
        self._body = body
        self.answer = Answer(wire=self._wire)

    def _wire(self) -> Iterator[bytes]:
        pieces: Iterable[bytes] = map(self._body, count())
        for piece in chain([self._head], pieces):
            yield piece
            self.sent += len(piece)


def packed(piece: bytes, times: int) -> Iterator[bytes]:
    """Compress `piece` repeated, without ever having all of it."""
    packer = zlib.compressobj(wbits=31)
    for part in repeat(piece, times):
        yield packer.compress(part)
    yield packer.flush()
