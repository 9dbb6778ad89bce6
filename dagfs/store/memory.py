"""A store without a disk: the fake of `seam.Store`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from dagfs.model import Content, ContentId, Proof, Span
from dagfs.proofs import prove
from dagfs.store.handles import MemoryFile
from dagfs.store.volatile import VolatileBlocks


class MemoryStore:
    """Keeps everything in dicts and counts calls: `calls` has "find", "put", "partial" and "publish"."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards everything below
        self._files: dict[ContentId, bytes] = {}
        self._partials: dict[ContentId, MemoryPartial] = {}
        self._values: dict[str, bytes] = {}

    def find(self, content: Content) -> MemoryFile | None:
        with self._lock:
            self.calls["find"] += 1
            data = self._data(content)
        return MemoryFile(data) if data is not None else None

    def has(self, content: Content) -> bool:
        with self._lock:
            return self._data(content) is not None

    def also_called(self, content: Content, name: ContentId) -> bool:
        with self._lock:
            data = self._data(content)
            if data is not None:
                self._files[name] = data
        return data is not None

    def awaken(self, content: Content) -> None:
        pass

    def size(self, content: Content) -> int | None:
        with self._lock:
            data, partial = self._data(content), self._partials.get(content.key)
        if data is not None:
            return len(data)
        return partial.size if partial is not None else None

    def put(self, content: Content, data: bytes, proof: Proof) -> None:
        with self._lock:
            self.calls["put"] += 1
            for name in (content.key, *proof.proved):
                self._files[name] = data

    def partial(self, content: Content, size: int) -> MemoryPartial:
        with self._lock:
            self.calls["partial"] += 1
            return self._partials.setdefault(content.key, MemoryPartial(self, content, size))

    def get_value(self, name: str) -> bytes | None:
        with self._lock:
            return self._values.get(name)

    def set_value(self, name: str, value: bytes) -> None:
        with self._lock:
            self._values[name] = value

    def set_values(self, values: Mapping[str, bytes]) -> None:
        with self._lock:
            self._values |= values

    def close(self) -> None:
        pass

    def whole(self, content: Content, data: bytes) -> None:
        """The last block of a large file has come, and it is proved."""
        self.put(content, data, prove(content, data))
        with self._lock:
            self.calls["publish"] += 1
            self._partials.pop(content.key, None)

    def _data(self, content: Content) -> bytes | None:
        found = self._files.get(content.key)
        return found if found is not None or content.claim is None else self._files.get(content.claim)


class MemoryPartial(VolatileBlocks):
    """Blocks of a large file in memory; at most as many as `VolatileBlocks` keeps."""

    def __init__(self, store: MemoryStore, content: Content, size: int) -> None:
        super().__init__(size)
        self._store = store
        self._content = content

    @property
    def completing(self) -> Span | None:
        everything = Span(0, self.size)
        return None if self.missing(everything) else everything

    def publish(self) -> bool:
        data = self.read(0, self.size)
        if data is None:
            return False
        self._store.whole(self._content, data)
        return True

    def close(self) -> None:
        pass
