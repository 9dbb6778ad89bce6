"""The values that travel between the rooms: frozen, printable, without behaviour that needs a room."""

from __future__ import annotations

import enum
import hashlib
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, Union

T = TypeVar("T")
Answer = Union[T, "Future[T]"]
"""An answer that is known now, or the promise of it. What is known without the network is returned (or raised)
at once; the rest is a Future that ends with the value or with a DagfsError. Whoever has the bytes completes it."""


def printable(text: str) -> str:
    """Give a name fit for one line of a log or terminal, whatever bytes it has: others are written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Kind(enum.IntEnum):
    """What a path is; the values are those of `d_type` in a directory entry."""

    DIRECTORY = 4
    FILE = 8
    SYMLINK = 10


class Versioning(enum.IntEnum):
    """Which of the hub's stores holds a path."""

    GIT = 0
    DVC = 1
    BUCKET = 2


class Urgency(enum.IntEnum):
    """The classes of the fetch queue, the most urgent first."""

    READER = 0  # a program waits for these bytes
    READ_AHEAD = 1  # the next bytes of a file that is being read
    PREFETCH = 2  # a guess at the next file
    BET = 3  # a guess without an order to go by: only in what waiting readers leave of the link
    WARM_UP = 4  # asked for by `dagfs warm`


class RefKind(enum.Enum):
    """What the name of a revision may mean, where a repository has a branch, a tag or a commit of one name."""

    ANY = "a full sha is a commit, other names are branches first"
    BRANCH = "a branch"
    COMMIT = "a tag or a sha before a branch, as git itself decides"


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repository on a hub. `host` is the hub's URL without a trailing slash; it may have a path."""

    host: str
    owner: str
    name: str

    @property
    def slug(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{self.host}/{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: `sha` has 40 hex digits, `time` is in seconds since the epoch."""

    sha: str
    time: float
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes [start, end) of a file."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class ContentId(NamedTuple):
    """What bytes are, wherever they lie. A tuple, since everything is found by it. `scheme` is one of

    md5       MD5 of the bytes: what DVC names, and what the store keeps whole files by
    git       git's blob id: sha1 of "blob SIZE\\0" and the bytes
    location  sha256 of (repository, commit, path): identity of last resort, sound because a commit never changes
    object    sha256 of (repository, bucket path, ETag): an unversioned object; where its ETag is not known, with the
              mark of the snapshot that it was listed in instead: in another one it may be another object
    """

    scheme: str
    digest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.digest}"


STORAGES = ".dagshub"
"""Where connected buckets are shown, as the DagsHub client does: at STORAGES/storage/PROTOCOL/BUCKET."""

_MERGED_DEPTH = 3
"""Names of STORAGES/storage/PROTOCOL: down to it, a directory may have files of git beside the buckets."""


def in_storages(path: str) -> bool:
    return path == STORAGES or path.startswith(f"{STORAGES}/")


def in_a_bucket(path: str) -> bool:
    """Tell whether a path belongs to no commit, but to a bucket alone."""
    return path.startswith(f"{STORAGES}/storage/") and path.count("/") >= _MERGED_DEPTH


class Entry(NamedTuple):
    """A path of a commit, as the hub describes it. A tuple: half a million of them are made for one listing.

    `path` is relative to the repository's root, "" for the root. `hash` is the hub's word and opaque unless
    `versioning` is DVC, where it is the MD5 of the content, or BUCKET, where it is the object's ETag, or the mark of
    the snapshot that it was listed in. `size` in bytes; None while unknown.
    """

    path: str
    kind: Kind
    versioning: Versioning
    hash: str = ""
    size: int | None = None


class Content(NamedTuple):
    """A file's bytes: how they are called, how they are proved, and where to ask for them.

    Equal `key`s mean equal bytes: flights, blocks and stored files are found by it. `claim` is what the bytes must
    hash to (md5: an error when they do not), or may (git: the hub's hash is a blob id on some hubs only, so a match
    proves it and a mismatch proves nothing). `size` in bytes; None while unknown. `commit`: where `entry` is a path of;
    None is the one that the mount began with.
    """

    key: ContentId
    entry: Entry
    claim: ContentId | None = None
    size: int | None = None
    commit: Commit | None = None

    @property
    def hashed(self) -> bool:
        """The bytes must have a claimed MD5: whatever comes, wrong ones are found."""
        return self.claim is not None and self.claim.scheme == "md5"


@dataclass(frozen=True, slots=True)
class Proof:
    """What hashing all bytes of a file has shown: their `md5`, and the ids that they are `proved` to have."""

    md5: str
    proved: tuple[ContentId, ...]


_is_md5 = re.compile("[0-9a-fA-F]{32}").fullmatch
_is_sha1 = re.compile("[0-9a-fA-F]{40}").fullmatch


def content_of(repo: RepoRef, commit: Commit, entry: Entry) -> Content:
    """Give the identity of a file's bytes: its MD5 where DVC names one, else its place in the commit, or what the
    listing of a bucket said of it."""
    if entry.versioning is Versioning.BUCKET:
        return Content(object_id(repo, entry.path, entry.hash), entry, None, entry.size, commit)
    if entry.versioning is Versioning.DVC and _is_md5(entry.hash):
        md5 = ContentId("md5", entry.hash.lower())
        return Content(md5, entry, md5, entry.size, commit)
    claim = ContentId("git", entry.hash.lower()) if _is_sha1(entry.hash) else None
    return Content(_location(repo, commit, entry), entry, claim, entry.size, commit)


def _location(repo: RepoRef, commit: Commit, entry: Entry) -> ContentId:
    where = "\0".join((repo.host, repo.owner, repo.name, commit.sha, entry.path))
    return ContentId("location", hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest())


def object_id(repo: RepoRef, path: str, tag: str) -> ContentId:
    """Give the identity of an object by its ETag, or by the mark of a snapshot."""
    where = "\0".join((repo.host, repo.owner, repo.name, path, tag))
    return ContentId("object", hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest())


_MARK = "~"


def snapshot_mark(snapshot: str) -> str:
    """Give what stands for the ETag of an object whose listing told none."""
    return f"{_MARK}{snapshot}"


def etag_of(entry: Entry) -> str:
    """Give the ETag that an object was listed with, "" when none was told."""
    return "" if entry.hash.startswith(_MARK) or entry.versioning is not Versioning.BUCKET else entry.hash
