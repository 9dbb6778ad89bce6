"""From the hub's entries to columns: names are checked here, once, and what no file system can show is hidden."""

from __future__ import annotations

import operator
import re
import threading
from array import array
from collections.abc import Generator, Iterable, Sequence
from itertools import accumulate, chain, islice, product, repeat

from dagfs.errors import TooLarge
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.columns import HIDDEN_SHOWN, ROW_BYTES, UNKNOWN, Columns, flag_of, pack_hash, pack_hashes

NAME_MAX = 255
"""Bytes. What Linux and everything above it take as a name."""

ROWS_MAX = 2_000_000
"""Entries of one directory, hidden ones included: half a gigabyte while it is put in order. A node id could address
eight times as many."""

BYTES_MAX = 128 << 20
"""Bytes of one listing's columns: the longest names that two million entries may have on average are 34 bytes."""

GIANT_BYTES = 16 << 20
"""A listing that has grown beyond it is read on alone: twenty at a time would take twenty times BYTES_MAX."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}").fullmatch

_FLAGS = {(kind, versioning): flag_of(kind, versioning) for kind, versioning in product(Kind, Versioning)}
_LAST = (b"\0", b"\0\1")
_EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"


class Giants:
    """Lets one giant listing at a time be built; another waits with what it has, and its hub with it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def build(self, directory: str, batches: Iterable[Sequence[Entry]]) -> Columns:
        """Build the columns of a directory's listing from the hub's stream, in whatever order it comes.

        Raises TooLarge.
        """
        builder = _Builder(directory)
        mine = False
        try:
            for batch in batches:
                builder.add(batch)
                if builder.bytes > GIANT_BYTES and not mine:
                    mine = self._turn.acquire()
            return builder.finish()
        finally:
            if mine:
                self._turn.release()
            if isinstance(batches, Generator):  # given up: its transfer ends now
                batches.close()


def build(directory: str, batches: Iterable[Sequence[Entry]]) -> Columns:
    """Build one listing by itself. Raises TooLarge."""
    return Giants().build(directory, batches)


def trusted_size(entry: Entry) -> int | None:
    """Give the size to believe, in bytes: hubs write 0 for "unknown", but the MD5 tells whether a file is empty."""
    size = entry.size
    if not size and entry.versioning is Versioning.DVC and entry.kind is Kind.FILE and entry.hash:
        return 0 if entry.hash == _EMPTY_MD5 else None
    return size


def name_bytes(name: str) -> bytes | None:
    """Give a name as the kernel wants it; None when no directory may hold it."""
    if _PLAIN(name) is not None:  # nearly all names, in a third of the time
        return name.encode()
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    bad = raw in (b"", b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > NAME_MAX
    return None if bad else raw


class _Builder:
    """Rows in the order of their arrival; they are put in order at the end, which costs nothing if they were."""

    def __init__(self, directory: str) -> None:
        self._prefix = directory + "/" if directory else ""
        self._names = bytearray()
        self._name_ends = array("I", [0])
        self._flags = bytearray()
        self._hashes = bytearray()
        self._hash_ends = array("I", [0])
        self._sizes = array("q")
        self._last = b""
        self._ordered = True  # so far every name was greater than the one before
        self._hidden = 0
        self._hidden_names: list[str] = []

    def add(self, batch: Sequence[Entry]) -> None:
        """Raises TooLarge."""
        if not self._add_plain(batch):
            for entry in batch:
                self._add(entry)
        rows = len(self._flags) + self._hidden
        if rows > ROWS_MAX or self.bytes > BYTES_MAX:
            raise TooLarge(
                f"{self._prefix or '/'} has more entries than can be listed: {rows} came, and there are more"
            )

    @property
    def bytes(self) -> int:
        """Bytes of the columns so far."""
        return len(self._names) + len(self._hashes) + ROW_BYTES * len(self._flags)

    def _add_plain(self, batch: Sequence[Entry]) -> bool:
        """Add a batch in which all names are plain and all hashes of one length, column by column: four times as fast
        as row by row. False when it is not such a batch."""
        start, prefix = len(self._prefix), self._prefix
        names = [entry.path[start:] for entry in batch]
        packed = pack_hashes([entry.hash for entry in batch])
        if packed is None or not all(map(_PLAIN, names)):
            return False
        if not all(map(str.startswith, [entry.path for entry in batch], repeat(prefix))):
            return False
        form, width, raw = packed
        _extend(self._name_ends, map(len, names))
        _extend(self._hash_ends, repeat(width, len(batch)))
        self._names += "".join(names).encode()
        self._hashes += raw
        self._flags += bytes([_FLAGS[entry.kind, entry.versioning] | form for entry in batch])
        self._sizes.extend(map(_kept_size, batch))
        previous = [self._last.decode("utf-8", "surrogateescape"), *names]
        self._ordered = self._ordered and all(map(operator.lt, previous, names))
        self._last = names[-1].encode()
        return True

    def _add(self, entry: Entry) -> None:
        path = entry.path
        name = name_bytes(path[len(self._prefix) :]) if path.startswith(self._prefix) else None
        if name is None:
            self._hide(path)
            return
        form, raw = pack_hash(entry.hash)
        self._names += name
        self._name_ends.append(len(self._names))
        self._hashes += raw
        self._hash_ends.append(len(self._hashes))
        self._flags.append(flag_of(entry.kind, entry.versioning) | form)
        self._sizes.append(_kept_size(entry))
        self._ordered = self._ordered and name > self._last
        self._last = name

    def finish(self) -> Columns:
        order = None if self._ordered else self._order()
        names, name_ends = _permuted(self._names, self._name_ends, order)
        flags = self._flags if order is None else bytearray(self._flags[i] for i in order)
        sizes = self._sizes if order is None else array("q", [self._sizes[i] for i in order])
        columns = Columns(names, name_ends, flags, sizes)
        columns.hashes, columns.hash_ends = _permuted(self._hashes, self._hash_ends, order)
        columns.hidden, columns.hidden_names = self._hidden, tuple(self._hidden_names)
        return columns

    def _order(self) -> list[int]:
        """Give the rows by name, one for each name: a directory wins over a file, else the first that came."""
        names, ends, flags = bytes(self._names), self._name_ends, self._flags
        order: list[int] = []
        last = None
        # No name has a NUL, so that what follows it decides between equal names only.
        for row in sorted(range(len(flags)), key=lambda i: names[ends[i] : ends[i + 1]] + _LAST[flags[i] & 3 != 0]):
            name = names[ends[row] : ends[row + 1]]
            if name == last:
                self._hide(self._prefix + name.decode("utf-8", "surrogateescape"))
            else:
                order.append(row)
            last = name
        return order

    def _hide(self, path: str) -> None:
        self._hidden += 1
        if len(self._hidden_names) < HIDDEN_SHOWN:
            self._hidden_names.append(path[:1024])


def _kept_size(entry: Entry) -> int:
    size = trusted_size(entry)
    return UNKNOWN if size is None or size < 0 else size


def _extend(ends: array[int], lengths: Iterable[int]) -> None:
    ends.extend(islice(accumulate(chain(ends[-1:], lengths)), 1, None))


def _permuted(blob: bytearray, ends: array[int], order: list[int] | None) -> tuple[bytes, array[int]]:
    if order is None:
        return bytes(blob), ends
    moved_ends = array("I", [0])
    parts = []
    total = 0
    for row in order:
        part = blob[ends[row] : ends[row + 1]]
        parts.append(part)
        total += len(part)
        moved_ends.append(total)
    return b"".join(parts), moved_ends
