"""Compressed bodies: decoded here and not by curl, which takes a compressed stream without its end for a whole one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from dagfs.errors import DamagedBody, ProtocolError

PIECE_BYTES = 1 << 20
"""Given out at a time: 16 KiB from the network may be a thousand times as much."""

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

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the plain bytes in pieces of PIECE_BYTES at most. Raises DamagedBody."""
        plain = b""
        while chunk or (plain and not self._stream.eof):  # without a chunk: what the decoder still holds of the last
            if self._stream.eof:  # gzip files may follow one another
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                plain = self._stream.decompress(chunk, PIECE_BYTES)
            except zlib.error as error:
                raise DamagedBody(f"a compressed body is damaged: {error}") from None
            chunk = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if plain:
                yield plain
