"""What git's hashes are worth on one hub: blob ids, which prove, or something else, which proves nothing."""

from __future__ import annotations

import logging

from dagfs.errors import IntegrityError
from dagfs.model import Content, Proof

log = logging.getLogger(__name__)

STRANGERS = 3
"""Files that were believed without being their hash's blob, after which a hub that never gave a blob id is taken to
give none."""

TRIES = 3
"""Bodies that have to be alike to be believed against a hash: of a hub that gives no blob ids, or of a file that it
does not send as git has it, of LFS for example. As many as a load asks for."""


class BlobIds:
    """Learns from each file of git; of one hub. Any thread: what is lost in a race is asked for once more."""

    def __init__(self) -> None:
        self._given = False  # a hash was its file's blob id
        self._strangers = 0
        self._first: tuple[str, str, str] | None = None  # hash, path and MD5 of the first file that did not fit

    def judge(self, content: Content, proof: Proof, before: list[str]) -> None:
        """Believe the bytes of a whole file, or raise IntegrityError: ask again.

        `before`: the MD5s of the bodies that this load was not believed; this one's is added.
        """
        claim = content.claim
        if claim is None or claim.scheme != "git":
            return
        if claim in proof.proved:
            self._given = True
            return
        if not self._given and self._strangers >= STRANGERS:
            return
        if not self._given and self._is_shared(claim.digest, content.entry.path, proof.md5):
            self._strangers = STRANGERS
            return
        before.append(proof.md5)
        if before.count(proof.md5) < TRIES:
            raise IntegrityError(f"{content.entry.path}: the bytes are not git's blob {claim.digest}")
        self._strangers += 1
        if self._given:
            log.warning("%s: the hub sends other bytes than git has, each time the same", content.entry.path)

    def _is_shared(self, digest: str, path: str, md5: str) -> bool:
        """Tell whether other bytes of another path had the same hash: a commit's, for example."""
        if self._first is None:
            self._first = (digest, path, md5)
        other_digest, other_path, other_md5 = self._first
        return digest == other_digest and path != other_path and md5 != other_md5
