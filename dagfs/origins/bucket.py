"""Object stores and directories as origins, through obstore: s3, gs, azure, http, file. The only room that knows it."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dagfs.errors import AccessDenied, DagfsError, NotFound, RemoteUnavailable, Stalled, UsageError
from dagfs.hub.source import BodyHead, BodySink
from dagfs.hub.urls import redact
from dagfs.model import Span
from dagfs.origins.seam import Body

THREADS = 32
"""At work at once, as many as the fetcher's transfers: each spends its time in Rust, without the interpreter's lock."""

CONNECT_SECONDS = 3
SILENCE_SECONDS = 5
"""An origin is there to be faster than the hub: one that is not is left alone. With the one retry, a reader waits twice
as long, once."""

RETRIES = 1
RETRY_SECONDS = 15
PIECE_BYTES = 256 << 10
PART_BYTES = 8 << 20
"""Of an upload in parts: S3 takes 10,000 of them, and wants 5 MiB at least."""


_ROLES = ("/latest/api/token", "/computeMetadata/", "/metadata/identity/")
"""Where the clouds keep the keys of a machine's role: asked last, so who fails there has found none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is. `config`: the library's own names of endpoint, credentials and so on; never shown."""

    url: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return redact(self.url)


class Bucket:
    """Implements `seam.ObjectStore`. The library is loaded and the connection made at the first use: a process that
    forks must not have its threads."""

    def __init__(self, address: Address, *, writes: bool = False) -> None:
        self.vouches = False
        self._address = address
        self._writes = writes
        self._connecting = threading.Lock()  # guards _store; held while the library is loaded
        self._store: Any = None
        self._lock = threading.Lock()  # guards the two below
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def get(self, key: str, span: Span | None, sink: BodySink) -> Pull:
        pull = Pull(sink)
        self.submit(lambda: pull.run(lambda: self.open(key, span)))
        return pull

    def open(self, key: str, span: Span | None) -> Body:
        with _told():
            found = self._get(key, span)
            tag = found.meta.get("e_tag")
            head = BodyHead(found.range[0], found.meta["size"], ranged=span is not None, validator=tag)
            return Body(head, _pieces(found.stream(min_chunk_size=PIECE_BYTES)))

    def create(self, key: str, data: bytes) -> bool:
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        with _told():
            try:
                obstore.put(self._opened(), key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def write(self, key: str, data: bytes | Iterable[bytes]) -> None:
        import obstore  # noqa: PLC0415

        in_parts = not isinstance(data, bytes)
        with _told():
            obstore.put(self._opened(), key, data, use_multipart=in_parts, chunk_size=PART_BYTES, max_concurrency=2)

    def remove(self, keys: Sequence[str]) -> None:
        try:
            self._remove(list(keys))
        except NotFound:  # S3 alone does not mind: elsewhere one that is gone already would leave the others behind
            for key in keys:
                with contextlib.suppress(NotFound):
                    self._remove([key])

    def clear(self, prefix: str) -> None:
        import obstore  # noqa: PLC0415

        with _told():
            found = [entry["path"] for page in obstore.list(self._opened(), prefix) for entry in page]
        if found:
            self.remove(found)

    def submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise RemoteUnavailable(f"{self._address} is closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="origin")
            self._pool.submit(work)

    def close(self) -> None:
        """Let nothing begin any more; what runs ends by its own deadlines, and nobody waits for it."""
        with self._lock:
            self._closed = True
            pool = self._pool
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _remove(self, keys: list[str]) -> None:
        import obstore  # noqa: PLC0415

        with _told():
            obstore.delete(self._opened(), keys)

    def _get(self, key: str, span: Span | None) -> Any:
        import obstore  # noqa: PLC0415 -- 15 MB that other mounts do without
        from obstore.exceptions import NotSupportedError  # noqa: PLC0415

        if span is None:
            return obstore.get(self._opened(), key)
        try:
            return obstore.get(self._opened(), key, options={"range": (span.start, span.end)})
        except NotSupportedError:  # a web server without ranges has small files all the same
            found = obstore.get(self._opened(), key)
            if span.start or found.meta["size"] > span.end:
                raise
            return found

    def _opened(self) -> Any:
        with self._connecting:
            if self._store is None:
                self._store = _connect(self._address, self._writes)
            return self._store


class Pull:
    """An object on its way to a sink (`source.Transfer`), carried by one thread."""

    def __init__(self, sink: BodySink) -> None:
        self._sink = sink
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def run(self, open_body: Callable[[], Body]) -> None:
        try:
            if not self._cancelled:
                body = open_body()
                self._sink.head(body.head)
                self._carry(body.pieces)
            error: DagfsError | None = RemoteUnavailable("the transfer was cancelled") if self._cancelled else None
        except DagfsError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 -- whoever waits must hear of it
            error = RemoteUnavailable(repr(failure))
        self._sink.done(error)

    def _carry(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            if self._cancelled:
                return
            self._sink.data(piece)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn the library's errors into ours; those of whoever gives the data are left alone."""
    try:
        yield
    except BaseException as error:
        told = _named(error)
        if told is None:
            raise
        raise told from None


def _named(error: BaseException) -> DagfsError | None:
    from obstore import exceptions  # noqa: PLC0415

    text = re.sub(r"\?\S*", "", str(error).split("\n", 1)[0].split(": <?xml", 1)[0])[:300]  # a query may hold a key
    if isinstance(error, FileNotFoundError):
        return NotFound(text)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return AccessDenied(text)
    if any(place in text for place in _ROLES):
        return AccessDenied("no keys for it were found, and this machine has no role that could have some")
    if "kind: Timeout" in str(error) or "source: TimedOut" in str(error):  # it has no error of its own for that
        return Stalled(text)
    panicked = type(error).__name__ == "PanicException"  # of Rust; no Exception, and whoever waits must hear of it
    if panicked or isinstance(error, (exceptions.BaseError, OSError)) or type(error) is ValueError:
        return RemoteUnavailable(text)
    return None


def _pieces(stream: Any) -> Iterator[bytes]:
    while True:
        with _told():
            piece = next(stream, None)
        if piece is None:
            return
        yield bytes(piece)


def _connect(address: Address, writes: bool) -> Any:
    from obstore import store  # noqa: PLC0415

    from_url: Any = store.from_url  # its overloads want to know the scheme
    if address.url.startswith("file:"):
        return from_url(address.url, mkdir=writes)
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENCE_SECONDS),
        "timeout": timedelta(days=1),  # of a whole body, which may be of any size: the silence is what counts
        "allow_http": True,
        "default_headers": dict(address.headers),
        "user_agent": "dagfs",
    }
    again = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    config = {} if address.url.startswith("http") else {"config": dict(address.config)}
    return from_url(address.url, client_options=options, retry_config=again, **config)


def check_installed() -> None:
    """Raises UsageError where the library is missing; does not load it."""
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("obstore") is None:
        raise UsageError("object stores and DVC remotes need obstore: pip install obstore")
