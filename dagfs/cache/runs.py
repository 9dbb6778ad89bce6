"""What the flight of a large file works with: which reads wait, runs of blocks that are coming, their spans."""

from __future__ import annotations

import enum
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from dagfs.errors import DagfsError
from dagfs.fetch.seam import Load
from dagfs.model import Proof, Span, Urgency


class Hold(enum.Enum):
    """Which reads wait for the proof of the whole file."""

    NONE = enum.auto()  # it is proved, has no MD5, or cannot be proved here
    LAST = enum.auto()  # those of the block that completes it, once it is complete: who reads it all comes by there
    ALL = enum.auto()  # its bytes were wrong before


@dataclass(slots=True, eq=False)
class Reader:
    """A read that waits."""

    span: Span
    later: Future[bytes]
    rounds: int = 0


class Taker(Protocol):
    """What a run needs of its flight."""

    def arrived(self, offset: int, data: bytes) -> None: ...
    def ended(self, run: Run, error: DagfsError | None) -> None: ...
    def unasked(self, run: Run) -> None: ...


class Run:
    """A run of blocks under way; implements `LoadSink` for its load."""

    def __init__(self, flight: Taker, span: Span, urgency: Urgency) -> None:
        self.span = span
        self.urgency = urgency
        self.load: Load | None = None
        self._flight = flight

    def sized(self, size: int) -> None:
        pass  # known before the run began

    def whole(self, data: bytes, proof: Proof) -> None:
        self._flight.arrived(0, data)

    def piece(self, offset: int, data: bytes) -> None:
        if not self.span.start <= offset < self.span.end:
            self._flight.unasked(self)
        self._flight.arrived(offset, data)

    def finished(self, error: DagfsError | None) -> None:
        self._flight.ended(self, error)


def overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def without(span: Span, taken: list[Span]) -> list[Span]:
    """Give the parts of `span` outside of those taken, in order."""
    left = []
    start = span.start
    for other in sorted(taken, key=lambda other: other.start):
        if other.start > start and other.start < span.end:
            left.append(Span(start, other.start))
        start = max(start, min(other.end, span.end)) if overlap(other, span) else start
    return [*left, Span(start, span.end)] if start < span.end else left
