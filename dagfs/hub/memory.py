"""A hub in memory, scripted by the test: the fake of the `source.Source` seam."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dagfs.errors import DagfsError, NotADirectory, NotFound, RemoteUnavailable, UnknownRevision
from dagfs.hub.source import BodyHead, BodySink, Transfer
from dagfs.model import Commit, Entry, Kind, RefKind, RepoRef, Span, Versioning

BATCH = 3
"""Entries a batch: small, so that every listing of a test has several."""


@dataclass(slots=True)
class _Failure:
    error: DagfsError
    after: int


@dataclass(slots=True, eq=False)
class _Body:
    """A transfer. `sent`: bytes given to the sink so far; `cancelled` and `begun` are guarded by the source's lock."""

    source: MemorySource
    path: str
    data: bytes
    head: BodyHead
    sink: BodySink
    failure: _Failure | None
    sent: int = 0
    begun: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        self.source._cancel(self)  # one object in two classes: the transfer is a handle to its source


@dataclass(slots=True)
class _Snapshot:
    files: dict[str, bytes]
    children: dict[str, dict[str, Entry]] = field(default_factory=dict)  # directory -> path -> entry


class MemorySource:
    """A repository whose files are a dict; counts calls, fails and holds bodies back on command.

    `calls` counts "resolve", "list:PATH", "list-sized:PATH", "describe:PATH" and "open:PATH". `latency`: seconds before
    each answer. Bodies are delivered by one thread, in chunks of `chunk` bytes.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        *,
        ranged: bool = True,
        announce_length: bool = True,
        compressed: bool = False,
        versioning: Versioning = Versioning.DVC,
    ) -> None:
        self.repo = RepoRef("https://hub.test", "owner", "name")
        self.calls: Counter[str] = Counter()
        self.spans: list[tuple[str, Span | None]] = []  # what `open` was asked for, in order
        self.latency = 0.0
        self.chunk = 64 << 10
        self._ranged = ranged and not compressed
        self._announce_length = announce_length and not compressed
        self._compressed = compressed
        self._versioning = versioning
        self._wake = threading.Condition()  # guards everything below
        self._failures: dict[str, list[_Failure]] = {}
        self._holds: dict[str, int | None] = {}  # path -> bytes let through; None holds the head as well
        self._due: list[tuple[float, int, _Body]] = []  # a heap: when, tie-break, body
        self._held: list[_Body] = []  # bodies whose path is in _holds and that have sent what is let through
        self._ticket = itertools.count()
        self._closed = False
        self._snapshots: dict[str, _Snapshot] = {}
        self.commit = self.publish(files)
        self._thread = threading.Thread(target=self._run, name="memory-source", daemon=True)
        self._thread.start()

    def publish(self, files: Mapping[str, bytes]) -> Commit:
        """Move the branch "main" to a new commit with these files."""
        snapshot = _snapshot(files, self._versioning)
        sha = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        with self._wake:
            self._snapshots[sha] = snapshot
            self.commit = Commit(sha, 1_700_000_000.0 + len(self._snapshots), "main")
        return self.commit

    def fail(self, call: str, error: DagfsError, times: int = 1, *, after: int = 0) -> None:
        """Let the next `times` calls of that name fail: a body after `after` bytes, a listing after so many entries."""
        with self._wake:
            self._failures.setdefault(call, []).extend(_Failure(error, after) for _ in range(times))

    def hold(self, path: str, after: int | None = None) -> None:
        """Hold back bodies of a path; `after` bytes and the head are let through, nothing at all when None."""
        with self._wake:
            self._holds[path] = after

    def release(self, path: str) -> None:
        """Let held bodies of a path go on."""
        with self._wake:
            self._holds.pop(path, None)
            for body in [body for body in self._held if body.path == path]:
                self._held.remove(body)
                self._schedule(body, 0.0)

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        self._count("resolve")
        with self._wake:
            if revision in (None, "main"):
                return self.commit
            shas = [sha for sha in self._snapshots if sha.startswith(str(revision))]
        if len(shas) != 1:
            raise UnknownRevision(f"no branch, tag or commit {revision!r}")
        return Commit(shas[0], self.commit.time)

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        failure = self._count(f"list{'-sized' if sized else ''}:{path}")
        entry = self._find(commit, path)
        if entry.kind is not Kind.DIRECTORY:
            raise NotADirectory(path)
        entries = [self._shown(e, sized) for e in self._snapshots[commit.sha].children.get(path, {}).values()]
        if failure is not None:
            entries = entries[: failure.after]
        yield from (entries[i : i + BATCH] for i in range(0, len(entries), BATCH))
        if failure is not None:
            raise failure.error

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        failure = self._count(f"describe:{path}")
        if failure is not None:
            raise failure.error
        return self._shown(self._find(commit, path), sized)

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        return iter(())

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        failure = self._count(f"open:{entry.path}", wait=False)
        data = self._snapshots[commit.sha].files.get(entry.path)
        if data is None and failure is None:
            failure = _Failure(NotFound(entry.path), 0)
        whole = data or b""
        ranged = self._ranged and span is not None
        start = min(span.start, len(whole)) if ranged and span is not None else 0
        end = span.end if ranged and span is not None else len(whole)
        total = len(whole) if self._announce_length else None
        tag = None if self._compressed else f'"{hash(whole):x}"'
        head = BodyHead(start, total, ranged, tag, self._compressed)
        body = _Body(self, entry.path, whole[start:end], head, sink, failure)
        with self._wake:
            self.spans.append((entry.path, span))
            if self._closed:
                raise RemoteUnavailable("the source is closed")
            self._schedule(body, self.latency)
        return body

    def failing(self) -> bool:
        return False

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _count(self, call: str, *, wait: bool = True) -> _Failure | None:
        with self._wake:
            self.calls[call] += 1
            scripted = self._failures.get(call)
            failure = scripted.pop(0) if scripted else None
        if wait and self.latency:
            time.sleep(self.latency)
        return failure

    def _find(self, commit: Commit, path: str) -> Entry:
        if not path:
            return Entry("", Kind.DIRECTORY, Versioning.GIT)
        children = self._snapshots[commit.sha].children
        entry = children.get(path.rpartition("/")[0], {}).get(path)
        if entry is None:
            raise NotFound(path)
        return entry

    def _shown(self, entry: Entry, sized: bool) -> Entry:
        return entry if sized else Entry(entry.path, entry.kind, entry.versioning, entry.hash)

    def _schedule(self, body: _Body, delay: float) -> None:
        """With the lock held."""
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._ticket), body))
        self._wake.notify()

    def _cancel(self, body: _Body) -> None:
        with self._wake:
            body.cancelled = True
            if body in self._held:
                self._held.remove(body)
                self._schedule(body, 0.0)

    def _run(self) -> None:
        while (body := self._next()) is not None:
            self._deliver(body)
        for body in [*self._held, *(body for _, _, body in self._due)]:
            body.sink.done(RemoteUnavailable("the source is closed"))

    def _next(self) -> _Body | None:
        with self._wake:
            while not self._closed:
                if not self._due:
                    self._wake.wait()
                elif (delay := self._due[0][0] - time.monotonic()) > 0:
                    self._wake.wait(delay)
                else:
                    return heapq.heappop(self._due)[2]
        return None

    def _deliver(self, body: _Body) -> None:
        """Bring one body as far as holds, failures and cancellation let it."""
        while (step := self._step(body)) is not None:
            if body.failure is not None and body.sent >= body.failure.after:
                body.sink.done(body.failure.error)
                return
            if not body.begun:
                body.begun = True
                body.sink.head(body.head)
            elif body.sent == len(body.data):
                body.sink.done(None)
                return
            else:
                step = step if body.failure is None else min(step, body.failure.after - body.sent)
                body.sink.data(body.data[body.sent : body.sent + step])
                body.sent += step

    def _step(self, body: _Body) -> int | None:
        """Give how many bytes may be sent now; None when the body was put aside or ended."""
        with self._wake:
            limit = self._limit(body)
            if limit is not None and (limit < 0 or (body.begun and body.sent >= limit)):
                self._held.append(body)
                return None
            ended = body.cancelled or self._closed
            step = min(self.chunk, len(body.data) - body.sent, *([] if limit is None else [limit - body.sent]))
        if not ended:
            return step
        body.sink.done(RemoteUnavailable("the transfer was cancelled"))
        return None

    def _limit(self, body: _Body) -> int | None:
        """Give the bytes that a hold lets through; -1 lets not even the head through, None is no hold."""
        if body.cancelled or self._closed or body.path not in self._holds:
            return None
        after = self._holds[body.path]
        return -1 if after is None else after


def _snapshot(files: Mapping[str, bytes], versioning: Versioning) -> _Snapshot:
    snapshot = _Snapshot(dict(files))
    for path, data in files.items():
        entry = Entry(path, Kind.FILE, versioning, _hash(data, versioning), len(data))
        while True:
            parent = entry.path.rpartition("/")[0]
            snapshot.children.setdefault(parent, {}).setdefault(entry.path, entry)
            if not parent:
                break
            entry = Entry(parent, Kind.DIRECTORY, versioning)
    return snapshot


def _hash(data: bytes, versioning: Versioning) -> str:
    if versioning is Versioning.DVC:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    if versioning is Versioning.GIT:
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return ""
