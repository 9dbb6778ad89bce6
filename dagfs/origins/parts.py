"""Large files among machines that begin at once: part by part, each of them leased like a small file.

A part lies in the tier until the whole file is there, proved; what it holds is believed as little as any bytes of a
large file: they are hashed along, and the read that completes the file waits for the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from dagfs.errors import DagfsError, ProtocolError, RemoteUnavailable
from dagfs.fetch.seam import PART, WHOLE_MAX
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.model import Span
from dagfs.origins.seam import Wanted, object_key
from dagfs.origins.steps import Steps

Ask = Callable[[Span, BodySink], Transfer]


def part_name(wanted: Wanted) -> str | None:
    """Name the part that a request is for; None when it is for less or more than one part of a large file."""
    size, span = wanted.content.size, wanted.span
    if size is None or size <= WHOLE_MAX or span is None or span.start % PART:
        return None
    return f"{wanted.md5}-{span.start}" if span.end == min(span.start + PART, size) else None


class Piece(NamedTuple):
    """Of one part: what of it is `wanted`, and what is `asked` for. It is the whole part for half of one or more, as
    the other machines want that, too; and no more than is wanted for less, as a page fault or a column wants."""

    asked: Span
    wanted: Span


def pieces(span: Span, size: int) -> list[Piece]:
    """Cut a span of a file of `size` bytes at the bounds of its parts; none where it has to do with no whole part."""
    found, parts = [], 0
    for start in range(span.start // PART * PART, span.end, PART):
        part = Span(start, min(start + PART, size))
        wanted = Span(max(start, span.start), min(part.end, span.end))
        whole = 2 * wanted.size >= part.size
        parts += whole
        found.append(Piece(part if whole else wanted, wanted))
    return found if parts else []


def parts_prefix(md5: str) -> str:
    """Beside what DVC keeps, where it does not look."""
    return f"dagfs/parts/{md5}/"


def key_of(name: str) -> str:
    """Give where an object or a part lies."""
    md5, dash, start = name.partition("-")
    return f"{parts_prefix(md5)}{start}" if dash else object_key(name)


class Parts(Steps):
    """A body that is asked for piece by piece. Implements `source.Transfer`."""

    def __init__(self, plan: Sequence[Piece], ask: Ask, sink: BodySink, came: Callable[[Span, bytes], None]) -> None:
        """`came` is given all bytes of each span that was asked for."""
        self._left = list(plan)
        self._ask = ask
        self._sink = sink
        self._came = came
        super().__init__()
        self.begun = False  # the sink has its head

    def start(self) -> None:
        """Ask for the next piece."""
        part = _Part(self, self._left.pop(0), self._sink)
        try:
            transfer = self._ask(part.asked, part)
        except DagfsError as error:
            part.done(error)
            return
        with self._lock:
            if not part.over:
                self._transfer = transfer
            cancelled = self._cancelled
        if cancelled:
            transfer.cancel()

    def ended(self, part: _Part, error: DagfsError | None) -> None:
        with self._lock:
            self._transfer = None
            cancelled = self._cancelled
        if error is None and part.ranged:
            self._came(part.asked, b"".join(part.pieces))
        if error is None and part.ranged and self._left:
            if not cancelled:
                self.start()
                return
            error = RemoteUnavailable("the transfer was cancelled")
        self._sink.done(error)


class _Part:
    """Receives what was asked for, and passes on what is wanted of it."""

    def __init__(self, whole: Parts, piece: Piece, sink: BodySink) -> None:
        self.asked, self._wanted = piece
        self.pieces: list[bytes] = []
        self.ranged = True  # False: a hub without ranges sends the whole file, and all of it is passed on
        self.over = False
        self._whole = whole
        self._sink = sink
        self._at = self.asked.start
        self._wrong: DagfsError | None = None

    def head(self, head: BodyHead) -> None:
        self.ranged = head.ranged and head.start == self.asked.start
        if not self._whole.begun:
            self._whole.begun = True
            self._sink.head(replace(head, start=self._wanted.start) if self.ranged else head)
        elif not self.ranged:
            self._wrong = ProtocolError(f"a part came from {head.start} on, not from {self.asked.start}")

    def data(self, chunk: bytes) -> None:
        if self._wrong is not None:
            return
        if not self.ranged:
            self._sink.data(chunk)
            return
        chunk = chunk[: self.asked.end - self._at]
        self.pieces.append(chunk)
        passed = chunk[max(0, self._wanted.start - self._at) : max(0, self._wanted.end - self._at)]
        self._at += len(chunk)
        if passed:
            self._sink.data(passed)

    def done(self, error: DagfsError | None) -> None:
        self.over = True
        if error is None and self._wrong is None and self.ranged and self._at < self.asked.end:
            self._wrong = ProtocolError(f"a part ended at {self._at}, not at {self.asked.end}")
        self._whole.ended(self, error or self._wrong)
