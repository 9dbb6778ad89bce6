"""The repository as a read-only S3 bucket: the files of the default branch, DVC's among them, path style.

DagsHub's endpoint is /api/v1/repo-buckets/s3/OWNER, its bucket the repository's name, both keys of it the token; the
signature is not checked here, only whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import formatdate
from html import escape
from urllib.parse import parse_qsl, quote

from dagfs.devhub.behaviour import Behaviour
from dagfs.devhub.content import Stock
from dagfs.devhub.gate import Gate
from dagfs.devhub.keys import KeyTables, Row, Wanted
from dagfs.devhub.listing import go_text, sizes_of
from dagfs.devhub.objects import Stored, open_file
from dagfs.devhub.raw import content_response
from dagfs.devhub.snapshot import Node
from dagfs.devhub.wire import Exchange, Request, Response, in_memory
from dagfs.errors import NotFound

MOST_KEYS = 1000
"""Keys of a page, as everywhere in S3."""

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*?Credential=([^/,\s]+)|AWS ([^:\s]+):")


class S3Error(Exception):
    """An answer that names one of S3's errors."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class S3:
    """Answers for the one bucket; thread-safe. `owner` and `bucket` are the repository's."""

    def __init__(self, stock: Stock, behaviour: Behaviour, owner: str, bucket: str, gate: Gate) -> None:
        self.root = f"/api/v1/repo-buckets/s3/{owner}".encode()
        self._stock = stock
        self._behaviour = behaviour
        self._bucket = bucket
        self._gate = gate
        self._tables = KeyTables()

    def __call__(self, exchange: Exchange) -> Response:
        """Answer a request whose path begins with `root`. Raises HttpError 416."""
        exchange.kind = "s3"
        try:
            return self._answer(exchange)
        except S3Error as error:
            return _refusal(error)

    def _answer(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.method not in ("GET", "HEAD"):
            raise S3Error(405, "MethodNotAllowed", "this bucket is read-only")
        access_key = _access_key(request)
        if not self._gate.key(access_key):
            code = "InvalidAccessKeyId" if access_key else "AccessDenied"
            raise S3Error(403, code, "the access key is the hub's token")
        bucket, _, key = request.path[len(self.root) + 1 :].partition(b"/")
        if bucket != self._bucket.encode() or not self._behaviour.own_bucket:
            raise S3Error(404, "NoSuchBucket", "the bucket is named as the repository")
        commit = self._stock.git.head()
        if commit is None:
            raise S3Error(404, "NoSuchBucket", "the repository has no commit")
        if key:
            return self._object(exchange, commit, key)
        if "location" in request.query:
            return _xml("LocationConstraint", "")
        exchange.kind = "listing"
        return self._page(request, commit) if request.method == "GET" else Response()

    def _object(self, exchange: Exchange, commit: str, key: bytes) -> Response:
        exchange.path = key.decode("utf-8", "surrogateescape")
        try:
            stored = self._open(exchange, commit, key)
        except NotFound:
            raise S3Error(404, "NoSuchKey", "no such object") from None
        response = content_response(exchange.request, stored, self._behaviour)
        response.headers["Last-Modified"] = formatdate(self._stock.git.describe(commit).time, usegmt=True)
        return response

    def _open(self, exchange: Exchange, commit: str, key: bytes) -> Stored:
        """Open an object until the answer is sent. Raises NotFound."""
        node = self._stock.snapshots.get(commit).lookup(key)
        if node.is_dir:
            raise NotFound("a directory has no bytes")
        if not node.dvc:
            return exchange.held.enter_context(self._stock.blobs.open(node.oid))
        paths = self._stock.cache.paths(node.oid, legacy=node.legacy)
        return exchange.held.enter_context(open_file(paths, _tag(node)))

    def _page(self, request: Request, commit: str) -> Response:
        query = dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True, errors="surrogateescape"))
        version_2 = query.get("list-type") == "2"
        wanted = _wanted(query, version_2)
        rows, more = self._tables.page(commit, self._stock.snapshots.get(commit), wanted)
        as_url = query.get("encoding-type") == "url"
        parts = [_element("Name", self._bucket), _element("MaxKeys", wanted.limit), _element("IsTruncated", more)]
        parts += [_element(name, _text(wanted_text, as_url)) for name, wanted_text in _echo(query, version_2)]
        if as_url:
            parts.append(_element("EncodingType", "url"))
        if version_2:
            parts.append(_element("KeyCount", len(rows)))
        if more:
            last = rows[-1].key
            name, text = ("NextContinuationToken", last.hex()) if version_2 else ("NextMarker", _text(last, as_url))
            parts.append(_element(name, text))
        parts += self._rendered(rows, commit, as_url)
        return _xml("ListBucketResult", "".join(parts))

    def _rendered(self, rows: list[Row], commit: str, as_url: bool) -> list[str]:
        """Give the elements of a page's rows; an object that DVC's cache does not have is none."""
        moment = datetime.fromtimestamp(self._stock.git.describe(commit).time, timezone.utc)
        modified = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        sizes = sizes_of([row.node for row in rows], self._stock.git, self._stock.cache)
        elements = []
        for row, size in zip(rows, sizes, strict=True):
            key = _text(row.key, as_url)
            if row.node.is_dir:
                elements.append(f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>")
            elif size is not None:
                elements.append(
                    f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>"
                    f'<ETag>"{_tag(row.node)}"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
                )
        return elements


def _tag(node: Node) -> str:
    """Give what an ETag has: the MD5 where it is known, else what nobody takes for one.

    DVC 2's MD5 of a text file may be that of other line ends; "-1" is how S3 marks an ETag that is no MD5.
    """
    return f"{node.oid}-1" if node.legacy else node.oid


def _access_key(request: Request) -> str | None:
    """Give whose signature a request has, by its header (both versions) or its query."""
    match = _CREDENTIAL.match(request.headers.get("authorization", ""))
    if match:
        return match[1] or match[2]
    presigned = request.query.get("X-Amz-Credential")
    return presigned.partition("/")[0] if presigned else None


def _wanted(query: Mapping[str, str], version_2: bool) -> Wanted:
    """Raises S3Error for what no client of a mount asks."""
    if query.get("delimiter", "") not in ("", "/"):
        raise S3Error(501, "NotImplemented", "the only delimiter here is /")
    try:
        limit = min(int(query.get("max-keys") or MOST_KEYS), MOST_KEYS)
        token = bytes.fromhex(query.get("continuation-token", ""))
    except ValueError:
        raise S3Error(400, "InvalidArgument", "max-keys is a number, continuation-token is what a page gave") from None
    after = _bytes(query.get("start-after" if version_2 else "marker", ""))
    return Wanted(_bytes(query.get("prefix", "")), max(token, after), bool(query.get("delimiter")), max(limit, 0))


def _echo(query: Mapping[str, str], version_2: bool) -> list[tuple[str, bytes]]:
    """Give the elements that repeat what was asked."""
    names = {"Prefix": "prefix", "Delimiter": "delimiter"}
    names |= {"StartAfter": "start-after"} if version_2 else {"Marker": "marker"}
    return [(name, _bytes(query[word])) for name, word in names.items() if word in query]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(name: bytes, as_url: bool) -> str:
    return quote(name, safe="/") if as_url else escape(go_text(name), quote=False)


def _element(name: str, value: str | int) -> str:
    return f"<{name}>{str(value).lower() if isinstance(value, bool) else value}</{name}>"


def _xml(name: str, inside: str) -> Response:
    body = f'{_DECLARATION}<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</{name}>'
    return in_memory(body.encode("utf-8", "replace"), "application/xml")


def _refusal(error: S3Error) -> Response:
    inside = f"{_element('Code', error.code)}{_element('Message', str(error))}"
    return in_memory(f"{_DECLARATION}<Error>{inside}</Error>".encode(), "application/xml", error.status)
