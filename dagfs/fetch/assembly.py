"""One load's bytes: what to ask for next, and what the arriving bytes mean. Knows no thread, queue or clock."""

from __future__ import annotations

import enum

from dagfs.errors import (
    ContentChanged,
    DagfsError,
    DamagedBody,
    Disproved,
    IntegrityError,
    ProtocolError,
    RemoteError,
    TooLarge,
)
from dagfs.fetch.blobs import BlobIds
from dagfs.fetch.seam import WHOLE_MAX, LoadSink
from dagfs.fetch.unproved import Unproved
from dagfs.hub.reply import plain_tag
from dagfs.hub.source import BodyHead
from dagfs.model import Content, Span, Versioning
from dagfs.proofs import Prover, chunks

MEASURED_MAX = 64 << 30
"""Bytes of a file that is read to its end because its size is told nowhere. One that goes on may have no end."""


class SizeNeeded(Exception):
    """More than WHOLE_MAX bytes came of a file whose size nobody has told."""


class OtherSize(IntegrityError):
    """The hub announces another size of an unversioned object than was listed; each time, it is another object."""


class Mode(enum.Enum):
    """WHOLE collects a small file; STREAM passes on a large one; MEASURE reads a large one to its end to learn its
    size, because the hub tells it nowhere."""

    WHOLE = enum.auto()
    STREAM = enum.auto()
    MEASURE = enum.auto()


