"""A cache of DVC's beside the store: what it has need not be fetched, and what the store has is given to it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dagfs.errors import IntegrityError
from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Entry, Kind, Versioning
from dagfs.proofs import CHUNK, Prover

log = logging.getLogger(__name__)

MODE = 0o444
"""What DVC gives its files: who has a link to one in a workspace must not write into it."""

GIVEN_MAX = 16_384
"""Files remembered as given; one that is forgotten costs two failing system calls."""

TEMP = ".dagfs-"
_UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})  # another disk, or one without them


class DvcCache:
    """Files by MD5 under files/md5/ab/cdef, as DVC 3 has them, or ab/cdef, as DVC 2 had them.

    They belong to somebody else: none is changed, moved or removed, and none is to be trusted before it was hashed. A
    hub's listing does not say which DVC named a file, so what is given gets both places; the second is a link. Only
    DVC 2 named texts by their form with LF, so those get its place alone.
    """

    def __init__(self, root: Path, metrics: Metrics) -> None:
        self.root = root
        self._texts = (f"{root}/files/md5", str(root))
        self._metrics = metrics
        self._copies = ThreadPoolExecutor(1, thread_name_prefix="dvc-cache")
        self._lock = threading.Lock()  # guards the two below
        self._given: set[str] = set()  # MD5s that need not be given again
        self._writable = os.access(root, os.W_OK | os.X_OK)

    @property
    def writable(self) -> bool:
        with self._lock:
            return self._writable

    def path(self, md5: str) -> str | None:
        """Give where a file of that name lies, whatever it holds."""
        return next(filter(os.path.exists, self._places(md5)), None)

    def right(self, fd: int, md5: str, cancelled: Callable[[], bool]) -> bool:
        """Hash an open file of that name, 1.5 s for each GiB, unless it is cancelled. Raises OSError."""
        name = ContentId("md5", md5)
        prover = Prover(Content(name, Entry(md5, Kind.FILE, Versioning.DVC, md5), name))
        try:
            for chunk in _chunks(fd):
                prover.update(chunk)
                if cancelled():
                    return False
            prover.proof(lambda: _chunks(fd))
        except IntegrityError:
            self._metrics.add("dvc_cache.damaged")
            return False
        self._metrics.add("dvc_cache.proved")
        return True

    def give(self, path: str, name: ContentId) -> None:
        """Have the file at `path` there as well, under a name of DVC's: at once, by a link, else soon, by a copy."""
        with self._lock:
            if not self._writable or name.digest in self._given:
                return
            if len(self._given) >= GIVEN_MAX:
                self._given.clear()
            self._given.add(name.digest)
        places = self._places(name.digest)[name.scheme != "md5" :]
        try:
            self._give(path, places, os.link)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                self._failed(error)
                return
            with contextlib.suppress(RuntimeError):  # closed
                self._copies.submit(self._copy, path, places)

    def keep_manifest(self, md5: str, pieces: Iterable[bytes]) -> bool:
        """Keep the manifest of a directory, unless it is there; False when its bytes have another MD5, or cannot be
        kept."""
        places = [f"{place}.dir" for place in self._places(md5)]
        if not self.writable or os.path.exists(places[0]):
            return self.writable
        found = hashlib.md5(usedforsecurity=False)
        try:
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=TEMP) as temp:
                for piece in pieces:
                    found.update(piece)
                    temp.write(piece)
                temp.flush()
                if found.hexdigest() != md5:
                    return False
                self._give(temp.name, places, os.link)
        except OSError as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """Give up what is still to be copied."""
        self._copies.shutdown(wait=True, cancel_futures=True)

    def _places(self, md5: str) -> list[str]:
        return [f"{root}/{md5[:2]}/{md5[2:]}" for root in self._texts]

    def _give(self, path: str, places: list[str], bring: Callable[[str, str], None]) -> None:
        self._bring(path, places[0], bring)
        for second in places[1:]:
            self._bring(places[0], second, os.link)
        self._metrics.add("dvc_cache.given")

    def _bring(self, source: str, target: str, bring: Callable[[str, str], None]) -> None:
        try:
            bring(source, target)
        except FileExistsError:
            return
        except FileNotFoundError:
            if not os.path.exists(source):  # evicted meanwhile
                return
            self._make_directory(os.path.dirname(target))
            with contextlib.suppress(FileExistsError):
                bring(source, target)
        with contextlib.suppress(OSError):
            os.chmod(target, MODE)

    def _make_directory(self, directory: str) -> None:
        """With the mode of the cache's root, so that who shares the one shares the other."""
        if os.path.isdir(directory):
            return
        self._make_directory(os.path.dirname(directory))
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
            os.chmod(directory, os.stat(self.root).st_mode & 0o7777)

    def _copy(self, path: str, places: list[str]) -> None:
        def bring(source: str, target: str) -> None:
            if os.path.exists(target):
                raise FileExistsError(target)
            with tempfile.NamedTemporaryFile(dir=os.path.dirname(target), prefix=TEMP) as temp:
                shutil.copyfile(source, temp.name)
                os.link(temp.name, target)

        try:
            self._give(path, places, bring)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self._metrics.add("dvc_cache.failed")
        with self._lock:
            was, self._writable = self._writable, self._writable and error.errno not in _UNWRITABLE
        if was:
            log.warning("DVC's cache at %s cannot be written: %s", self.root, error)


def _chunks(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK, offset):
        offset += len(chunk)
        yield chunk
