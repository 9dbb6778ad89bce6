"""Local folders shown as buckets that are connected to the repository."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dagfs.devhub.behaviour import Behaviour, LastToken, Paging
from dagfs.devhub.listing import EntryJson, go_text
from dagfs.devhub.objects import Stored, open_file
from dagfs.errors import NotFound, UsageError

PROTOCOLS = ("s3", "gs", "azure")
DEFAULT_LIMIT = 100
"""Entries of a page when the client names no number."""


_FOLDERS_KEPT = 16
"""Folders whose sorted names are in memory: a client asks for page after page of the same."""


class Storages:
    """The buckets of one repository: "PROTOCOL:BUCKET" or "PROTOCOL:BUCKET/PREFIX" -> folder.

    `api` is the URL of the repository's API.
    """

    def __init__(self, folders: Mapping[str, Path], api: str, behaviour: Behaviour) -> None:
        self._api = f"{api}/storage"
        self._behaviour = behaviour
        self._roots: dict[bytes, Path] = {}  # "PROTOCOL/BUCKET" -> its folder
        self._lock = threading.Lock()
        self._names: OrderedDict[tuple[Path, int], list[bytes]] = OrderedDict()  # under the lock; by folder and mtime
        for name, folder in folders.items():
            protocol, colon, bucket = name.partition(":")
            if protocol not in PROTOCOLS or not colon or not all(bucket.split("/")) or not folder.is_dir():
                raise UsageError(f"{name}={folder}: a storage is s3:BUCKET, gs:BUCKET or azure:BUCKET, and a folder")
            self._roots[f"{protocol}/{bucket}".encode()] = folder.resolve()

    def describe(self) -> list[dict[str, str]]:
        """Give the answer to GET storage."""
        rows = [root.decode().split("/", 1) for root in self._roots]
        url = f"{self._api}/content"
        return [{"name": b, "protocol": p, "list_path": f"{url}/{p}/{quote(b)}"} for p, b in rows]

    def root_entries(self) -> Iterator[EntryJson]:
        """Give the entries of type `storage` that a root listing ends with."""
        if not self._behaviour.root_lists_storages:
            return
        for row in self.describe():
            path = f"{row['protocol']}/{row['name']}"
            yield EntryJson(path, "storage", 0, "", "bucket", "", row["list_path"])

    def open(self, parts: list[bytes]) -> AbstractContextManager[Stored]:
        """Open an object. Raises NotFound."""
        return open_file([str(self._locate(parts))])

    def content(self, parts: list[bytes], query: Mapping[str, str]) -> dict[str, Any]:
        """Give a page of a folder's entries, or the entry of an object. Raises NotFound."""
        path, where = self._locate(parts), b"/".join(parts)
        if not path.is_dir():
            return self._entry(where, path)._asdict()
        limit = max(1, int(query["limit"])) if query.get("limit", "").isdigit() else DEFAULT_LIMIT
        token = query.get("from_token", "")
        later = [name for name in self._sorted_names(path) if name.hex() > token]
        if self._behaviour.paging is not Paging.PROPER:
            return self._round_in_circles(token, limit, where, path)
        page = later[:limit]
        entries = self._entries(page, where, path)
        if self._behaviour.folder_lists_itself and not token:
            entries.insert(0, self._entry(where, path))
        answer: dict[str, Any] = {"entries": [entry._asdict() for entry in entries], "limit": limit}
        if len(later) > limit:
            answer["next_token"] = page[-1].hex()
        elif self._behaviour.last_token is not LastToken.MISSING:
            answer["next_token"] = "" if self._behaviour.last_token is LastToken.EMPTY else None
        return answer

    def _round_in_circles(self, token: str, limit: int, where: bytes, path: Path) -> dict[str, Any]:
        paging = self._behaviour.paging
        number = int(token) + 1 if token.isdigit() else 1
        names = [] if paging is Paging.BARREN else self._sorted_names(path)[:limit]
        entries = [entry._asdict() for entry in self._entries(names, where, path)]
        return {"entries": entries, "limit": limit, "next_token": "again" if paging is Paging.REPEATED else str(number)}

    def _entries(self, names: list[bytes], where: bytes, path: Path) -> list[EntryJson]:
        """Give the entries of a page; what leads out of the bucket's folder is left out."""
        found = [(name, path / os.fsdecode(name)) for name in names]
        return [self._entry(where + b"/" + name, child) for name, child in found if self._inside(child)]

    def _sorted_names(self, path: Path) -> list[bytes]:
        key = path, path.stat().st_mtime_ns
        with self._lock:
            names = self._names.get(key)
        if names is None:
            names = sorted(os.listdir(os.fsencode(path)))
        with self._lock:
            self._names[key] = names
            self._names.move_to_end(key)
            while len(self._names) > _FOLDERS_KEPT:
                self._names.popitem(last=False)
        return names

    def _entry(self, key: bytes, path: Path) -> EntryJson:
        status = path.stat()
        is_dir = stat.S_ISDIR(status.st_mode)
        url = quote(key, safe="/")
        raw, content = ("" if is_dir else f"{self._api}/raw/{url}"), f"{self._api}/content/{url}"
        kind, size = ("dir", 0) if is_dir else ("file", status.st_size)
        return EntryJson(go_text(key), kind, size, "", "bucket", raw, content)

    def _locate(self, parts: list[bytes]) -> Path:
        """Give the file or folder of PROTOCOL/BUCKET/KEY. Raises NotFound, also for what leads out of the folder."""
        if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise NotFound("no such bucket or object")
        # of `bucket` and `bucket/prefix` the longer one
        length = next((n for n in range(len(parts), 1, -1) if b"/".join(parts[:n]) in self._roots), 0)
        if not length:
            raise NotFound("no such bucket or object")
        path = self._roots[b"/".join(parts[:length])].joinpath(*map(os.fsdecode, parts[length:]))
        if not self._inside(path):
            raise NotFound("no such object")
        return path

    def _inside(self, path: Path) -> bool:
        """Tell whether a path exists and its symlinks stay within a bucket's folder."""
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        regular = real.is_file() or real.is_dir()
        return regular and any(real.is_relative_to(root) for root in self._roots.values())
