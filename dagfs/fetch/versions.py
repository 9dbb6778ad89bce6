"""Which version of an unversioned object is being read: whatever comes later must be of the same."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dagfs.errors import ContentChanged
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.hub.reply import plain_tag
from dagfs.model import Content, ContentId, RepoRef, Versioning, etag_of, object_id, snapshot_mark

KEPT = 65_536
"""Objects whose version is in memory; others are looked up."""


class Notes(Protocol):
    """What outlives the worker: its successor may find a part of an object in the cache, or in the kernel."""

    def get_value(self, name: str) -> bytes | None: ...
    def set_values(self, values: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Places:
    """Where versions are noted: `mount` has what its kernel may remember, `cache` what later mounts may want to know.

    `snapshot` names what a mount sees of buckets.
    """

    repo: RepoRef
    snapshot: str
    mount: Notes
    cache: Notes


class Versions:
    """The ETag of each object at its first answer. Thread-safe; `_lock` is a leaf.

    A path has one version as long as a mount lives, whatever a later look at the bucket told of it.
    """

    def __init__(self, places: Places, later: Callable[[Callable[[], None]], object]) -> None:
        """`later` runs what may wait a moment, in another thread."""
        self._places = places
        self._later = later
        self._lock = threading.Lock()  # guards everything below
        self._unnoted: list[tuple[Content, str]] = []  # what `later` has been asked to note; in one go, however many
        self._first: OrderedDict[ContentId, str] = OrderedDict()  # used last comes last
        self._asked: OrderedDict[ContentId, bool] = OrderedDict()  # of an earlier mount -> whether it is the same now

    def hold(self, content: Content, validator: str | None) -> None:
        """Compare an answer's ETag with that of the version that is read. Raises ContentChanged.

        A hub that tells none is believed: sizes are all that can be compared then.
        """
        tag = plain_tag(validator)
        if content.entry.versioning is not Versioning.BUCKET or not tag:
            return
        listed = etag_of(content.entry) or tag
        if tag != listed or tag != (self._known(self._key(content)) or self._begin(content, tag)):
            raise ContentChanged(f"{content.entry.path} has changed in the bucket since it was listed, or first read")
        with self._lock:
            if content.key in self._asked:
                self._asked[content.key] = True

    def earlier(self, content: Content) -> Content | None:
        """Give the content that an earlier mount has read at this path, with an ETag; None where none is known."""
        if content.entry.versioning is not Versioning.BUCKET or etag_of(content.entry):
            return None  # or its ETag is a part of its identity
        noted = (self._places.cache.get_value(self._path_name(content)) or b"").decode("utf-8", "replace")
        digest, _, tag = noted.partition(" ")
        key = ContentId(content.key.scheme, digest)
        if not tag or key == content.key or self._known(content.key):
            return None  # nothing was, or this mount has begun to read it
        self._remember(key, tag)
        return content._replace(key=key)

    def asks(self, earlier: Content) -> None:
        """Told before the ETag of an earlier mount's content is asked for."""
        with self._lock:
            self._asked.setdefault(earlier.key, False)
            if len(self._asked) > KEPT:
                self._asked.popitem(last=False)

    def confirmed(self, earlier: Content) -> bool:
        """Tell whether an answer has shown that version."""
        with self._lock:
            return self._asked.get(earlier.key, False)

    def adopt(self, content: Content, earlier: Content) -> None:
        """Note that a content is what an earlier mount has read."""
        tag = self._known(earlier.key)
        if tag is not None:
            self._begin(content, tag)

    def _known(self, key: ContentId) -> str | None:
        with self._lock:
            known = self._first.get(key)
        if known is None:
            stored = self._places.mount.get_value(_name(key))
            known = None if stored is None else self._remember(key, stored.decode("utf-8", "replace"))
        return known

    def _begin(self, content: Content, tag: str) -> str:
        first = self._remember(self._key(content), tag)
        if content.size is None or content.size > WHOLE_MAX:
            self._note([(content, tag)])  # before a block of it can lie on the disk
            return first
        with self._lock:
            self._unnoted.append((content, tag))
            alone = len(self._unnoted) == 1
        if alone:
            self._later(self._note_all)
        return first

    def _note_all(self) -> None:
        with self._lock:
            found, self._unnoted = self._unnoted, []
        self._note(found)

    def _note(self, versions: Sequence[tuple[Content, str]]) -> None:
        self._places.mount.set_values({_name(self._key(content)): tag.encode() for content, tag in versions})
        # The others are found by their ETag.
        untold = [(content, tag) for content, tag in versions if not etag_of(content.entry)]
        if untold:
            cache = {self._path_name(content): f"{content.key.digest} {tag}".encode() for content, tag in untold}
            self._places.cache.set_values(cache)

    def _key(self, content: Content) -> ContentId:
        """Give what an object is called by its path and this mount alone."""
        if not etag_of(content.entry):
            return content.key
        return object_id(self._places.repo, content.entry.path, snapshot_mark(self._places.snapshot))

    def _remember(self, key: ContentId, tag: str) -> str:
        """Give the tag that was there first."""
        with self._lock:
            first = self._first.setdefault(key, tag)
            self._first.move_to_end(key)
            if len(self._first) > KEPT:
                self._first.popitem(last=False)
        return first

    def _path_name(self, content: Content) -> str:
        """Name what was read last at a path, of this size."""
        where = f"{self._places.repo}\0{content.entry.path}\0{content.size}"
        return f"read/{hashlib.blake2b(where.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}"


def _name(key: ContentId) -> str:
    return f"version/{key.digest}"
