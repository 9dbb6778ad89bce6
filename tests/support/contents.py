"""Contents and stores for the tests of the byte rooms."""

from __future__ import annotations

import hashlib
import random
import threading

from dagfs.errors import DagfsError
from dagfs.model import Content, ContentId, Entry, Kind, Proof, Versioning
from dagfs.proofs import prove


def dvc(data: bytes, path: str = "file", *, sized: bool = True) -> Content:
    """A content named by its MD5."""
    return claimed(hashlib.md5(data).hexdigest(), path, len(data) if sized else None)


def claimed(md5: str, path: str = "file", size: int | None = None) -> Content:
    key = ContentId("md5", md5)
    return Content(key, Entry(path, Kind.FILE, Versioning.DVC, md5, size), key, size)


def git(data: bytes, path: str = "file", *, commit: str = "c", sized: bool = True, claim: str | None = None) -> Content:
    """A content named by its place in a commit, with a claim that may be its blob id."""
    blob = claim or hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    size = len(data) if sized else None
    key = ContentId("location", hashlib.sha256(f"{commit}/{path}".encode()).hexdigest())
    return Content(key, Entry(path, Kind.FILE, Versioning.GIT, blob, size), ContentId("git", blob), size)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def proof(content: Content, data: bytes) -> Proof:
    return prove(content, data)


class RecordingSink:
    """Notes what a load brings; fails the test when something comes twice or out of order."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.data: bytes | None = None
        self.proof: Proof | None = None
        self.pieces: dict[int, bytes] = {}
        self.error: DagfsError | None = None
        self.faults: list[str] = []
        self.over = threading.Event()

    def sized(self, size: int) -> None:
        if self.size is not None or self.data is not None or self.pieces:
            self.faults.append("sized out of order")
        self.size = size

    def whole(self, data: bytes, proof: Proof) -> None:
        if self.data is not None or self.pieces or self.over.is_set():
            self.faults.append("whole out of order")
        self.data, self.proof = data, proof

    def piece(self, offset: int, data: bytes) -> None:
        if self.size is None and offset not in self.pieces and self.data is not None:
            self.faults.append("piece out of order")
        if any(start < offset + len(data) and offset < start + len(old) for start, old in self.pieces.items()):
            self.faults.append(f"bytes at {offset} came twice")
        self.pieces[offset] = data

    def finished(self, error: DagfsError | None) -> None:
        if self.over.is_set():
            self.faults.append("finished twice")
        self.error = error
        self.over.set()

    def wait(self, seconds: float = 20.0) -> RecordingSink:
        assert self.over.wait(seconds), "the load did not end"
        assert not self.faults, self.faults
        return self

    @property
    def joined(self) -> bytes:
        return b"".join(self.pieces[start] for start in sorted(self.pieces))
