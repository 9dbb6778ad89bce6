"""The seam to what keeps content by its MD5 in DVC's layout: a DVC remote, or the tier that machines share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.model import Content, Span


def object_key(name: str) -> str:
    """Give where DVC 3 keeps an object; `name` is an MD5, with ".dir" for a manifest."""
    return f"files/md5/{name[:2]}/{name[2:]}"


def legacy_key(name: str) -> str:
    """Give where DVC 2 keeps an object."""
    return f"{name[:2]}/{name[2:]}"


class Wanted(NamedTuple):
    """A file's bytes, which an origin is asked for. `span`: as the fetcher asks; None is the whole of a small file."""

    content: Content
    span: Span | None

    @property
    def md5(self) -> str:
        return self.content.key.digest


class Origin(Protocol):
    """`hubremote.HubRemote` speaks to the hub, `bucket.Bucket` to object stores and directories."""

    vouches: bool
    """Whether its word for a file's size is as good as the hub's."""

    def get(self, key: str, span: Span | None, sink: BodySink) -> Transfer:
        """Start to transfer an object, or the bytes of `span`, and return at once.

        `sink.done` gets NotFound when the origin does not have it, AccessDenied, Stalled, RemoteUnavailable,
        ProtocolError or None.
        """

    def close(self) -> None: ...


class Body(NamedTuple):
    """An object that is being read. `pieces` raises as the store's methods do."""

    head: BodyHead
    pieces: Iterator[bytes]


class ObjectStore(Origin, Protocol):
    """An origin that can be written. Everything but `get` and `submit` blocks, within deadlines of its own, and raises
    NotFound, AccessDenied or RemoteUnavailable. `memory.MemoryObjects` is the fake."""

    def open(self, key: str, span: Span | None) -> Body: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there; False when it is."""

    def write(self, key: str, data: bytes | Iterable[bytes]) -> None:
        """Write an object, all of it or nothing; what `data` raises is passed on."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is none to remove."""

    def clear(self, prefix: str) -> None:
        """Remove all objects below a prefix."""

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of the store's. Raises RemoteUnavailable after `close`."""
