"""One body, asked for along the ways until one has it. The hub is the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dagfs.errors import DagfsError, RemoteUnavailable
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.origins.breaker import Breaker
from dagfs.origins.checked import Checked
from dagfs.origins.seam import Wanted
from dagfs.origins.steps import Steps

Opening = Callable[[BodySink], Transfer]


class Way(Protocol):
    """A way to the bytes before the hub's: `remote.RemoteWay` and `tier.Tier`."""

    breaker: Breaker

    @property
    def vouches(self) -> bool:
        """Whether its word for a file's size is as good as the hub's."""

    def begin(self) -> None:
        """Connect, without waiting for it."""

    def wants(self, wanted: Wanted) -> bool:
        """Say whether to ask for this file here."""

    def ask(self, wanted: Wanted, sink: BodySink) -> Transfer:
        """Start to transfer a body and return at once; a NotFound sends whoever asks to the next way."""

    def gave(self, wanted: Wanted, size: int) -> None:
        """So many bytes of it were right, or looked so."""

    def failed(self, wanted: Wanted, error: DagfsError) -> None:
        """What it sent, or did not send, was of no use."""

    def passed_by(self, wanted: Wanted, error: DagfsError | None) -> None:
        """What was a miss here has come from elsewhere, or has failed there, too."""

    def manifest(self, md5: str) -> bytes | None:
        """Give the `.dir` manifest of that MD5, unchecked; None without one. Blocks."""

    def report(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Route(Steps):
    """Implements `source.Transfer`. Lock order: `_lock` is a leaf; sinks and ways are called outside of it."""

    def __init__(
        self, wanted: Wanted, ways: Sequence[Way], last: Opening, sink: BodySink, large: Callable[[int], Opening | None]
    ) -> None:
        """`last` asks the hub; `large` is told the size of a large file that the ways lack, and gives what to do
        instead of asking the hub for all of the span."""
        self._wanted = wanted
        self._large = large
        self._ways = [way for way in ways if way.wants(wanted)]
        self._last = last
        self._sink = sink
        super().__init__()
        self._step = 0  # of _ways, the one that is asked now; guarded by _lock, as the next
        self._missed: list[Way] = []

    def start(self) -> None:
        """Ask the first way that is in use. Raises DagfsError when only the hub is left, and refuses at once."""
        way = self._next()
        if way is None:
            self._ask_hub()
        else:
            self._ask(way)

    def ended(self, way: Way, body: Checked, error: DagfsError | None) -> None:
        """A way has come to its end."""
        with self._lock:
            cancelled = self._cancelled
        if cancelled and error is not None:
            way.breaker.given_up()
        elif error is None:
            way.gave(self._wanted, body.moved)
        else:
            way.failed(self._wanted, error)
        if error is not None:
            with self._lock:
                self._missed.append(way)
        if error is None or body.begun or cancelled:
            self.over(error)
        else:
            self._go_on()

    def over(self, error: DagfsError | None) -> None:
        """Nobody else is asked."""
        for way in self._missed:
            way.passed_by(self._wanted, error)
        self._sink.done(error)

    def large(self, size: int) -> bool:
        """The hub sends a large file: those who wait for it elsewhere wait in vain. True when its bytes come another
        way now: then the hub's transfer is cancelled."""
        for way in self._missed:
            way.passed_by(self._wanted, RemoteUnavailable("a large file"))
        instead = self._large(size)
        if instead is None:
            return False
        with self._lock:
            self._step += 1
            step, hubs, self._transfer = self._step, self._transfer, None
        if hubs is not None:
            hubs.cancel()
        self._begin(step, instead, self._sink)
        return True

    def _next(self) -> Way | None:
        while self._step < len(self._ways):
            way = self._ways[self._step]
            if way.breaker.allows():
                return way
            self._step += 1
        return None

    def _go_on(self) -> None:
        with self._lock:
            self._step += 1
            self._transfer = None
        try:
            self.start()
        except DagfsError as error:
            self.over(error)

    def _ask(self, way: Way) -> None:
        sink = _WaySink(self, way, Checked(self._wanted, self._sink, vouches=way.vouches))
        step = self._step
        try:
            transfer = way.ask(self._wanted, sink)
        except DagfsError as error:
            sink.done(error)
            return
        sink.body.attach(transfer)
        self._began(step, transfer)

    def _ask_hub(self) -> None:
        step = self._step = len(self._ways)
        size = self._wanted.content.size
        instead = self._large(size) if size is not None and size > WHOLE_MAX else None
        if instead is not None:
            self._begin(step, instead, self._sink)
        else:
            sink = _HubSink(self, self._sink, unsized=size is None) if self._missed else self._sink
            self._begin(step, self._last, sink)

    def _begin(self, step: int, opening: Opening, sink: BodySink) -> None:
        self._began(step, opening(sink))

    def _began(self, step: int, transfer: Transfer) -> None:
        with self._lock:
            if step == self._step:
                self._transfer = transfer
                cancelled = self._cancelled
            else:  # it has ended already, or is the hub's, and its bytes come another way
                cancelled = step == len(self._ways)
        if cancelled:
            transfer.cancel()


class _WaySink:
    """Receives what one way sends."""

    def __init__(self, route: Route, way: Way, body: Checked) -> None:
        self._route = route
        self._way = way
        self.body = body

    def head(self, head: BodyHead) -> None:
        self.body.head(head)

    def data(self, chunk: bytes) -> None:
        self.body.data(chunk)

    def done(self, error: DagfsError | None) -> None:
        self._route.ended(self._way, self.body, self.body.ended(error))


class _HubSink:
    """Receives what the hub sends after others had nothing."""

    def __init__(self, route: Route, sink: BodySink, *, unsized: bool) -> None:
        self._route = route
        self._sink = sink
        self._unsized = unsized  # so whether the file is large is learnt now
        self._mute = False  # the bytes come another way

    def head(self, head: BodyHead) -> None:
        if self._unsized and head.total is not None and head.total > WHOLE_MAX and head.ranged:
            self._mute = self._route.large(head.total)
        if not self._mute:
            self._sink.head(head)

    def data(self, chunk: bytes) -> None:
        if not self._mute:
            self._sink.data(chunk)

    def done(self, error: DagfsError | None) -> None:
        if not self._mute:
            self._route.over(error)
