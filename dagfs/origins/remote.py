"""A DVC remote as a way to the bytes: objects of both of DVC's layouts, read only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from typing import Any

from dagfs.errors import AccessDenied, DagfsError, NotFound, ProtocolError, RemoteUnavailable, Stalled, UsageError
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.model import Span
from dagfs.origins.breaker import Breaker
from dagfs.origins.checked import Unproved
from dagfs.origins.manifests import BYTES_MAX
from dagfs.origins.seam import Origin, Wanted, legacy_key, object_key
from dagfs.origins.steps import Steps

log = logging.getLogger(__name__)

COLLECT_SECONDS = 60.0
"""For a manifest or a configuration: whoever waits for it can go another way."""


class RemoteWay:
    """Implements `route.Way`; without `contents` for manifests only.

    `connect` finds the origin, in a thread of its own: it may have to ask the hub what `.dvc/config` names. Its
    UsageError is the end of this way.
    """

    def __init__(self, name: str, connect: Callable[[], Origin], *, contents: bool = True) -> None:
        self.breaker = Breaker(name)
        self._contents = contents
        self._connect = connect
        self._lock = threading.Lock()  # guards the two below
        self._origin: Future[Origin] | None = None
        self._closed = False
        self._legacy_first = False  # the layout of the last hit is asked first

    @property
    def vouches(self) -> bool:
        origin = self._ready(0.0)
        return origin is not None and origin.vouches

    def begin(self) -> None:
        self._ready(0.0)

    def wants(self, wanted: Wanted) -> bool:
        return self._contents and is_whole_or_large(wanted) and self._ready(0.0) is not None

    def ask(self, wanted: Wanted, sink: BodySink) -> Transfer:
        origin = self._ready(0.0)
        if origin is None:
            raise RemoteUnavailable(f"{self.breaker.name} is not connected")
        layouts = Layouts(origin, self._keys(wanted.md5), wanted.span, sink, self._note)
        layouts.start()
        return layouts

    def gave(self, wanted: Wanted, size: int) -> None:
        self.breaker.hit(size)

    def failed(self, wanted: Wanted, error: DagfsError) -> None:
        if isinstance(error, AccessDenied):  # the hub's token may be its keys, and have been replaced
            with self._lock:
                self._origin = None  # not closed: what it has under way ends by itself
        self.breaker.failed(NotFound(str(error)) if isinstance(error, Unproved) else error)

    def passed_by(self, wanted: Wanted, error: DagfsError | None) -> None:
        """Nobody waits for what a remote has not."""

    def manifest(self, md5: str) -> bytes | None:
        origin = self._ready(COLLECT_SECONDS)
        if origin is None:
            self.breaker.untried()
            return None
        return collect_manifest(self.breaker, lambda sink: self._begin(origin, f"{md5}.dir", sink))

    def report(self) -> dict[str, Any]:
        return self.breaker.report()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            found = self._origin
        if found is not None and found.done() and found.exception() is None:
            found.result().close()

    def _begin(self, origin: Origin, name: str, sink: BodySink) -> Transfer:
        layouts = Layouts(origin, self._keys(name), None, sink, self._note)
        layouts.start()
        return layouts

    def _keys(self, name: str) -> list[str]:
        keys = [object_key(name), legacy_key(name)]
        return keys[::-1] if self._legacy_first else keys

    def _note(self, key: str) -> None:
        self._legacy_first = not key.startswith("files/")

    def _ready(self, seconds: float) -> Origin | None:
        """Give the origin, waiting for it so long; None without one."""
        with self._lock:
            fresh = self._origin is None and not self._closed
            if fresh:
                self._origin = Future()
            found = self._origin
        if found is None:
            return None
        if fresh:
            threading.Thread(target=self._find, args=(found,), name="origin-connect", daemon=True).start()
        try:
            return found.result(seconds) if seconds or found.done() else None
        except (TooLate, DagfsError):
            return None

    def _find(self, found: Future[Origin]) -> None:
        try:
            origin = self._connect()
        except UsageError as error:
            self.breaker.refuse(str(error))
            found.set_exception(error)
        except Exception as error:  # noqa: BLE001 -- whoever waits must hear of it
            told = error if isinstance(error, DagfsError) else RemoteUnavailable(repr(error))
            self.breaker.failed(told)
            with self._lock:
                self._origin = None  # to be tried again
            found.set_exception(told)
        else:
            found.set_result(origin)


def is_whole_or_large(wanted: Wanted) -> bool:
    """Say whether a request is one for a whole small file, or for a span of a large one: the rest of a small file whose
    beginning came from the hub can be checked by nobody but who has that."""
    size, span = wanted.content.size, wanted.span
    return span is None or span == Span(0, WHOLE_MAX) or (size is not None and size > WHOLE_MAX)


class Layouts(Steps):
    """Asks for an object by one key, then by the next. Implements `source.Transfer` and `BodySink`."""

    def __init__(
        self, origin: Origin, keys: list[str], span: Span | None, sink: BodySink, found: Callable[[str], None]
    ) -> None:
        self._origin = origin
        self._keys = keys
        self._span = span
        self._sink = sink
        self._found = found
        super().__init__()

    def start(self) -> None:
        """Raises DagfsError when nothing can be asked."""
        left = len(self._keys)
        transfer = self._origin.get(self._keys[0], self._span, self)
        with self._lock:
            if left == len(self._keys):  # else it has ended, and the next is under way
                self._transfer = transfer
            cancelled = self._cancelled
        if cancelled:
            transfer.cancel()

    def head(self, head: BodyHead) -> None:
        self._found(self._keys[0])
        self._sink.head(head)

    def data(self, chunk: bytes) -> None:
        self._sink.data(chunk)

    def done(self, error: DagfsError | None) -> None:
        with self._lock:
            again = isinstance(error, NotFound) and len(self._keys) > 1 and not self._cancelled
            if again:
                del self._keys[0]
        if not again:
            self._sink.done(error)
            return
        try:
            self.start()
        except DagfsError as failure:
            self._sink.done(failure)


class _Collector:
    """Takes a body of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self.whole: Future[bytes] = Future()
        self._most = most
        self._pieces: list[bytes] = []
        self._bytes = 0

    def head(self, head: BodyHead) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > self._most:
            self._pieces.clear()
            raise ProtocolError(f"more than {self._most} bytes came")
        self._pieces.append(chunk)

    def done(self, error: DagfsError | None) -> None:
        if error is not None:
            self.whole.set_exception(error)
        else:
            self.whole.set_result(b"".join(self._pieces))


def collect(begin: Callable[[BodySink], Transfer], most: int) -> bytes:
    """Wait for a whole body. Raises DagfsError."""
    collector = _Collector(most)
    transfer = begin(collector)
    try:
        return collector.whole.result(COLLECT_SECONDS)
    except TooLate:
        transfer.cancel()
        raise Stalled(f"not all of it has come in {COLLECT_SECONDS:g} s") from None


def collect_manifest(breaker: Breaker, begin: Callable[[BodySink], Transfer]) -> bytes | None:
    """Wait for a manifest, and tell the way's breaker how it went; None where there is none, or no answer."""
    try:
        data = collect(begin, BYTES_MAX)
    except NotFound:
        breaker.worked()
        return None
    except DagfsError as error:
        breaker.failed(error)
        return None
    breaker.worked("manifests", len(data))
    return data
