"""`dagfs warm`: fetch everything under some paths into the cache, behind whatever programs are reading."""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field, replace
from pathlib import Path

from dagfs.answers import wait
from dagfs.config import Places
from dagfs.daemon.control import Message, ask
from dagfs.daemon.core import Core
from dagfs.daemon.plan import absolute, mount_id
from dagfs.daemon.state import Registry, alive, holding
from dagfs.errors import BadMountPoint, DagfsError, NotADirectory, NotFound, RemoteError
from dagfs.model import Content, Kind, Span, Urgency, in_storages, printable
from dagfs.tree.listing import Place
from dagfs.tree.tree import Tree
from dagfs.vfs.seam import ROOT

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Files under way: enough to keep all transfers busy, and a bound on what is held in memory."""

CHUNK_BYTES = 8 << 20
"""Bytes of a large file that one thread asks for at a time; they pass through memory."""

STEP_SECONDS = 0.2
KEPT_SECONDS = 5.0
"""How long the end waits for what is on its way to the disk."""

SILENCE_SECONDS = 300.0
"""The client gives up when the daemon says nothing for so long: longer than the deadline of any one fetch."""


@dataclass(slots=True)
class Step:
    """How far it is; `failed` are the failures since the step before, one line each."""

    files: int = 0
    bytes: int = 0
    done_files: int = 0
    done_bytes: int = 0
    failed: list[str] = field(default_factory=list)


def warm(places: Places, paths: Sequence[Path]) -> Iterator[Step]:
    """Ask the daemons of the mounts that hold `paths`, one after another. Raises BadMountPoint at once, RemoteError."""
    registry = Registry(places.runtime)
    return _asked(registry, _by_mount(registry, paths))


def _asked(registry: Registry, found: Mapping[str, list[str]]) -> Iterator[Step]:
    for name, inside in found.items():
        try:
            for answer in ask(registry.socket(name), {"op": "warm", "paths": inside}, SILENCE_SECONDS):
                if "error" in answer:
                    raise RemoteError(answer["error"])
                yield Step(**answer)
        except (OSError, ValueError) as error:
            raise RemoteError(f"the daemon of this mount does not answer: {error}") from error


def _by_mount(registry: Registry, paths: Sequence[Path]) -> dict[str, list[str]]:
    states = [state for state in registry.states().values() if alive(state)]
    found: dict[str, list[str]] = {}
    for path in paths:
        wanted = absolute(path)
        state = holding(states, wanted)
        if state is None:
            raise BadMountPoint(f"{path} lies in no mount of yours; `dagfs status` lists them")
        name = mount_id(Path(state.mountpoint))
        found.setdefault(name, []).append(wanted.relative_to(state.mountpoint).as_posix())
    return found


def _message(step: Step) -> Message:
    return {name: getattr(step, name) for name in Step.__slots__}


class Warmer:
    """The daemon's side. Each request has threads of its own, so that it can hold nobody back but itself."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def answer(self, request: Message) -> Iterable[Message]:
        """Fetch what is under `request["paths"]`, relative to the mount; yields a Step's fields now and then."""
        tree = self._core.tree  # one commit's, whatever the mount shows later
        places = [_find(tree, str(path)) for path in request["paths"]]
        left = threading.Event()  # whoever asked has gone, or all is done
        try:
            yield from (_message(step) for step in self._steps(tree, places, left))
        finally:
            left.set()

    def _steps(self, tree: Tree, places: Sequence[Place], left: threading.Event) -> Iterator[Step]:
        total = Step()
        said = time.monotonic()
        nodes = array("Q")  # of all files: 8 bytes each, while listings may leave memory
        for file in _files(tree, places):
            nodes.append(file.node)
            total.files += 1
            total.bytes += file.entry.size or 0
            if time.monotonic() - said > STEP_SECONDS:
                said = time.monotonic()
                yield total
        pool = ThreadPoolExecutor(AT_ONCE, "warm")
        try:
            done, failed = total, False
            for done in self._fetch_all(pool, _contents(tree, nodes), total, left):
                failed = failed or bool(done.failed)
                yield done
            if not failed:
                yield replace(done, failed=self._not_kept(_contents(tree, nodes)))
        finally:
            left.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _not_kept(self, contents: Iterable[Content]) -> list[str]:
        """Say in a line what was fetched and is not in the cache: it is too small, its disk is full, or wrong bytes of
        a large file were found to be so."""
        here, deadline = self._core.cache.here, time.monotonic() + KEPT_SECONDS
        self._core.store.flush(KEPT_SECONDS)
        lost = [content for content in contents if content.size != 0 and not here(content)]
        while lost and time.monotonic() < deadline and not self._stopping.wait(STEP_SECONDS):
            lost = [content for content in lost if not here(content)]  # a large one is hashed first
        example = lost[0].entry.path if lost else ""
        return [f"{len(lost):,} files are not kept in the cache, {example} for example"] if lost else []

    def _fetch_all(
        self, pool: ThreadPoolExecutor, contents: Iterator[Content], total: Step, left: threading.Event
    ) -> Iterator[Step]:
        under_way: set[Future[int]] = set()
        step = total
        for content in contents:
            if self._stopping.is_set():
                raise RemoteError("the mount is ending")
            under_way.add(pool.submit(self._fetch, content, left))
            if len(under_way) >= AT_ONCE:
                under_way, step = self._collect(under_way, step)
                yield step
        while under_way:
            under_way, step = self._collect(under_way, step)
            yield step
        yield replace(step, failed=[])

    def _collect(self, under_way: set[Future[int]], step: Step) -> tuple[set[Future[int]], Step]:
        done, rest = wait_for(under_way, STEP_SECONDS, FIRST_COMPLETED)
        failed = [str(error) for future in done if (error := future.exception())]
        fetched = sum(future.result() for future in done if not future.exception())
        files = step.done_files + len(done) - len(failed)
        return set(rest), Step(step.files, step.bytes, files, step.done_bytes + fetched, failed)

    def _fetch(self, content: Content, left: threading.Event) -> int:
        try:
            size = wait(self._core.cache.size(content, Urgency.WARM_UP))
            for start in range(0, size, CHUNK_BYTES):
                if self._stopping.is_set() or left.is_set() or self._core.cache.cached(content):
                    break
                wait(self._core.cache.read(content, Span(start, min(start + CHUNK_BYTES, size)), Urgency.WARM_UP))
        except DagfsError as error:
            log.warning("warm: %s: %s", printable(content.entry.path), error)
            raise RemoteError(f"{content.entry.path}: {error}") from error
        return size


def _find(tree: Tree, path: str) -> Place:
    node = ROOT
    place = wait(tree.place(node))
    try:
        for name in Path(path).parts:
            place = wait(tree.lookup(node, name.encode("utf-8", "surrogateescape")))
            node = place.node
    except (NotFound, NotADirectory):
        raise NotFound(f"{path}: the mounted commit has no such path") from None
    return place


def _contents(tree: Tree, nodes: Iterable[int]) -> Iterator[Content]:
    return (tree.content(wait(tree.place(node))) for node in nodes)


def _files(tree: Tree, places: Iterable[Place]) -> Iterator[Place]:
    """Walk, one level at a time, so that the listings of a level are fetched side by side.

    Connected buckets are warmed by their own name only: they may be far larger than the repository.
    """
    directories: list[Place] = []
    for place in places:
        if place.kind is Kind.DIRECTORY:
            directories.append(place)
        else:
            yield place
    while directories:
        listings = [tree.listing(directory, sized=True) for directory in directories]
        directories = []
        for listing in map(wait, listings):
            for position in range(len(listing)):
                child = Place(listing, position)
                if child.kind is Kind.DIRECTORY:
                    if listing.directory.path or not in_storages(child.entry.path):
                        directories.append(child)
                else:
                    yield child
