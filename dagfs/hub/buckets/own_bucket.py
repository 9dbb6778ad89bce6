"""The repository's own bucket, through the hub's S3 endpoint; its listing tells ETags."""

from __future__ import annotations

from dagfs.errors import NotFound
from dagfs.hub.asking import Asker
from dagfs.hub.buckets import s3
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.listing import MAX_HASH
from dagfs.model import Entry, Kind, RepoRef, Span, Versioning


class OwnBucket:
    """`top`: the path that the bucket is shown at. Blocks; raises what `source.Source` says."""

    def __init__(self, repo: RepoRef, asker: Asker, top: str) -> None:
        self._repo = repo
        self._asker = asker
        self._top = top

    def has_objects(self) -> bool:
        """Raises NotFound, AccessDenied where there is no such bucket."""
        page = self._objects(s3.listing_url(self._repo, "", most=1))
        return bool(page.objects or page.prefixes)

    def page(self, folder: str, token: str | None) -> tuple[list[Entry], str | None]:
        """Give a page of a folder's children, "" for the bucket, and the token of the next."""
        prefix = f"{folder}/" if folder else ""
        page = self._objects(s3.listing_url(self._repo, prefix, token))
        found = [self._entry(row) for row in page.objects if row.key != prefix]  # the folder's own mark
        folders = [f"{self._top}/{name.removesuffix('/')}" for name in page.prefixes]
        return found + [Entry(path, Kind.DIRECTORY, Versioning.BUCKET) for path in folders], page.token

    def describe(self, key: str) -> Entry:
        """Describe a folder first: where a key is both, the listing shows the folder. Raises NotFound."""
        below = self._objects(s3.listing_url(self._repo, f"{key}/", most=1, folded=False))
        if below.objects:
            return Entry(f"{self._top}/{key}", Kind.DIRECTORY, Versioning.BUCKET)
        for row in self._objects(s3.listing_url(self._repo, key, most=1, folded=False)).objects:
            if row.key == key:
                return self._entry(row)
        raise NotFound(f"{self._top}/{key}")

    def request(self, key: str, span: Span | None) -> Request:
        """Give what to ask for an object's bytes."""
        return Request(s3.object_url(self._repo, key), Lane.RAW, span, signs=True)

    def _objects(self, url: str) -> s3.ObjectPage:
        request = Request(url, Lane.LISTING, signs=True)
        return self._asker.until_answered(lambda: s3.parse(self._asker.body(request, s3.MAX_XML_BYTES)))

    def _entry(self, row: s3.Object) -> Entry:
        return Entry(f"{self._top}/{row.key}", Kind.FILE, Versioning.BUCKET, row.etag[:MAX_HASH], row.size)
