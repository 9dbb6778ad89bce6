"""An object store in memory, scripted by the test: the fake of the `seam.ObjectStore` seam."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from dagfs.errors import DagfsError, NotFound
from dagfs.hub.source import BodyHead, BodySink
from dagfs.model import Span
from dagfs.origins.bucket import Pull
from dagfs.origins.seam import Body


class MemoryObjects:
    """`objects`: key -> bytes. `calls` counts "open KEY", "create KEY", "write KEY" and "remove KEY". `failing`: what
    every call raises, None while all is well. `tags`: key -> ETag. Work is run in threads of its own, or where it is
    submitted when `direct`."""

    def __init__(self, objects: dict[str, bytes] | None = None, *, direct: bool = False, vouches: bool = False) -> None:
        self.objects = objects if objects is not None else {}
        self.vouches = vouches
        self.calls: Counter[str] = Counter()
        self.tags: dict[str, str] = {}
        self.failing: DagfsError | None = None
        self._direct = direct
        self._lock = threading.Lock()  # guards the objects and counts

    def get(self, key: str, span: Span | None, sink: BodySink) -> Pull:
        pull = Pull(sink)
        self.submit(lambda: pull.run(lambda: self.open(key, span)))
        return pull

    def open(self, key: str, span: Span | None) -> Body:
        self._count("open", key)
        with self._lock:
            data = self.objects.get(key)
        if data is None:
            raise NotFound(key)
        start, end = (span.start, span.end) if span is not None else (0, len(data))
        return Body(BodyHead(start, len(data), span is not None, self.tags.get(key)), iter([data[start:end]]))

    def create(self, key: str, data: bytes) -> bool:
        self._count("create", key)
        with self._lock:
            return self.objects.setdefault(key, data) is data

    def write(self, key: str, data: bytes | Iterable[bytes]) -> None:
        self._count("write", key)
        whole = data if isinstance(data, bytes) else b"".join(data)
        with self._lock:
            self.objects[key] = whole

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._count("remove", key)
            with self._lock:
                self.objects.pop(key, None)

    def clear(self, prefix: str) -> None:
        self.remove([key for key in list(self.objects) if key.startswith(prefix)])

    def submit(self, work: Callable[[], None]) -> None:
        if self._direct:
            work()
        else:
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        pass

    def _count(self, what: str, key: str) -> None:
        with self._lock:
            self.calls[f"{what} {key}"] += 1
        if self.failing is not None:
            raise self.failing
