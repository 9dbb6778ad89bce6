"""Listings as the content API gives them: JSON entries of a directory, or the one of a file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from dagfs.devhub.behaviour import Behaviour
from dagfs.devhub.git import GitRepository
from dagfs.devhub.objects import DvcCache
from dagfs.devhub.snapshot import Node, Snapshot

_KEPT_BYTES = 256 << 20
"""Of rendered listings: one of 540,000 files has about 170 MB, and it is asked for by every worker."""


class EntryJson(msgspec.Struct):
    """An entry of a listing. `size` in bytes, or absent; `path` from the repository's root."""

    path: str
    type: str
    size: int | msgspec.UnsetType
    hash: str
    versioning: str
    download_url: str
    content_url: str


@dataclass(frozen=True, slots=True)
class Place:
    """A path of a commit as somebody asked for it: `ref` is their word for the commit."""

    ref: str
    commit: str
    path: bytes


class Listings:
    """Renders listings, and keeps what is rendered; thread-safe. `api` is the URL of the repository's API."""

    def __init__(self, git: GitRepository, cache: DvcCache, api: str, behaviour: Behaviour) -> None:
        self._git = git
        self._cache = cache
        self._api = api
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Place, bool], bytes] = OrderedDict()  # under the lock; within _KEPT_BYTES
        self._bytes = 0

    def render(self, snapshot: Snapshot, place: Place, *, sized: bool, more: Iterable[EntryJson] = ()) -> bytes:
        """Give the JSON of a path: an array for a directory, an object for a file. Raises NotFound.

        `more` are entries that a directory has beside those of the commit.
        """
        with self._lock:
            found = self._kept.get((place, sized))
            if found is not None:
                self._kept.move_to_end((place, sized))
                return found
        node = snapshot.lookup(place.path)
        if node.is_dir:
            prefix = place.path + b"/" if place.path else b""
            rows = [(prefix + name, child) for name, child in snapshot.children(place.path)]
            data = msgspec.json.encode([*self._entries(rows, place, sized), *more])
        else:
            data = msgspec.json.encode(self._entries([(place.path, node)], place, sized)[0])
        self._keep((place, sized), data)
        return data

    def unsized(self) -> int | msgspec.UnsetType:
        """Give what stands for a size that was not asked for."""
        return 0 if self._behaviour.size_when_unsized else msgspec.UNSET

    def _entries(self, rows: list[tuple[bytes, Node]], place: Place, sized: bool) -> list[EntryJson]:
        sizes = self._sizes([node for _, node in rows]) if sized else [self.unsized()] * len(rows)
        raw, content = (f"{self._api}/{what}/{quote(place.ref, safe='/')}/" for what in ("raw", "content"))
        entries = []
        for (path, node), size in zip(rows, sizes, strict=True):
            url = quote(path, safe="/")
            kind = "dir" if node.is_dir else "file"
            versioning = "dvc" if node.dvc else "git"
            word = node.oid if node.dvc or self._behaviour.blob_hash else place.commit
            entries.append(EntryJson(go_text(path), kind, size, word, versioning, raw + url, content + url))
        return entries

    def _sizes(self, nodes: list[Node]) -> list[int | msgspec.UnsetType]:
        """Give the sizes of files; 0 for directories, and for what the DVC cache does not have."""
        blobs = [node.oid for node in nodes if not node.dvc and not node.is_dir]
        known = dict(zip(blobs, self._git.sizes(blobs), strict=True))
        return [self._dvc_size(node) if node.dvc and not node.is_dir else known.get(node.oid, 0) for node in nodes]

    def _dvc_size(self, node: Node) -> int:
        path = self._cache.find(node.oid, legacy=node.legacy)
        try:
            return 0 if path is None else os.stat(path).st_size
        except OSError:
            return 0

    def _keep(self, key: tuple[Place, bool], data: bytes) -> None:
        with self._lock:
            if key not in self._kept and len(data) <= _KEPT_BYTES:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def go_text(name: bytes) -> str:
    """Decode a name as Go's JSON does: each byte that is not UTF-8 becomes one U+FFFD."""
    text = ""
    while True:
        try:
            return text + name.decode()
        except UnicodeDecodeError as error:
            text += name[: error.start].decode() + "\N{REPLACEMENT CHARACTER}"
            name = name[error.start + 1 :]