class Assembly:
    """Takes the bodies of a load one after another. Used by one thread at a time."""

    def __init__(self, content: Content, span: Span | None, sink: LoadSink, blob_ids: BlobIds) -> None:
        self.position = span.start if span is not None else 0  # offset of the next byte that is wanted
        self._content = content
        self._sink = sink
        self._size = content.size
        self._announced = False
        large = content.size is not None and content.size > WHOLE_MAX
        self._mode = Mode.STREAM if span is not None or large else Mode.WHOLE
        self._end = span.end if span is not None else WHOLE_MAX
        self._delivered = False  # a piece was given: nothing before `position` may be given again
        self._pieces: list[bytes] = []  # of a small file, [0, position)
        self._prover: Prover | None = None
        self._validator: str | None = None
        self._skip = 0
        self._ranged = False
        self._unproved = Unproved()
        self._blob_ids = blob_ids
        self._disbelieved: list[str] = []  # MD5s; outlives a restart

    def request(self) -> Span | None:
        """Give the span to ask for next; None is the whole file."""
        if self._mode is Mode.STREAM:
            return Span(0 if self._unproved.doubted else self.position, self._end)
        if self._mode is Mode.MEASURE:
            return None
        if self._size is not None:
            return Span(self.position, self._size) if self.position else None
        return Span(self.position, WHOLE_MAX)

    def head(self, head: BodyHead) -> None:
        """A body begins. Raises ProtocolError, IntegrityError, ContentChanged."""
        self._ranged = head.ranged
        self._unproved.begin(head.compressed and not self._content.hashed)
        self._check_validator(plain_tag(head.validator) or None)
        if self._mode is Mode.MEASURE:
            self._skip = self.position = 0
            self._pieces.clear()
        if head.total is not None and not self._is_hearsay(head):
            self._learn_size(head.total)
        if self._mode is Mode.STREAM and not self._delivered:
            self.position = min(self.position, head.start)
        self._skip = self.position - head.start
        if self._skip < 0:
            raise ProtocolError(f"{self._path}: bytes came from {head.start} on, not from {self.position}")

    def data(self, chunk: bytes) -> None:
        """Bytes come. Raises ProtocolError, SizeNeeded, TooLarge, Disproved."""
        if self._skip:
            chunk = self._pass_over(chunk)
            if not chunk:
                return
        if self._size is not None and self.position + len(chunk) > self._size:
            raise ProtocolError(f"{self._path}: more than its {self._size} bytes came")
        if self._mode is Mode.STREAM:
            self._give(chunk)
            return
        self.position += len(chunk)
        if self._mode is Mode.MEASURE:
            if self.position > MEASURED_MAX:
                raise TooLarge(f"{self._path}: the hub does not tell its size, and {MEASURED_MAX} bytes were not all")
            self._keep_first(chunk)
            return
        self._pieces.append(chunk)
        if self._size is None and self.position > WHOLE_MAX:
            raise SizeNeeded
        self._hash().update(chunk)

    def complete(self) -> None:
        """The body ended as announced. Raises ProtocolError when it was too short, IntegrityError when it is wrong,
        SizeNeeded when it may go on."""
        if self._mode is Mode.STREAM:
            if self.position < min(self._end, self._size or self._end):
                raise ProtocolError(f"{self._path}: the body ended at {self.position}, not at {self._end}")
            self._hand_on(self._unproved.released())
            return
        if self._mode is Mode.MEASURE and self.position > WHOLE_MAX:
            self._announce(self.position)
            self._give_first()
            return
        if self._mode is Mode.MEASURE:
            for piece in self._pieces:
                self._hash().update(piece)
        elif self._size is None and self._ranged and self.position == WHOLE_MAX:
            raise SizeNeeded
        self._finish_whole()

    def learnt(self, size: int | None) -> bool:
        """The hub was asked for the size in bytes; True when the load is complete with it."""
        if size is None or size < self.position or size <= WHOLE_MAX:
            self._mode = Mode.MEASURE
            self.restart()
            return False
        self._announce(size)
        if self._unproved.body:
            self._pieces = []  # of a body that was left before its end; who needs them asks for them
        else:
            self._give_first()
        return True

    @property
    def satisfied(self) -> bool:
        """All bytes that were asked for are here, and good, although the body may not have ended well."""
        if self._mode is Mode.MEASURE or self._unproved.body:
            return False
        end = self._end if self._mode is Mode.STREAM else self._size
        return end is not None and self.position >= (end if self._size is None else min(end, self._size))

    def restart(self) -> bool:
        """Begin anew, unless bytes were given already."""
        if self._delivered:
            return False
        if self._mode is not Mode.STREAM:
            self.position = 0
        self._pieces.clear()
        self._prover = None
        self._validator = None
        if not self._announced:
            self._size = self._content.size
        return True

    def broken_off(self, error: BaseException) -> BaseException:
        """A body has ended early, or badly; give what that means. What came of an unproved one may be wrong: begin
        anew. Where pieces of it were given, the next body tells: it has to bring the same, and to end well."""
        self.position = self._unproved.taken_back(self.position)
        damaged = isinstance(error, DamagedBody)
        doubtful = damaged or (self._unproved.body and isinstance(error, RemoteError))
        if doubtful and not self.restart() and not self._unproved.doubt(damaged=damaged):
            return self.verdict(ProtocolError(str(error)))
        return error

    def verdict(self, error: DagfsError) -> DagfsError:
        """Give what the load has failed with: bytes that nothing has proved since they were doubted are wrong."""
        told = isinstance(error, Disproved) or not self._unproved.damaged
        return error if told else Disproved(f"{self._path}: {error}")

    @property
    def _path(self) -> str:
        return self._content.entry.path

    def _check_validator(self, validator: str | None) -> None:
        """Two versions of a file never mix. Where an MD5 is claimed it decides: replicas may name one version twice."""
        before, self._validator = self._validator, validator or self._validator
        if before is None or validator in (None, before) or self._content.hashed:
            return
        if self._content.entry.versioning is Versioning.BUCKET:
            raise ContentChanged(f"{self._path} changed while it was read")
        self._validator = before
        if not self.restart():
            raise IntegrityError(f"{self._path}: the hub sent two versions of it")
        self._validator = validator

    def _is_hearsay(self, head: BodyHead) -> bool:
        """Tell whether the size would rest on a Content-Length alone, which is wrong where a proxy cut or changed the
        body. What stat has shown cannot be taken back: a small file's bytes are waited for, of a large one the hub is
        asked for the size."""
        return self._size is None and self._mode is Mode.WHOLE and not head.ranged

    def _learn_size(self, total: int) -> None:
        if self._size is not None and total != self._size:
            bucket = self._content.entry.versioning is Versioning.BUCKET
            kind = OtherSize if bucket else IntegrityError
            raise kind(f"{self._path}: the hub sends {total} bytes, not {self._size}")
        self._announce(total)
        if self._mode is not Mode.STREAM and total > WHOLE_MAX:
            self._mode = Mode.STREAM
            self._end = WHOLE_MAX
            pieces, self._pieces = self._pieces, []
            self.position = 0
            for piece in pieces:
                self._give(piece)

    def _announce(self, size: int) -> None:
        self._size = size
        if not self._announced:
            self._announced = True
            self._sink.sized(size)

    def _give(self, chunk: bytes) -> None:
        offset, self.position = self.position, self.position + len(chunk)
        self._hand_on(self._unproved.withhold(offset, chunk) if self._unproved.body else (offset, chunk))

    def _hand_on(self, piece: tuple[int, bytes] | None) -> None:
        if piece is not None:
            self._unproved.given(*piece, provable=self._ranged or self._content.hashed)
            self._delivered = True
            self._sink.piece(*piece)

    def _pass_over(self, chunk: bytes) -> bytes:
        """Leave out what has come before, once it has turned out to be the same. Raises Disproved."""
        skipped = min(self._skip, len(chunk))
        self._skip -= skipped
        if not self._unproved.same(chunk[:skipped], self._skip):
            raise Disproved(f"{self._path}: the hub sent other bytes before")
        return chunk[skipped:]

    def _keep_first(self, chunk: bytes) -> None:
        """Keep the first WHOLE_MAX bytes; the rest only counts."""
        start = self.position - len(chunk)
        if start < WHOLE_MAX:
            self._pieces.append(chunk[: WHOLE_MAX - start])

    def _give_first(self) -> None:
        first, self._pieces, self.position = b"".join(self._pieces), [], 0
        self._give(first)

    def _hash(self) -> Prover:
        if self._prover is None:
            known = self._content.size == self._size  # then there is no need of a copy, which costs 7 us
            self._prover = Prover(self._content if known else self._content._replace(size=self._size))
        return self._prover

    def _finish_whole(self) -> None:
        if self._size is not None and self.position < self._size:
            raise ProtocolError(f"{self._path}: the body ended at {self.position}, not at {self._size}")
        pieces, self._pieces = self._pieces, []
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        proof = self._hash().proof(lambda: chunks(data))
        self._blob_ids.judge(self._content, proof, self._disbelieved)
        self._announce(len(data))
        self._sink.whole(data, proof)
