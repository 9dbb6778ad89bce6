"""Objects of buckets that an earlier mount fetched: their ETag is asked for, their bytes only when it is another."""

from __future__ import annotations

import threading
from typing import Protocol

from dagfs.errors import ContentChanged, DagfsError, IntegrityError
from dagfs.fetch.seam import WHOLE_MAX, Load, Loader, LoadSink
from dagfs.fetch.versions import Versions
from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Proof, Span, Urgency
from dagfs.proofs import prove

_PROBE = Span(0, 1)
"""The least that can be asked for: the answer's head is what counts."""


class Stored(Protocol):
    """A whole file of the cache."""

    size: int

    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class Shelf(Protocol):
    """What is needed of the store."""

    def find(self, content: Content) -> Stored | None: ...

    def also_called(self, content: Content, name: ContentId) -> bool:
        """Let a whole file be found by another name as well; False when it is not there."""


class Renewal:
    """Implements `seam.Loader`, before another one."""

    def __init__(self, loader: Loader, shelf: Shelf, versions: Versions, metrics: Metrics) -> None:
        self._loader = loader
        self._shelf = shelf
        self._versions = versions
        self._metrics = metrics

    def load(self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink) -> Load:
        earlier = self._versions.earlier(content) if content.size else None
        if earlier is None or not self._is_here(earlier):
            return self._loader.load(content, span, urgency, sink)
        return _Probe(self, content, earlier, span, sink).start(urgency)

    def close(self) -> None:
        self._loader.close()

    def ask(self, earlier: Content, urgency: Urgency, sink: LoadSink) -> Load:
        self._metrics.add("fetch.renewals_asked")
        self._versions.asks(earlier)
        return self._loader.load(earlier, _PROBE, urgency, sink)

    def confirmed(self, earlier: Content) -> bool:
        return self._versions.confirmed(earlier)

    def begin(self, content: Content, span: Span | None, urgency: Urgency, sink: LoadSink) -> Load:
        return self._loader.load(content, span, urgency, sink)

    def give(self, content: Content, earlier: Content, span: Span | None, sink: LoadSink) -> bool:
        """Give a load's bytes from the cache; False when they are not there any more."""
        found = self._shelf.find(earlier)
        if found is None:
            return False
        try:
            return self._give(content, earlier, span, sink, found)
        except OSError:
            return False  # damage is a miss
        finally:
            found.close()

    def _give(self, content: Content, earlier: Content, span: Span | None, sink: LoadSink, found: Stored) -> bool:
        size = found.size
        if size <= WHOLE_MAX and span is None:
            data = found.read(0, size)
            proof = prove(content, data)
            sink.sized(size)
            sink.whole(data, proof)
        else:
            wanted = span or Span(0, WHOLE_MAX)
            pieces = [found.read(start, end - start) for start, end in _steps(wanted, size)]
            self._shelf.also_called(earlier, content.key)  # whoever asks next finds the file itself
            sink.sized(size)
            for (start, _), piece in zip(_steps(wanted, size), pieces, strict=True):
                sink.piece(start, piece)
        self._versions.adopt(content, earlier)  # now, as loads that begin after it look for nothing earlier
        self._metrics.add("fetch.renewed")
        return True

    def _is_here(self, content: Content) -> bool:
        found = self._shelf.find(content)
        if found is not None:
            found.close()
        return found is not None


class _Probe:
    """One load (`seam.Load`), first of the ETag and then, if need be, of the bytes; as a `seam.LoadSink` it hears what
    the first came to. `_lock` is a leaf."""

    def __init__(self, owner: Renewal, content: Content, earlier: Content, span: Span | None, sink: LoadSink) -> None:
        self._owner = owner
        self._content = content
        self._earlier = earlier
        self._span = span
        self._sink = sink
        self._lock = threading.Lock()  # guards everything below
        self._load: Load | None = None
        self._urgency = Urgency.WARM_UP
        self._cancelled = False

    def start(self, urgency: Urgency) -> _Probe:
        self._urgency = urgency
        self._runs(self._owner.ask(self._earlier, urgency, self))
        return self

    def promote(self, urgency: Urgency) -> None:
        with self._lock:
            self._urgency = min(self._urgency, urgency)
            load = self._load
        if load is not None:
            load.promote(urgency)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            load = self._load
        if load is not None:
            load.cancel()

    def sized(self, size: int) -> None:
        pass

    def whole(self, data: bytes, proof: Proof) -> None:
        pass

    def piece(self, offset: int, data: bytes) -> None:
        pass

    def finished(self, error: DagfsError | None) -> None:
        same = self._owner.confirmed(self._earlier)
        if error is None and same and self._owner.give(self._content, self._earlier, self._span, self._sink):
            self._sink.finished(None)
        elif error is None or isinstance(error, (ContentChanged, IntegrityError)):
            self._runs(self._owner.begin(self._content, self._span, self._urgency, self._sink), follows=True)
        else:
            self._sink.finished(error)

    def _runs(self, load: Load, *, follows: bool = False) -> None:
        """Note what is under way; the load that follows may have begun before its probe was noted."""
        with self._lock:
            if follows or self._load is None:
                self._load = load
            cancelled, urgency = self._cancelled, self._urgency
        load.promote(urgency)
        if cancelled:
            load.cancel()


def _steps(span: Span, size: int) -> list[tuple[int, int]]:
    """Cut a span into pieces that no transport would exceed by much."""
    end = min(span.end, size)
    return [(start, min(start + WHOLE_MAX // 8, end)) for start in range(span.start, end, WHOLE_MAX // 8)]
