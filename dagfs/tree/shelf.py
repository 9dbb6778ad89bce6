"""A commit's listings on disk: what never changes in one value, the sizes learnt in another."""

from __future__ import annotations

import hashlib
import json

from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.codec import seal, unseal
from dagfs.tree.columns import Columns, sizes_from_bytes, sizes_to_bytes
from dagfs.tree.listing import Listing
from dagfs.tree.numbers import Values


class Shelf:
    """Keeps listings under `name`, which stands for hub, repository and commit."""

    def __init__(self, values: Values, name: str) -> None:
        self._values = values
        self._name = name

    def load(self, path: str) -> tuple[Columns, bool] | None:
        """Give a directory's columns, and whether the hub was asked for all sizes; None when they are not kept."""
        columns = Columns.from_bytes(self._values.get_value(self._key("listing", path)))
        if columns is None:
            return None
        stored = sizes_from_bytes(self._values.get_value(self._key("sizes", path)), len(columns))
        if stored is None:
            return columns, False
        columns.sizes, complete = stored
        return columns, complete

    def save(self, path: str, columns: Columns) -> None:
        self._values.set_value(self._key("listing", path), columns.to_bytes())

    def save_sizes(self, listing: Listing) -> None:
        sealed = sizes_to_bytes(listing.columns.sizes, listing.asked_sizes)
        self._values.set_value(self._key("sizes", listing.directory.path), sealed)

    def load_entry(self, path: str) -> Entry | None:
        """Give a path that was described by itself, its directory not being listed; None when it is not kept."""
        body = unseal("entry", self._values.get_value(self._key("entry", path)))
        if body is None:
            return None
        kind, versioning, hash_, size = json.loads(body)
        return Entry(path, Kind(kind), Versioning(versioning), hash_, size)

    def save_entry(self, entry: Entry) -> None:
        row = [entry.kind, entry.versioning, entry.hash, entry.size]
        self._values.set_value(self._key("entry", entry.path), seal("entry", json.dumps(row).encode()))

    def _key(self, what: str, path: str) -> str:
        digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return f"{self._name}/{what}/{digest}"
