"""A commit's listings on disk: what never changes in one value, the sizes learnt in another.

Those of buckets belong to a snapshot instead: they are kept for one mount's life, and for mounts without a network.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from dagfs.errors import ContentChanged
from dagfs.model import Entry, Kind, Versioning, in_a_bucket, in_storages
from dagfs.tree.codec import seal, unseal
from dagfs.tree.columns import Columns, sizes_from_bytes, sizes_to_bytes
from dagfs.tree.listing import Listing
from dagfs.tree.numbers import Values


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where listings are kept: `commit` names hub, repository and commit, `buckets` hub and repository.

    `snapshot` names what a mount sees of buckets; when `latest`, what it has not listed is as the last mount saw it.
    """

    commit: str
    buckets: str
    snapshot: str = ""
    latest: bool = False


class Shelf:
    """Keeps listings, thread-safe."""

    def __init__(self, values: Values, shelves: Shelves, ledger: Values | None = None) -> None:
        """`ledger`: see `tree.Tree`."""
        self._values = values
        self._shelves = shelves
        self._ledger = values if ledger is None else ledger

    def load(self, path: str) -> tuple[Columns, bool] | None:
        """Give a directory's columns, and whether the hub was asked for all sizes; None when they are not kept."""
        columns = Columns.from_bytes(self._values.get_value(self._key("listing", path)))
        if columns is None:
            return None
        stored = sizes_from_bytes(self._values.get_value(self._key("sizes", path, "listing")), len(columns))
        if stored is None:
            return columns, False
        columns.sizes, complete = stored
        return columns, complete

    def hold(self, path: str, columns: Columns) -> None:
        """Compare what the hub lists with what it listed before in this mount's life, where that may be another bucket
        by now: node ids are positions. Raises ContentChanged."""
        if not in_storages(path):
            return
        found = hashlib.blake2b(columns.to_bytes() + sizes_to_bytes(columns.sizes, complete=True), digest_size=16)
        name = f"{self._base(path)}/{self._shelves.snapshot}/seen/{_digest(path)}"
        before = unseal("seen", self._ledger.get_value(name))
        if before is None:
            self._ledger.set_value(name, seal("seen", found.digest()))
        elif before != found.digest():
            raise ContentChanged(f"{path}: the cache has lost this listing, and the bucket has changed since")

    def save(self, path: str, columns: Columns) -> None:
        self._values.set_value(self._key("listing", path), columns.to_bytes())
        self._point("listing", path)

    def save_sizes(self, listing: Listing) -> None:
        sealed = sizes_to_bytes(listing.columns.sizes, listing.asked_sizes)
        self._values.set_value(self._key("sizes", listing.directory.path, "listing"), sealed)

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
        self._point("entry", entry.path)

    def _key(self, what: str, path: str, pointed: str = "") -> str:
        """`pointed`: what it belongs to, where that is something else."""
        digest = _digest(path)
        if not in_storages(path):
            return f"{self._shelves.commit}/{what}/{digest}"
        return f"{self._base(path)}/{self._snapshot(pointed or what, path)}/{what}/{digest}"

    def _base(self, path: str) -> str:
        return self._shelves.buckets if in_a_bucket(path) else self._shelves.commit

    def _snapshot(self, what: str, path: str) -> str:
        """Give the snapshot that a value of a bucket is of, and stays of, for this mount."""
        own = self._shelves.snapshot
        if not self._shelves.latest:
            return own
        mine = f"{self._base(path)}/{own}/as/{what}/{_digest(path)}"
        latest = f"{self._base(path)}/latest/{what}/{_digest(path)}"
        kept = unseal("snapshot", self._values.get_value(mine))
        found = kept or unseal("snapshot", self._values.get_value(latest))
        if found is not None and kept is None:
            self._values.set_value(mine, seal("snapshot", found))
        return own if found is None else found.decode()

    def _point(self, what: str, path: str) -> None:
        """Let mounts without a network find what was stored."""
        if in_storages(path) and not self._shelves.latest:
            name = f"{self._base(path)}/latest/{what}/{_digest(path)}"
            self._values.set_value(name, seal("snapshot", self._shelves.snapshot.encode()))


def _digest(path: str) -> str:
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
