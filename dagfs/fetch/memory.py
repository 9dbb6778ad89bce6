"""Loads answered from a dict, when the test says so: the fake of `seam.Loader`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from dagfs.errors import DagfsError, NotFound, RemoteUnavailable
from dagfs.fetch.seam import WHOLE_MAX, LoadSink
from dagfs.model import Content, Span, Urgency
from dagfs.proofs import prove

PIECE = 64 << 10


@dataclass(eq=False)
class MemoryLoad:
    """A load as it was asked for; `run` brings its bytes in the caller's thread."""

    loader: MemoryLoader
    content: Content
    span: Span | None
    urgency: Urgency
    sink: LoadSink
    cancelled: bool = False
    ended: bool = False
    promotions: list[Urgency] = field(default_factory=list)

    def promote(self, urgency: Urgency) -> None:
        self.promotions.append(urgency)
        self.urgency = min(self.urgency, urgency)

    def cancel(self) -> None:
        self.cancelled = True
        self.end(RemoteUnavailable("the load was cancelled"))

    def end(self, error: DagfsError | None) -> None:
        if not self.ended:
            self.ended = True
            self.sink.finished(error)

    def run(self, *, cut_after: int | None = None, error: DagfsError | None = None) -> None:
        """Bring everything, or `cut_after` bytes of a large file; then end with `error`."""
        data = self.loader.files.get(self.content.entry.path)
        if data is None or (error is not None and cut_after is None):
            self.end(error or NotFound(self.content.entry.path))
            return
        self.sink.sized(len(data))
        try:
            if len(data) <= WHOLE_MAX and self.span is None:
                self.sink.whole(data, prove(self.content, data))
            else:
                self._stream(data, cut_after)
        except DagfsError as found:
            error = found
        self.end(error)

    def _stream(self, data: bytes, cut_after: int | None) -> None:
        span = self.span or Span(0, WHOLE_MAX)
        end = min(span.end, len(data), span.start + (cut_after if cut_after is not None else len(data)))
        for start in range(span.start, end, PIECE):
            if not self.cancelled:
                self.sink.piece(start, data[start : min(start + PIECE, end)])


class MemoryLoader:
    """Implements `seam.Loader`. `loads` has every load; they run at once, or when told to if `manual`."""

    def __init__(self, files: Mapping[str, bytes], *, manual: bool = False) -> None:
        self.files = dict(files)
        self.manual = manual
        self.failure: DagfsError | None = None
        self._lock = threading.Lock()
        self.loads: list[MemoryLoad] = []

    def load(self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink) -> MemoryLoad:
        load = MemoryLoad(self, content, span, urgency, sink)
        with self._lock:
            self.loads.append(load)
        if not self.manual:
            load.run(error=self.failure)
        return load

    def close(self) -> None:
        for load in self.loads:
            load.end(RemoteUnavailable("the loader is closed"))
