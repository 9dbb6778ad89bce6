"""A hub's listings, parsed while they arrive: 540,000 entries are 168 MB of JSON, and nobody waits for the last."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from dagfs.errors import ProtocolError
from dagfs.model import Entry, Kind, Versioning

BATCH_BYTES = 256 << 10
"""About 800 entries: large enough that the JSON library's own speed decides."""

FIRST_BATCH_BYTES = 16 << 10
MAX_ENTRY_BYTES = 1 << 20
"""A path of 4,096 bytes, each spelled as six, and what a hub may add; more than this without an end is no entry."""

MAX_OBJECT_BYTES = 16 << 20
"""An object is decoded whole: a page of a bucket's listing, 50,000 entries where hubs send a hundred. Made of the
shortest entries that there are, it takes ten times its size of memory."""

_CUTS = 16
"""Closing braces that are tried as the end of a batch: names may hold a few, a name of nothing else waits."""

_KINDS = {"dir": Kind.DIRECTORY, "submodule": Kind.DIRECTORY, "commit": Kind.DIRECTORY, "file": Kind.FILE,
          "symlink": Kind.SYMLINK, "link": Kind.SYMLINK}  # fmt: skip
_VERSIONINGS: dict[str | None, Versioning] = {"git": Versioning.GIT, "dvc": Versioning.DVC, "bucket": Versioning.BUCKET}
_FILE, _DIRECTORY, _GIT = Kind.FILE, Kind.DIRECTORY, Versioning.GIT  # looked up half a million times in one listing
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ENTRIES = re.compile(rb'"entries"\s*:')
MAX_SIZE = 1 << 62
"""Bytes. What a hub says beyond it is not a size."""

MAX_HASH = 128
"""Characters. A longer one is none: paths are remembered with their hashes, 65,536 of them."""

T = TypeVar("T")


class Row(msgspec.Struct, gc=False):
    """An entry as the hub spells it."""

    path: str
    type: str = "file"
    size: int | float | None = None
    hash: str | None = None
    versioning: str | None = None


class Page(msgspec.Struct):
    """A page of a bucket's listing."""

    entries: list[Row] | None
    next_token: str | None = None


_decode_rows: Callable[[bytes | bytearray], list[Row]] = msgspec.json.Decoder(list[Row]).decode
_decode_row: Callable[[bytes | bytearray], Row] = msgspec.json.Decoder(Row).decode
_decode_page: Callable[[bytes | bytearray], Page] = msgspec.json.Decoder(Page).decode


class ListingParser:
    """Feed it an answer's bytes: rows of an array come out at once, an object is known when all of it has come.

    `is_array`: None until the first byte that says so. Every method raises ProtocolError.
    """

    def __init__(self) -> None:
        self.is_array: bool | None = None
        self._buffer = bytearray()  # not decoded yet; of an array it begins with [, or with what follows an object
        self._next_try = FIRST_BATCH_BYTES  # size of the buffer at which a batch is looked for

    def feed(self, chunk: bytes) -> list[Row]:
        """Take bytes and give the rows that are complete."""
        self._buffer += chunk
        if self.is_array is None:
            self._begin()
        if self.is_array and len(self._buffer) >= self._next_try:
            return self._batch()
        if len(self._buffer) > MAX_OBJECT_BYTES:
            raise ProtocolError(f"an object of more than {MAX_OBJECT_BYTES} bytes instead of a listing")
        return []

    def close(self) -> list[Row] | Row | Page:
        """Give what is left: an array's last rows, or the object."""
        data = bytes(self._buffer)
        if self.is_array is None:
            if data.strip(_SPACE) == b"null":  # how Go spells a list without entries
                return []
            raise ProtocolError("an empty answer instead of a listing")
        self._buffer.clear()
        if not self.is_array:
            return _object(data)
        tail = data.strip(_SPACE)
        if tail == b"]":
            return []
        rows = _rows(_as_array(bytearray(tail.removesuffix(b"]")))) if tail.endswith(b"]") else None
        if rows is None or (tail[:1] == b"," and not rows):
            raise ProtocolError("a listing that is cut or not JSON")
        return rows

    def _begin(self) -> None:
        start = self._buffer.removeprefix(_BOM).lstrip(_SPACE)
        if (not start or b"null".startswith(start.rstrip(_SPACE))) and len(self._buffer) < FIRST_BATCH_BYTES:
            return
        if not start.startswith((b"[", b"{")):
            raise ProtocolError("the answer is not a listing")
        self.is_array, self._buffer = start.startswith(b"["), start

    def _batch(self) -> list[Row]:
        """Decode up to the last object that is complete: a cut within a string or a nested object does not parse."""
        end = len(self._buffer)
        for _ in range(_CUTS):
            end = self._buffer.rfind(b"}", 0, end)
            rows = _rows(_as_array(self._buffer[: end + 1])) if end > 0 else None
            if rows is not None:
                del self._buffer[: end + 1]
                self._next_try = len(self._buffer) + BATCH_BYTES
                return rows
        if len(self._buffer) > MAX_ENTRY_BYTES + BATCH_BYTES:
            raise ProtocolError("a listing that is not JSON, or an entry without end")
        self._next_try = len(self._buffer) + BATCH_BYTES
        return []


