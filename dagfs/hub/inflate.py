"""Compressed bodies: decoded here and not by curl, which takes a compressed stream without its end for a whole one."""

from __future__ import annotations

import zlib

from dagfs.errors import ProtocolError

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Inflater:
    """Decodes one body as its chunks come; `complete` iff the stream ended where the body does."""

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise ProtocolError(f"a body in the encoding {encoding!r:.40}, which was not asked for")
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    @property
    def complete(self) -> bool:
        return self._stream.eof

    def feed(self, chunk: bytes) -> bytes:
        """Raises ProtocolError."""
        try:
            if self._stream.eof:
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            plain = self._stream.decompress(chunk)
            while self._stream.eof and self._stream.unused_data:  # gzip files may follow one another
                member, self._stream = self._stream.unused_data, zlib.decompressobj(_GZIP_OR_ZLIB)
                plain += self._stream.decompress(member)
        except zlib.error as error:
            raise ProtocolError(f"a compressed body is damaged: {error}") from None
        return plain
