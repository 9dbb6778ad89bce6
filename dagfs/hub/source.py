"""The seam to a hub: what the rooms above ask of it, and what it tells them back.

`api.HubSource` is the real one; `memory.MemorySource` ships beside it for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dagfs.errors import DagfsError
from dagfs.model import Commit, Entry, RefKind, Span


@dataclass(frozen=True, slots=True)
class BodyHead:
    """What is known of a body before its first byte.

    `start`: offset in the file of the first byte that follows (0 when the hub ignored the span). `total`: size of the
    whole file in bytes, None when not announced. `ranged`: the hub honoured a span (206, or 416 on an empty file).
    `validator`: the ETag, when there is one; two bodies of one file with different validators never mix. `compressed`:
    a checksum follows the last byte, so what came is known to be right when the body has ended, and not before.
    """

    start: int
    total: int | None
    ranged: bool
    validator: str | None = None
    compressed: bool = False


class BodySink(Protocol):
    """Receives one body, in the transport's thread: never block here. `done` is called exactly once, last."""

    def head(self, head: BodyHead) -> None: ...

    def data(self, chunk: bytes) -> None: ...

    def done(self, error: DagfsError | None) -> None:
        """End of the body; `error` is None only when every announced byte has arrived."""


class Transfer(Protocol):
    """A body under way."""

    def cancel(self) -> None:
        """End it soon, from any thread; `done` is still called, with an error unless it had ended. Idempotent."""


class Source(Protocol):
    """A repository on a hub, thread-safe. Everything but `open` blocks, bounded by deadlines of its own."""

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        """Give the full commit of a branch, tag, full or short sha; None is the default branch.

        Raises UnknownRepository, UnknownRevision, BadToken, HubUnreachable.
        """

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        """Stream a directory's children in batches, in the hub's order; sizes only when `sized`.

        Raises NotFound, NotADirectory, AccessDenied, RemoteError, also in mid-stream.
        """

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        """Describe one path without listing its directory; raises as `list_directory` does."""

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        """Give the listings of a directory that DVC tracks and of all below it, by path, where one answer has them.

        Nothing where it has not: `list_directory` has each. Sizes are not known.
        """

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        """Start to transfer a file's bytes, or the bytes of `span`, and return at once.

        `sink.done` gets NotFound, AccessDenied, Stalled, RemoteUnavailable, ProtocolError or None.
        """

    def failing(self) -> bool:
        """Say whether no usable answer came lately: who has waited for one in vain need not wait for another."""

    def close(self) -> None:
        """End every transfer and connection; no sink is called after it returns."""
