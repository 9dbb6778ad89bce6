"""Page after page of a listing, and never round in a circle."""

from __future__ import annotations

from dagfs.errors import ProtocolError

MAX_PAGES = 200_000
"""Of one listing. At the hub's hundred entries a page, more than a directory may have."""

MAX_PAGE_TOKEN = 16 << 10
"""Characters of what names the next page."""


class Pages:
    """The pages of one listing, of `path`. A hub that names the end by a missing, null or empty token has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: set[int] = set()  # hashes of the tokens, which may be long
        self._first: str | None = None  # entry of the page before

    def next(self, token: str | None, first: str | None = None) -> str | None:
        """Give the token of the next page, None at the end. `first`: the path of this page's first entry.

        Raises ProtocolError for a token that was given before, pages that repeat themselves, and too many.
        """
        if not token:
            return None
        if hash(token) in self._seen or len(token) > MAX_PAGE_TOKEN or (first is not None and first == self._first):
            raise ProtocolError(f"the pages of {self._path!r} go round in a circle, or nowhere")
        self._seen.add(hash(token))
        self._first = first
        if len(self._seen) >= MAX_PAGES:
            raise ProtocolError(f"the listing of {self._path!r} has more than {MAX_PAGES} pages")
        return token
