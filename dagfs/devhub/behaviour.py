"""How a hub may behave: what the contract leaves open, and faults on command. For tests, through Python only."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Gzip(enum.Enum):
    """When bodies are compressed."""

    NEVER = "never"
    ACCEPTED = "when the client accepts it"
    ALWAYS = "even when the client asked for identity"


class Redirect(enum.Enum):
    """Where raw content is."""

    NONE = "at the address asked for"
    SAME = "at a signed address of the same origin"
    OTHER = "at a signed address of another origin, which refuses any Authorization"


class LastToken(enum.Enum):
    """What `next_token` is on the last page of a bucket's listing."""

    MISSING = "missing"
    NULL = "null"
    EMPTY = "empty"


class Paging(enum.Enum):
    """How the pages of a bucket's listing follow one another."""

    PROPER = "each once"
    REPEATED = "every page names the same next page"
    ENDLESS = "the first page for ever, each time under another name"
    BARREN = "empty pages for ever"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One of the hubs that the contract allows.

    `signature_seconds`: how long a redirect's target stays valid. `connection_bandwidth`: bytes per second that one
    connection gets at most, as of an object store that throttles each of them; None is no limit.
    """

    ranges: bool = True
    length: bool = True  # False: bodies are chunked, and their length is not announced
    etag: bool = True
    head: bool = True  # False: HEAD is answered 405
    gzip: Gzip = Gzip.NEVER
    redirect: Redirect = Redirect.NONE
    signature_seconds: float = 300.0
    size_when_unsized: bool = True  # False: the key is absent where it would be 0
    blob_hash: bool = True  # False: `hash` of git entries is the commit's sha
    last_token: LastToken = LastToken.NULL
    folder_lists_itself: bool = False  # the first entry of a bucket's folder is the folder
    paging: Paging = Paging.PROPER
    root_lists_storages: bool = True  # False: connected buckets are no entries of the root's listing
    own_bucket: bool = True  # False: the repository has no bucket of its own, at the S3 endpoint
    connection_bandwidth: float | None = None


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a fault may depend on.

    `kind` is listing, raw, rest, storage, dvc, s3 or redirect (S3's pages of keys are listings); `path` is within the
    repository for listing, raw and s3, else the URL's; `span` the Range header as sent; `number` counts the earlier
    requests of this kind for this path.
    """

    method: str
    kind: str
    path: str
    span: str | None
    number: int


DRIP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer; offsets count the bytes of its body.

    `delay` in seconds, before anything is sent. `status` replaces the answer, with `retry_after` as its Retry-After.
    `cut_after` closes the connection in mid-body, `reset_after` resets it, `stall_after` sends nothing more for
    `stall_seconds` (until the client leaves or the hub stops, when None) and then goes on. `flip` inverts one byte.
    `length_error` is added to the announced length, `start_error` to the first byte that Content-Range names.
    `drip`: so many bytes come singly, DRIP_SECONDS apart, before the rest. `gzip` compresses an answer that is no span.
    `truncate` leaves so many bytes out at the end, without a word. `misplaced` sends the file's first bytes instead of
    those of the span.
    """

    delay: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    stall_seconds: float | None = None
    flip: int | None = None
    length_error: int = 0
    start_error: int = 0
    drip: int = 0
    gzip: bool = False
    truncate: int = 0
    misplaced: bool = False


FaultHook = Callable[[RequestInfo], "Fault | None"]


def no_fault(_request: RequestInfo) -> Fault | None:
    return None
