"""Hash bytes and say which ids they are proved to have: MD5 always, git's blob id and DVC 2's text MD5 when claimed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from dagfs.errors import IntegrityError
from dagfs.model import Content, ContentId, Proof

CHUNK = 1 << 20
"""Bytes. DVC 2 converts line ends chunk by chunk of this size: a CRLF across two chunks stays as it is, so the size
is part of that hash."""

_TEXT = bytes(range(32, 127)) + b"\n\r\t\f\b"
_TEXT_BLOCK = 512
_TEXT_SHARE = 0.30


class Prover:
    """Hashes a file's bytes while they come; one thread at a time."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._count = 0
        self._blob = None
        if _claims(content, "git") and content.size is not None:
            self._blob = _blob_hash(content.size)

    @property
    def count(self) -> int:
        """Give the bytes hashed so far."""
        return self._count

    def update(self, chunk: bytes) -> None:
        self._md5.update(chunk)
        self._count += len(chunk)
        if self._blob is not None:
            self._blob.update(chunk)

    def proof(self, again: Callable[[], Iterable[bytes]]) -> Proof:
        """Conclude; `again` gives the same bytes in chunks of CHUNK where a claim needs a second pass.

        Raises IntegrityError when a claimed MD5 or a known size is not that of the bytes.
        """
        size, claim, md5 = self._content.size, self._content.claim, self._md5.hexdigest()
        if size is not None and size != self._count:
            raise IntegrityError(f"{self._content.entry.path}: {self._count} bytes came, {size} were announced")
        proved = [ContentId("md5", md5)]
        if claim is not None and claim.scheme == "git" and self._is_blob(claim.digest, again):
            proved.append(claim)
        if claim is not None and claim.scheme == "md5" and claim.digest != md5:
            if claim.digest not in _dos2unix_md5s(again):
                raise IntegrityError(f"{self._content.entry.path}: the bytes have MD5 {md5}, not {claim.digest}")
            proved.append(ContentId("md5-dos2unix", claim.digest))
        return Proof(md5, tuple(proved))

    def _is_blob(self, digest: str, again: Callable[[], Iterable[bytes]]) -> bool:
        if self._blob is None:
            self._blob = _blob_hash(self._count)
            for chunk in again():
                self._blob.update(chunk)
        return self._blob.hexdigest() == digest


def prove(content: Content, data: bytes) -> Proof:
    """Hash all bytes of a file; raises IntegrityError as `Prover.proof` does."""
    prover = Prover(content)
    prover.update(data)
    return prover.proof(lambda: chunks(data))


def chunks(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def _claims(content: Content, scheme: str) -> bool:
    return content.claim is not None and content.claim.scheme == scheme


def _blob_hash(size: int) -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _dos2unix_md5s(again: Callable[[], Iterable[bytes]]) -> Iterator[str]:
    """Give DVC 2's text MD5: early releases look for text in the first block only, later ones in each chunk's."""
    by_file = hashlib.md5(usedforsecurity=False)
    by_chunk: hashlib._Hash | None = None  # the same until a chunk is unlike the first
    text: bool | None = None
    for chunk in again():
        chunk_is_text = _is_text(chunk[:_TEXT_BLOCK])
        text = chunk_is_text if text is None else text
        if by_chunk is None and chunk_is_text != text:
            by_chunk = by_file.copy()
        converted = chunk.replace(b"\r\n", b"\n") if text or chunk_is_text else chunk
        by_file.update(converted if text else chunk)
        if by_chunk is not None:
            by_chunk.update(converted if chunk_is_text else chunk)
    yield by_file.hexdigest()
    if by_chunk is not None:
        yield by_chunk.hexdigest()


def _is_text(block: bytes) -> bool:
    if b"\0" in block:
        return False
    return len(block.translate(None, _TEXT)) <= _TEXT_SHARE * len(block)
