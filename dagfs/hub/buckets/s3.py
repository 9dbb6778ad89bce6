"""The hub's S3 endpoint, at which the repository has a bucket of its own: addresses, and pages of ListObjectsV2."""

from __future__ import annotations

import xml.parsers.expat  # nosec B405 -- no document type is let in, and so no entity
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_plus

from dagfs.errors import ProtocolError
from dagfs.hub import urls
from dagfs.hub.reply import plain_tag
from dagfs.model import RepoRef

MAX_XML_BYTES = 16 << 20
"""Of one page: a thousand keys of a thousand bytes, each byte spelled as three, leave most of it unused."""


@dataclass(slots=True)
class Object:
    """A key and what the listing says of it. `size` in bytes; `etag` without its quotes."""

    key: str
    size: int | None = None
    etag: str = ""


@dataclass(slots=True)
class ObjectPage:
    """One answer: objects, and the common prefixes of others, each with its slash at the end."""

    objects: list[Object] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    token: str | None = None


def listing_url(repo: RepoRef, prefix: str, token: str | None = None, *, most: int = 1000, folded: bool = True) -> str:
    """Give the URL of a page of keys that begin with `prefix`; `folded` at the next slash."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(most), "prefix": prefix}
    query |= {"delimiter": "/"} if folded else {}
    query |= {"continuation-token": token} if token else {}
    return f"{bucket_url(repo)}?{_query(query)}"


def bucket_url(repo: RepoRef) -> str:
    return f"{urls.api(repo.host)}/repo-buckets/s3/{urls.encode(repo.owner)}/{urls.encode(repo.name)}"


def object_url(repo: RepoRef, key: str) -> str:
    return f"{bucket_url(repo)}/{urls.encode(key)}"


def parse(data: bytes) -> ObjectPage:
    """Read a ListBucketResult. Raises ProtocolError."""
    reader = _Reader()
    try:
        return reader.read(data)
    except (xml.parsers.expat.ExpatError, ValueError, RecursionError) as error:
        raise ProtocolError(f"a bucket's listing that is not the XML of S3: {error}") from None


class _Reader:
    """Takes the elements of one page. Namespaces are not looked at: stores do not agree on them."""

    def __init__(self) -> None:
        self._page = ObjectPage()
        self._stack: list[str] = []
        self._text: list[str] = []
        self._row: dict[str, str] = {}

    def read(self, data: bytes) -> ObjectPage:
        parser = xml.parsers.expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse
        parser.Parse(data, True)
        return self._page

    def _refuse(self, *_: object) -> None:
        raise ProtocolError("a bucket's listing with a document type")

    def _begin(self, name: str, _attributes: Mapping[str, str]) -> None:
        if not self._stack and name != "ListBucketResult":
            raise ProtocolError(f"{name[:80]} instead of a bucket's listing")
        if len(self._stack) > 16:
            raise ProtocolError("a bucket's listing that is nested too deep")
        self._stack.append(name)
        self._text.clear()
        if name in ("Contents", "CommonPrefixes"):
            self._row = {}

    def _end(self, name: str) -> None:
        self._stack.pop()
        text = "".join(self._text)
        self._text.clear()
        parent = self._stack[-1] if self._stack else ""
        if parent in ("Contents", "CommonPrefixes"):
            self._row[name] = text
        elif name == "Contents":
            size = self._row.get("Size", "")
            known = int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None
            self._page.objects.append(Object(_name(self._row.get("Key", "")), known, plain_tag(self._row.get("ETag"))))
        elif name == "CommonPrefixes":
            self._page.prefixes.append(_name(self._row.get("Prefix", "")))
        elif name == "NextContinuationToken":
            self._page.token = text


def _name(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def _query(words: Mapping[str, str]) -> str:
    return "&".join(
        f"{name}={quote(value.encode('utf-8', 'surrogateescape'), safe='')}" for name, value in words.items()
    )
