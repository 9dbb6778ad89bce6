"""The numbers of directories: given once for each path and kept, so that node ids survive a restart."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from dagfs.errors import Unsupported
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.codec import seal, unseal

K = TypeVar("K")
V = TypeVar("V")

PAGE = 64
"""Numbers in one stored page. The last page is written again for each new number, so it is kept small."""

ORIGINS = 1 << 38
"""A book starts to count anywhere below: when the store has lost it under a mount (`dagfs cache clear`), the next one
gives none of its numbers again, so that what the kernel remembers is refused and never taken for another path."""

BOOK_BITS = 24
"""Numbers of a book that shares a mount with others: each counts in a range of its own, so that a node id tells its
commit."""
PAGES_MAX = 1 << 20
"""Of a book: sixty million directories."""

KEPT = 65_536
"""Paths, and early children, held in memory; what falls out is read again from the store."""


class Values(Protocol):
    """The part of the store that keeps small values."""

    def get_value(self, name: str) -> bytes | None: ...
    def set_value(self, name: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Numbered:
    """What a number stands for. `early`: its slot 0 was given as a node id, before the path's directory was listed."""

    entry: Entry
    early: bool


class Recent(Generic[K, V]):
    """A dict that forgets what was used least recently; its owner's lock guards it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)

    def pop(self, key: K) -> V | None:
        return self._items.pop(key, None)

    def items(self) -> ItemsView[K, V]:
        return self._items.items()

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class NumberBook:
    """Numbers above an origin, one for each path, append-only. One process at a time may write a book.

    Lock order: `_writing` before `_lock`. `_writing` is held while the store writes; the dispatcher takes `_lock` only.
    """

    def __init__(
        self,
        values: Values,
        name: str,
        kept: int = KEPT,
        new_origin: Callable[[], int] = lambda: secrets.randbelow(ORIGINS),
        limit: int | None = None,
    ) -> None:
        """`limit`: how many numbers may be given; None is any."""
        self._values = values
        self._name = name
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._numbers: Recent[str, int] = Recent(kept)
        self._records: Recent[int, Numbered] = Recent(kept)
        self._early: Recent[str, dict[str, int]] = Recent(kept)  # directory -> names with an early number
        self._tail: list[Numbered] = []  # the last page; guarded by _writing
        self._count = 0  # numbers given; written under both locks
        self._limit = limit
        pages, self._origin = self._stored_start() or (0, new_origin())
        self._load(pages)

    @property
    def empty(self) -> bool:
        """Whether no number has been given: the book is new, or the store has lost it."""
        return not self._count

    def find(self, path: str) -> int | None:
        """Give the number of a path, None when it has none."""
        with self._lock:
            number = self._numbers.get(path)
        if number is None:
            number = self._stored_number(path)
        return number

    def record(self, number: int) -> Numbered | None:
        """Give what a number stands for; None when it was never given, or the store lost it."""
        with self._lock:
            known = self._records.get(number)
            ordinal = number - self._origin
            if known is not None or not 0 < ordinal <= self._count:
                return known
        page = _read_page(self._values.get_value(self._page_name((ordinal - 1) // PAGE)))
        offset = (ordinal - 1) % PAGE
        return page[offset] if offset < len(page) else None

    def early_children(self, directory: str) -> dict[str, int]:
        """Give names in `directory` whose slot 0 was given as a node id, with their numbers."""
        with self._lock:
            return dict(self._early.get(directory) or {})

    def give(self, entry: Entry, *, early: bool) -> int:
        """Give the number of a path, a new one if need be. Blocks on the store: never call it from the dispatcher."""
        with self._writing:
            number = self.find(entry.path)
            if number is not None and not early:
                return number
            known = None if number is None else self.record(number)
            if number is not None and known is not None and known.early:
                return number
            return self._append(Numbered(entry, early))

    def _append(self, record: Numbered) -> int:
        ordinal = self._count + 1
        if self._limit is not None and ordinal >= self._limit:
            raise Unsupported(f"{record.entry.path}: the mounted commit has more directories than node ids can tell")
        number = self._origin + ordinal
        if ordinal % PAGE == 1:
            self._tail = []
            start = f"{ordinal // PAGE + 1} {self._origin}"
            self._values.set_value(self._page_name(-1), seal("pages", start.encode()))
        self._tail.append(record)
        self._values.set_value(self._page_name((ordinal - 1) // PAGE), _write_page(self._tail))
        self._values.set_value(self._path_name(record.entry.path), seal("number", str(number).encode()))
        with self._lock:
            self._count = ordinal
            self._remember(number, record)
        return number

    def _stored_start(self) -> tuple[int, int] | None:
        """Give the count of pages and the origin; None for a book that is new, or lost."""
        words = (unseal("pages", self._values.get_value(self._page_name(-1))) or b"").split()
        pages, origin = map(_whole, words) if len(words) == 2 else (0, 0)
        return (pages, origin) if 0 < pages <= PAGES_MAX else None

    def _load(self, pages: int) -> None:
        for index in range(pages):
            self._tail = _read_page(self._values.get_value(self._page_name(index)))
            for offset, record in enumerate(self._tail, start=1):
                self._remember(self._origin + index * PAGE + offset, record)
            # The numbers of a damaged page are lost, not free: they may have been told to the kernel.
            self._count = index * PAGE + (len(self._tail) or PAGE)

    def _remember(self, number: int, record: Numbered) -> None:
        path = record.entry.path
        self._numbers.put(path, number)
        self._records.put(number, record)
        if record.early:
            directory, _, name = path.rpartition("/")
            names = self._early.get(directory) or {}
            if len(names) < KEPT:
                names[name] = number
            self._early.put(directory, names)

    def _stored_number(self, path: str) -> int | None:
        body = unseal("number", self._values.get_value(self._path_name(path)))
        number = _whole(body or b"")
        record = self.record(number)  # the page is the truth: a number that it does not have is not given
        return number if record is not None and record.entry.path == path else None

    def _page_name(self, index: int) -> str:
        """Give where a page lies; -1 is their count and the origin, written before the first number of a new one."""
        return f"{self._name}/page/{index}"

    def _path_name(self, path: str) -> str:
        digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return f"{self._name}/path/{digest}"


def _write_page(records: list[Numbered]) -> bytes:
    rows = [[e.path, e.kind, e.versioning, e.hash, e.size, r.early] for r in records for e in (r.entry,)]
    return seal("numbers", json.dumps(rows).encode())


def _read_page(sealed: bytes | None) -> list[Numbered]:
    body = unseal("numbers", sealed)
    try:
        return [_numbered(row) for row in json.loads(body)] if body else []
    except (ValueError, TypeError, RecursionError):
        return []


def _numbered(row: Sequence[Any]) -> Numbered:
    path, kind, versioning, digest, size, early = row
    if not isinstance(path, str) or not isinstance(digest, str):
        raise TypeError("a record of another format")
    return Numbered(Entry(path, Kind(kind), Versioning(versioning), digest, size), early)


def _whole(digits: bytes) -> int:
    """Read a number; 0 for what is none, or could not be a node's."""
    return int(digits) if digits.isdigit() and len(digits) < 20 else 0
