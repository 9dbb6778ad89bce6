"""The thread that brings proved files to the disk, many in one transaction of the index."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from dagfs.model import ContentId
from dagfs.store.backlog import Backlog, Waiting
from dagfs.store.complaint import Complaint
from dagfs.store.index import DVC_SCHEMES, INDEX_ERRORS, FileRow, good_mark
from dagfs.store.layout import Stamp, boot_id, stamp, unlink_quietly
from dagfs.store.room import Room, Shelf

T = TypeVar("T")

log = logging.getLogger(__name__)

BATCH_SHARE = 32
"""Of the limit that files written together may have: half of what newcomers pass through, else a batch would drive
residents out of a small store."""

REBUILD_BATCH = 256
"""Files adopted in one transaction when the index was lost: short, since other processes wait for it."""


class Writer:
    """Empties the backlog. A disk that fails costs a complaint, never a read."""

    def __init__(self, shelf: Shelf, room: Room, backlog: Backlog, complaint: Complaint) -> None:
        self._layout = shelf.layout
        self._index = shelf.index
        self._handles = shelf.handles
        self._dvc_cache = shelf.dvc_cache
        self._room = room
        self._backlog = backlog
        self._boot = boot_id()
        self._complaint = complaint
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def record(self, md5: str, path: str, names: tuple[ContentId, ...]) -> None:
        """Move a file that is whole and proved to its place, in the caller's thread. Raises OSError."""
        seen = stamp(path)
        try:
            with self._index.transaction():
                fresh = self._index.record([(md5, self._row(seen, names, md5))])
        except INDEX_ERRORS as error:
            self.complain(error)  # the file is found by its name, and verified then
            fresh = []
        self._layout.publish(path, self._layout.file(md5))
        self._give(md5, names)
        if fresh:
            self._room.insert(md5, seen.size)

    def verified(self, md5: str, seen: Stamp) -> None:
        """Note, later, that a file was read and found right."""
        row = FileRow(seen.size, good_mark(seen, self._boot))
        self._backlog.chore(f"row {md5}", lambda: self._adopt([(md5, row)]))

    def named(self, md5: str, row: FileRow, name: ContentId) -> None:
        """Note, later, that a file has one more name."""
        more = FileRow(row.size, row.good, (str(name),))
        self._backlog.chore(f"name {name}", lambda: self._adopt([(md5, more)]))

    def make_room(self) -> None:
        """Look, later, whether blocks that came have filled the store."""
        self._backlog.chore("room", lambda: self._room.make(0, set()))

    def rebuild(self) -> None:
        """Take up, later, the files that the index does not know; each is verified at its first use."""

        def begin() -> None:
            self._index.count()
            self._rebuild(self._layout.stored())

        self._backlog.chore("rebuild", begin)

    def complain(self, error: BaseException) -> None:
        self._complaint.make(error)
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                self._layout.damaged_mark.touch()

    def guarded(self, work: Callable[[], T], otherwise: T) -> T:
        """Ask the index; when it fails, what it would have said is unknown."""
        try:
            return work()
        except INDEX_ERRORS as error:
            self.complain(error)
            return otherwise

    def _run(self) -> None:
        while (work := self._backlog.take()) is not None:
            if callable(work):
                self._guard(work)
                continue
            fits = sum(len(file.data) for file in work) <= self._room.limit // BATCH_SHARE
            for files in [work] if fits else [[file] for file in work]:
                self._write(files)

    def _guard(self, chore: Callable[[], object]) -> bool:
        try:
            chore()
            return True
        except INDEX_ERRORS as error:
            self.complain(error)
        except Exception:  # without this thread nothing is kept any more, and whoever flushes waits for ever
            log.exception("the cache could not be written")
        return False

    def _write(self, files: list[Waiting]) -> None:
        temps: dict[str, str] = {}
        written: dict[str, Stamp] = {}
        if self._guard(lambda: self._store(files, temps, written)) and written:
            self._complaint.over()
        for path in temps.values():
            with contextlib.suppress(OSError):  # what stays is removed at the next start
                unlink_quietly(path)
        for file in files:
            if file.md5 in written:
                for name in file.names:
                    self._handles.note(name, file.md5, written[file.md5])
            self._backlog.done(file, written=file.md5 in written)

    def _store(self, files: list[Waiting], temps: dict[str, str], written: dict[str, Stamp]) -> None:
        """Write files and publish them. `temps`: those not published yet; `written`: those in place; both by MD5."""
        by_md5 = {file.md5: file for file in files}
        seen = {md5: found for md5, file in by_md5.items() if (found := self._find(file))}
        there = dict(seen)
        fresh = [file for md5, file in by_md5.items() if md5 not in there]
        if not self._room.make(sum(len(file.data) for file in fresh), set(by_md5)):
            return
        for file in fresh:
            temps[file.md5] = self._layout.write_temp(file.data)
            seen[file.md5] = stamp(temps[file.md5])
        with self._index.transaction():
            added = self._index.record((file.md5, self._row(seen[file.md5], file.names, file.md5)) for file in files)
        written |= there
        # After the commit: a row without its file is a miss, a file without its row would never be counted.
        for md5 in list(temps):
            self._layout.publish(temps[md5], self._layout.file(md5))
            del temps[md5]
            written[md5] = seen[md5]
            self._give(md5, by_md5[md5].names)
        for md5 in added:
            self._room.insert(md5, len(by_md5[md5].data))

    def _give(self, md5: str, names: tuple[ContentId, ...]) -> None:
        """Have a file in DVC's cache as well, under the name that DVC has for it; git's are none of its business."""
        if self._dvc_cache is not None and all(name.scheme in DVC_SCHEMES for name in names):
            self._dvc_cache.give(self._layout.file(md5), names[-1])  # a text's own MD5 comes first

    def _find(self, file: Waiting) -> Stamp | None:
        """Look for a file that is in place already, and right."""
        try:
            seen = stamp(self._layout.file(file.md5))
        except OSError:
            return None
        right = seen.size == len(file.data) and self._index.verified(file.md5, seen, self._boot)
        return seen if right else None

    def _row(self, seen: Stamp, names: tuple[ContentId, ...], md5: str) -> FileRow:
        own = ContentId("md5", md5)
        # A claimed MD5 that is not the bytes' own is a text MD5 of DVC 2, and listed under that scheme.
        others = tuple(str(name) for name in names if name != own and name.scheme != "md5")
        return FileRow(seen.size, good_mark(seen, self._boot), others)

    def _adopt(self, files: list[tuple[str, FileRow]]) -> None:
        with self._index.transaction():
            added = self._index.record(files)
        for md5, row in files:
            if md5 in added:
                self._room.insert(md5, row.size)

    def _rebuild(self, stored: Iterator[tuple[str, int]]) -> None:
        """Take up some files, and the rest after what was put meanwhile. A store that is closed before goes on with it
        when it is opened next."""
        files = list(itertools.islice(stored, REBUILD_BATCH))
        self._adopt([(md5, FileRow(size, "")) for md5, size in files if self._index.row(md5) is None])
        if files:
            self._backlog.chore("rebuild", lambda: self._rebuild(stored))
            return
        self._index.counted()
        self._room.make(0, set())