def entries(rows: Iterable[Row], directory: str, *, sized: bool) -> list[Entry]:
    """Give the children of `directory` as the rows have them; what is no child of it is for the tree to hide.

    Connected buckets and the directory itself, which a listing may begin with, are left out.
    """
    prefix = f"{directory}/" if directory else ""
    start = len(prefix)
    found: list[Entry] = []
    for row in rows:
        path = row.path
        if not path.startswith(prefix) or path.find("/", start) >= 0 or len(path) == start:
            stripped = path.strip("/")
            if stripped == directory:
                continue
            if stripped.rpartition("/")[0] == directory:
                path = stripped
        if row.type != "storage":
            found.append(_entry(path, row, sized))
    return found


def entry(row: Row, path: str, *, sized: bool) -> Entry:
    """Give what an object says of the path that was asked for."""
    return _entry(path, row, sized)


def _entry(path: str, row: Row, sized: bool) -> Entry:
    kind = _KINDS.get(row.type, _FILE)
    size = row.size
    if size is not None:
        told = kind is not _DIRECTORY and 0 <= size < MAX_SIZE and size == int(size) and (size or sized)
        size = int(size) if told else None
    digest = row.hash or ""
    if len(digest) > MAX_HASH:
        digest = ""
    return Entry(path, kind, _VERSIONINGS.get(row.versioning, _GIT), digest, size)


def _as_array(piece: bytearray) -> bytearray:
    """Make a piece of an array one again, in place: its first byte was [ or a comma."""
    if not piece.startswith((b"[", b",")):
        piece = piece.lstrip(_SPACE)
    if not piece.startswith((b"[", b",")):
        raise ProtocolError("a listing that is not JSON")
    piece[0] = ord("[")
    piece += b"]"
    return piece


def _rows(data: bytearray) -> list[Row] | None:
    """Decode an array; None when it does not parse, which a cut at the wrong brace may be the reason of."""
    return _decode(data, _decode_rows, list[Row])


def _object(data: bytes) -> Row | Page:
    if _ENTRIES.search(data):
        try:
            page = _decode(data, _decode_page, Page)
        except ProtocolError:  # the word was in a file's name
            page = None
        if page is not None:
            return page
    row = _decode(data, _decode_row, Row)
    if row is None:
        raise ProtocolError("an object that is cut or not JSON")
    return row


def _decode(data: bytes | bytearray, decode: Callable[[bytes | bytearray], T], kind: type[T]) -> T | None:
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"a listing with an unexpected value: {error}") from None
    except RecursionError:
        raise ProtocolError("a listing that is nested too deep") from None
    except UnicodeDecodeError:
        return _decode_loosely(data, kind)
    except msgspec.DecodeError:
        return _decode_loosely(data, kind) if _SURROGATE.search(data) else None


def _decode_loosely(data: bytes | bytearray, kind: type[T]) -> T | None:
    """Decode names that are not UTF-8, or halves of surrogate pairs, for which the fast library has no way."""
    try:
        return msgspec.convert(json.loads(data.decode("utf-8", "surrogateescape")), kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"a listing with an unexpected value: {error}") from None
    except RecursionError:
        raise ProtocolError("a listing that is nested too deep") from None
    except ValueError:
        return None
