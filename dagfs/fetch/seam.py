"""The seam between the cache and the network: a load is asked for here, and its sink hears what came of it."""

from __future__ import annotations

from typing import Protocol

from dagfs.errors import DagfsError
from dagfs.model import Content, Proof, Span, Urgency

WHOLE_MAX = 8 << 20
"""Bytes. A file up to this size is fetched whole and proved before its first byte is served; DataLoader samples of
8 MB still fall under it. Larger files are served piece by piece, and proved before the read that completes them is
answered."""


PART = 1 << 20
"""Bytes. Read-ahead of a large file ends at multiples of these: machines that share a tier ask for the same parts."""


class LoadSink(Protocol):
    """Receives what a load brings, from the transport's thread or the caller's: never block here.

    Order: `sized` at most once, then either `whole` once or any number of `piece`s, then `finished` exactly once.
    """

    def sized(self, size: int) -> None:
        """The file's size in bytes is known; for a small file this comes before its bytes."""

    def whole(self, data: bytes, proof: Proof) -> None:
        """All bytes of a file of at most WHOLE_MAX, proved."""

    def piece(self, offset: int, data: bytes) -> None:
        """Bytes of a larger file, each at most once per load. May lie outside of the span that was asked for: a hub
        without ranges always sends the whole file."""

    def finished(self, error: DagfsError | None) -> None: ...


class Load(Protocol):
    """A load that is queued or under way."""

    def promote(self, urgency: Urgency) -> None:
        """Raise its class; never lowers it."""

    def cancel(self) -> None:
        """Nobody needs it any more; `finished` is still called. Idempotent, from any thread."""


class Loader(Protocol):
    """`fetch.Fetcher` is the real one, `fetch.memory.MemoryLoader` the fake."""

    def load(self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink) -> Load:
        """Bring the bytes of `span`; None is the whole of a small file, or the size and the first WHOLE_MAX bytes of
        a larger one. Retries, resumes and verifies by itself; returns at once."""

    def close(self) -> None: ...
