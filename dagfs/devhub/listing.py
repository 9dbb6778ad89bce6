"""Listings as the content API gives them: JSON entries of a directory, or the one of a file."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from dagfs.devhub.behaviour import Behaviour
from dagfs.devhub.git import GitRepository
from dagfs.devhub.objects import DvcCache
from dagfs.devhub.snapshot import Node, Snapshot

_KEPT_BYTES = 512 << 20
"""Of rendered listings: one of 540,000 files has about 170 MB, again as many with sizes, and every worker asks."""


class EntryJson(NamedTuple):
    """An entry of a listing. `size` in bytes, None to leave it out; `path` from the repository's root; URLs quoted."""

    path: str
    type: str
    size: int | None
    hash: str
    versioning: str
    download_url: str
    content_url: str

    def to_json(self) -> str:
        """Give the entry as JSON. Only a path can need escapes: json.dumps of all takes four times as long."""
        size = "" if self.size is None else f'"size":{self.size},'
        return (
            f'{{"path":{_quoted(self.path)},"type":"{self.type}",{size}"hash":"{self.hash}",'
            f'"versioning":"{self.versioning}","download_url":"{self.download_url}","content_url":"{self.content_url}"}}'
        )


_quoted = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Place:
    """A path of a commit as somebody asked for it: `ref` is their word for the commit."""

    ref: bytes
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
        self._rendering = threading.Lock()  # one directory at a time, whoever asks; taken before `_lock`

    def render(self, snapshot: Snapshot, place: Place, *, sized: bool, more: Iterable[EntryJson] = ()) -> bytes:
        """Give the JSON of a path: an array for a directory, an object for a file. Raises NotFound.

        `more` are entries that a directory has beside those of the commit.
        """
        node = snapshot.lookup(place.path)
        if not node.is_dir:
            sizes = sizes_of([node], self._git, self._cache) if sized else None
            return self._entries([(place.path, node)], place, sizes)[0].to_json().encode()
        found = self._find((place, sized))
        if found is None:
            with self._rendering:
                found = self._find((place, sized)) or self._render(snapshot, place, sized, more)
        return found

    def _render(self, snapshot: Snapshot, place: Place, sized: bool, more: Iterable[EntryJson]) -> bytes:
        prefix = place.path + b"/" if place.path else b""
        rows = [(prefix + name, child) for name, child in snapshot.children(place.path)]
        sizes = sizes_of([child for _, child in rows], self._git, self._cache) if sized else None
        entries = [*self._entries(rows, place, sizes), *more]
        data = f"[{','.join(entry.to_json() for entry in entries)}]".encode()
        if sizes is None or None not in sizes:  # what the cache lacks now may be fetched into it
            self._keep((place, sized), data)
        return data

    def _entries(self, rows: list[tuple[bytes, Node]], place: Place, sizes: list[int | None] | None) -> list[EntryJson]:
        unsized = 0 if self._behaviour.size_when_unsized else None
        shown = [unsized] * len(rows) if sizes is None else [size or 0 for size in sizes]
        raw, content = (f"{self._api}/{what}/{quote(place.ref)}/" for what in ("raw", "content"))
        entries = []
        for (path, node), size in zip(rows, shown, strict=True):
            url = quote(path, safe="/")
            kind = "dir" if node.is_dir else "file"
            versioning = "dvc" if node.dvc else "git"
            word = node.oid if node.dvc or self._behaviour.blob_hash else place.commit
            entries.append(EntryJson(go_text(path), kind, size, word, versioning, raw + url, content + url))
        return entries

    def _find(self, key: tuple[Place, bool]) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[Place, bool], data: bytes) -> None:
        with self._lock:
            if key not in self._kept and len(data) <= _KEPT_BYTES:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def sizes_of(nodes: list[Node], git: GitRepository, cache: DvcCache) -> list[int | None]:
    """Give the sizes of files; 0 for directories, None for what the DVC cache does not have."""
    blobs = [node.oid for node in nodes if not node.dvc and not node.is_dir]
    known = dict(zip(blobs, git.sizes(blobs), strict=True))
    return [
        cache.size(node.oid, legacy=node.legacy) if node.dvc and not node.is_dir else known.get(node.oid, 0)
        for node in nodes
    ]


def go_text(name: bytes) -> str:
    """Decode a name as Go's JSON does: each byte that is not UTF-8 becomes one U+FFFD."""
    text = ""
    while True:
        try:
            return text + name.decode()
        except UnicodeDecodeError as error:
            text += name[: error.start].decode() + "\N{REPLACEMENT CHARACTER}"
            name = name[error.start + 1 :]
