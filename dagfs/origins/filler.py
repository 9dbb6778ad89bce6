"""Brings to the tier what it lacked, behind the readers' backs: bounded, verified, once for each content."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing

from dagfs.errors import DagfsError, IntegrityError, NotFound
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.model import Content, Span
from dagfs.origins.breaker import Breaker
from dagfs.origins.leases import Leases
from dagfs.origins.parts import key_of, parts_prefix
from dagfs.origins.seam import ObjectStore
from dagfs.store.seam import StoredFile

log = logging.getLogger(__name__)

THREADS = 4
WAITING_MAX = 20_000
"""Contents that wait to be brought; what comes beyond is left for another time or machine."""

SWEEP_SECONDS = 1.0
CLOSE_SECONDS = 5.0
PIECE_BYTES = 4 << 20

Find = Callable[[Content], StoredFile | None]


class Filler:
    """Thread-safe. The queue holds names, not bytes: these are read from the store when their turn comes."""

    def __init__(self, objects: ObjectStore, find: Find, leases: Leases, breaker: Breaker) -> None:
        self._objects = objects
        self._find = find
        self._leases = leases
        self._breaker = breaker
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[tuple[str, Content | bytes]] = deque()  # the object's name, and what it is to hold
        self._names: set[str] = set()  # in _waiting or under way
        self._replace: set[str] = set()  # of those, what is there already and wrong
        self._due = False  # leases are to be removed now
        self._threads: list[threading.Thread] = []
        self._closed = False

    def add(self, name: str, what: Content | bytes, *, replace: bool = False) -> bool:
        """Have an object brought; False when there is no room. Returns at once."""
        with self._changed:
            if self._closed or len(self._waiting) >= WAITING_MAX:
                return False
            if name in self._names:
                return True
            self._names.add(name)
            if replace:
                self._replace.add(name)
            self._waiting.append((name, what))
            self._start()
            self._changed.notify()
            return True

    def sweeps(self, *, now: bool) -> None:
        """There are leases to remove, or will be."""
        with self._changed:
            self._due = self._due or now
            self._start()
            self._changed.notify_all()

    def close(self) -> None:
        """Bring what waits, for a few seconds, and end; leases are removed, so that nobody waits for them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            self._waiting.clear()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _start(self) -> None:
        """With the lock held."""
        if not self._closed and not self._threads:
            self._threads = [
                threading.Thread(target=self._run, args=(number == 0,), name=f"origin-fill-{number}", daemon=True)
                for number in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()

    def _run(self, sweeper: bool) -> None:
        while True:
            work = self._next(sweeper)
            if work is None:
                break
            name, what, replace = work
            if name:
                self._bring(name, what, replace)
            if sweeper:
                self._sweep(everything=False)
        if sweeper:
            self._sweep(everything=True)

    def _next(self, sweeper: bool) -> tuple[str, Content | bytes, bool] | None:
        """Give what to bring next, with an empty name when it is time to sweep; None at the end."""
        with self._changed:
            while True:
                if self._waiting:
                    name, what = self._waiting.popleft()
                    return name, what, name in self._replace
                if self._closed:
                    return None
                if sweeper and self._due:
                    self._due = False
                    return "", b"", False
                if not self._changed.wait(SWEEP_SECONDS if sweeper and self._leases.pending else None) and sweeper:
                    return "", b"", False

    def _bring(self, name: str, what: Content | bytes, replace: bool) -> None:
        there = False
        try:
            if self._breaker.resting:
                self._breaker.count("left out")
            else:
                there = self._write(name, what, replace)
        except DagfsError as error:
            self._breaker.failed(error)
        except Exception:
            log.exception("%s could not be brought to %s", name, self._breaker.name)
        finally:
            self._leases.drop(name, linger=there)
            with self._changed:
                self._names.discard(name)
                self._replace.discard(name)

    def _write(self, name: str, what: Content | bytes, replace: bool) -> bool:
        """Write an object; say whether it is there now."""
        key = key_of(name)
        if isinstance(what, bytes):
            return self._put(key, what, replace)
        found = self._find(what)
        if found is None:  # evicted meanwhile
            self._breaker.count("left out")
            return False
        with closing(found):
            if found.size > WHOLE_MAX:
                if not replace and self._is_there(key, found.size):
                    self._breaker.worked("there already")
                else:
                    self._objects.write(key, _checked(found, name))
                    self._stored(found.size)
                self._objects.clear(parts_prefix(name))
                return True
            data = found.read(0, found.size)
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != name:
                self._breaker.count("left out")  # a text of DVC 2 is named by what it would be with other line ends
                return False
            return self._put(key, data, replace)

    def _is_there(self, key: str, size: int) -> bool:
        """Say whether another machine has brought a large file, before all of it is sent."""
        try:
            return self._objects.open(key, Span(0, 1)).head.total == size
        except NotFound:
            return False

    def _put(self, key: str, data: bytes, replace: bool) -> bool:
        if replace:
            self._objects.write(key, data)
            self._breaker.count("replaced")
        elif not self._objects.create(key, data):
            self._breaker.worked("there already")
            return True
        self._stored(len(data))
        return True

    def _stored(self, size: int) -> None:
        self._breaker.worked("stored", size)

    def _sweep(self, *, everything: bool) -> None:
        try:
            self._leases.sweep(everything=everything)
        except DagfsError as error:
            log.info("leases stay behind in %s: %s", self._breaker.name, error)


def _checked(found: StoredFile, md5: str) -> Iterator[bytes]:
    """Give a file's bytes; raises IntegrityError instead of the last when they are not those of its name."""
    hasher = hashlib.md5(usedforsecurity=False)
    last = b""
    for offset in range(0, found.size, PIECE_BYTES):
        if last:
            yield last
        last = found.read(offset, PIECE_BYTES)
        hasher.update(last)
    if hasher.hexdigest() != md5:
        raise IntegrityError(f"the cache has other bytes than those of {md5}")
    yield last
