"""A source that takes large files from DVC's cache on this machine, and asks the hub for the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from dagfs.errors import DagfsError, RemoteUnavailable
from dagfs.hub.source import BodyHead, BodySink, Source, Transfer
from dagfs.model import Commit, Content, ContentId, Entry, RefKind, Span, Versioning
from dagfs.store.seam import StoredFile

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Bytes given to a sink at once."""


class Lender(Protocol):
    """What is asked of the store."""

    def lends(self, md5: str) -> bool:
        """Say whether a file of that name is there, whatever it holds."""

    def prove_lent(self, md5: str, cancelled: Callable[[], bool]) -> bool: ...

    def find(self, content: Content) -> StoredFile | None: ...


class BorrowingSource:
    """A file that is lent is hashed before its first byte is given, in a thread of its own; the store has it from then
    on. Small ones never come here: the store hashes them at once."""

    def __init__(self, inner: Source, store: Lender) -> None:
        self._inner = inner
        self._store = store
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="borrow")

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        return self._inner.resolve(revision, kind)

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        return self._inner.list_directory(commit, path, sized=sized)

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        return self._inner.describe(commit, path, sized=sized)

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        return self._inner.below(commit, directory)

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        md5 = entry.hash.lower() if entry.versioning is Versioning.DVC else ""
        if not md5 or not self._store.lends(md5):
            return self._inner.open(commit, entry, span, sink)
        name = ContentId("md5", md5)
        transfer = _Borrowed(self._store, Content(name, entry, name), span, sink)
        try:
            self._threads.submit(transfer.run, lambda: self._inner.open(commit, entry, span, sink))
        except RuntimeError:
            raise RemoteUnavailable("the mount is closed") from None
        return transfer

    def failing(self) -> bool:
        return self._inner.failing()

    def close(self) -> None:
        self._threads.shutdown(wait=True)  # those cancelled end soon, and their sinks must hear of it
        self._inner.close()


class _Borrowed:
    """A transfer from this machine's disk, or from the hub when the file turns out wrong."""

    def __init__(self, store: Lender, content: Content, span: Span | None, sink: BodySink) -> None:
        self._store = store
        self._content = content
        self._span = span
        self._sink = sink
        self._lock = threading.Lock()  # guards the two below
        self._cancelled = False
        self._other: Transfer | None = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            other = self._other
        if other is not None:
            other.cancel()

    def run(self, ask_hub: Callable[[], Transfer]) -> None:
        error: DagfsError | None = None
        try:
            if not self._cancelled and not self._deliver():
                self._go_elsewhere(ask_hub)
                return
            if self._cancelled:
                error = RemoteUnavailable("the transfer was cancelled")
        except DagfsError as failure:
            error = failure
        except Exception as failure:
            log.exception("%s could not be taken from DVC's cache", self._content.entry.path)
            error = RemoteUnavailable(f"{self._content.entry.path}: {failure!r}")
        self._sink.done(error)

    def _go_elsewhere(self, ask_hub: Callable[[], Transfer]) -> None:
        other = ask_hub()
        with self._lock:
            self._other = other
            cancelled = self._cancelled
        if cancelled:
            other.cancel()

    def _deliver(self) -> bool:
        """Give the span; False when the file is not there, or not right, and the hub is to be asked."""
        right = self._store.prove_lent(self._content.key.digest, lambda: self._cancelled)
        found = self._store.find(self._content) if right else None
        if found is None:
            return self._cancelled
        try:
            span = self._span or Span(0, found.size)
            self._sink.head(BodyHead(span.start, found.size, ranged=self._span is not None))
            position, end = span.start, min(span.end, found.size)
            while position < end and not self._cancelled:
                data = found.read(position, min(PIECE, end - position))
                self._sink.data(data)
                position += len(data)
        finally:
            found.close()
        return True
