"""What an origin sends, checked before it is passed on: an origin may have been filled by anybody."""

from __future__ import annotations

from dagfs.errors import DagfsError, IntegrityError, ProtocolError
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.origins.seam import Wanted
from dagfs.proofs import prove


class Unproved(ProtocolError):
    """An object whose size nobody vouches for."""


class Checked:
    """A `source.BodySink` before another one.

    A small file is passed on whole, when its hash is right. Of a large one the size must be the one that is known, or
    vouched for by the origin or by an MD5 that the store itself has computed; then its bytes go on as they come, and
    the cache proves them as it does the hub's. `begun`: the sink behind has got something, so nobody else can be asked.
    """

    def __init__(self, wanted: Wanted, sink: BodySink, *, vouches: bool) -> None:
        self._wanted = wanted
        self._sink = sink
        self._vouches = vouches
        self._pieces: list[bytes] | None = []  # of a small file; None: a large one is passed on
        self._bytes = 0
        self._head: BodyHead | None = None
        self._failed: DagfsError | None = None
        self._transfer: Transfer | None = None
        self.begun = False
        self.moved = 0  # bytes passed on

    def attach(self, transfer: Transfer) -> None:
        """Tell the transfer, to be ended when what comes is not right."""
        self._transfer = transfer
        if self._failed is not None:
            transfer.cancel()

    def head(self, head: BodyHead) -> None:
        self._head = head
        size = self._wanted.content.size
        if head.total is not None and size is not None and head.total != size:
            self._fail(IntegrityError(f"{self._wanted.content.entry.path}: {head.total} bytes, not {size}"))
        elif head.total is not None and head.total > WHOLE_MAX:
            self._large(head)

    def data(self, chunk: bytes) -> None:
        if self._failed is not None:
            return
        if self._pieces is None:
            self.moved += len(chunk)
            self._sink.data(chunk)
            return
        self._pieces.append(chunk)
        self._bytes += len(chunk)
        if self._bytes > WHOLE_MAX:
            self._fail(Unproved(f"{self._wanted.content.entry.path}: more bytes than announced"))

    def ended(self, error: DagfsError | None) -> DagfsError | None:
        """The body has ended: give why it is of no use; None when all is passed on."""
        if self._failed is not None:
            return self._failed
        if error is not None or self._pieces is None:
            return error
        data = b"".join(self._pieces)
        try:
            prove(self._wanted.content, data)
        except IntegrityError as wrong:
            return wrong
        self._pass_on(data)
        return None

    def _pass_on(self, data: bytes) -> None:
        self.begun = True
        self.moved = len(data)
        tag = self._head.validator if self._head is not None else None
        self._sink.head(BodyHead(0, len(data), self._wanted.span is not None, tag))
        if data:
            self._sink.data(data)

    def _large(self, head: BodyHead) -> None:
        wanted = self._wanted
        # S3 makes the MD5 of what was put in one part its tag; other tags say nothing, whatever they look like.
        right = (head.validator or "").strip('"') == wanted.md5
        if right or self._vouches or head.total == wanted.content.size:
            self._pieces = None
            self.begun = True
            self._sink.head(head)
        else:
            self._fail(Unproved(f"{wanted.content.entry.path}: nobody vouches for its {head.total} bytes"))

    def _fail(self, error: DagfsError) -> None:
        self._failed = error
        self._pieces = []
        if self._transfer is not None:
            self._transfer.cancel()
