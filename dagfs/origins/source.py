"""A hub with other ways to its bytes: they are asked first, and the hub's API has what they have not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from dagfs.errors import ProtocolError
from dagfs.hub.source import BodySink, Source, Transfer
from dagfs.model import Commit, Content, Entry, RefKind, RepoRef, Span, Versioning, content_of
from dagfs.origins import manifests
from dagfs.origins.marks import Marks
from dagfs.origins.parts import Parts, pieces
from dagfs.origins.route import Opening, Route, Way
from dagfs.origins.seam import Wanted
from dagfs.origins.tier import Tier

log = logging.getLogger(__name__)

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"


class Hub(Source, Protocol):
    """The part of `hub.api.HubSource` that this needs beside `Source`."""

    repo: RepoRef

    def standing(self) -> dict[str, Any]: ...


class WaysSource:
    """Implements `source.Source`. Everything but content that has an MD5, and its listings, is the hub's."""

    def __init__(self, hub: Hub, tier: Tier | None, remotes: Sequence[Way]) -> None:
        self.repo = hub.repo
        self._hub = hub
        self._tier = tier
        self._ways: list[Way] = [*([tier] if tier is not None else []), *remotes]
        self._no_manifest: Marks[bool] = Marks()
        self._sizes: Marks[int] = Marks()  # of large files, as the hub has told them

    def begin(self) -> None:
        """Find out where the ways lead, without waiting for it; before a process forks it must not be called."""
        for way in self._ways:
            way.begin()

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        return self._hub.resolve(revision, kind)

    def list_directory(self, commit: Commit, path: str, *, sized: bool) -> Iterator[Sequence[Entry]]:
        return self._hub.list_directory(commit, path, sized=sized)

    def describe(self, commit: Commit, path: str, *, sized: bool) -> Entry:
        return self._hub.describe(commit, path, sized=sized)

    def below(self, commit: Commit, directory: Entry) -> Iterator[tuple[str, Sequence[Entry]]]:
        name = directory.hash
        if directory.versioning is not Versioning.DVC or not name.endswith(".dir") or self._no_manifest.get(name):
            return
        data = self._manifest(name.removesuffix(".dir"))
        if data is None:
            self._no_manifest.put(name, True)
            return
        try:
            yield from manifests.listings(directory.path, data)
        except ProtocolError as error:
            log.warning("%s is listed by the hub: %s", directory.path, error)
            self._no_manifest.put(name, True)

    def open(self, commit: Commit, entry: Entry, span: Span | None, sink: BodySink) -> Transfer:
        def at_hub(wanted: Span | None) -> Opening:
            return lambda receiver: self._hub.open(commit, entry, wanted, receiver)

        content = content_of(self.repo, commit, entry)
        if content.key.scheme != "md5" or content.key.digest == EMPTY_MD5:
            return at_hub(span)(sink)
        if content.size is None:
            content = content._replace(size=self._sizes.get(content.key.digest))

        def large(size: int) -> Opening | None:
            return self._large(Wanted(content._replace(size=size), span), at_hub)

        route = Route(Wanted(content, span), self._ways, at_hub(span), sink, large)
        route.start()
        return route

    def _large(self, wanted: Wanted, at_hub: Callable[[Span | None], Opening]) -> Opening | None:
        """A large file that the ways have not: its bytes are asked for part by part, where machines share them."""
        content, span, size = wanted.content, wanted.span, wanted.content.size or 0
        self._sizes.put(wanted.md5, size)
        tier = self._tier
        plan = pieces(Span(span.start, min(span.end, size)), size) if span is not None else []
        if tier is None or not plan or not tier.shares(wanted):
            return None

        def ask(part: Span, receiver: BodySink) -> Transfer:
            route = Route(Wanted(content, part), self._ways, at_hub(part), receiver, lambda size: None)
            route.start()
            return route

        def opening(receiver: BodySink) -> Transfer:
            parts = Parts(plan, ask, receiver, lambda part, data: tier.came(Wanted(content, part), data))
            parts.start()
            return parts

        return opening

    def kept(self, content: Content) -> None:
        """All bytes of a content are in the store, proved; returns at once."""
        if self._tier is not None and content.key.scheme == "md5":
            self._tier.kept(content)

    def disproved(self, content: Content) -> None:
        """Bytes of a large file that were given turned out wrong."""
        if self._tier is not None and content.key.scheme == "md5":
            self._tier.disproved(content)

    def failing(self) -> bool:
        return self._hub.failing()

    def standing(self) -> dict[str, Any]:
        return self._hub.standing()

    def report(self) -> list[dict[str, Any]]:
        """Tell of each way whether it is in use, and what it has brought; see `breaker.Breaker.report`."""
        return [way.report() for way in self._ways]

    def close(self) -> None:
        for way in self._ways:
            way.close()
        self._hub.close()

    def _manifest(self, md5: str) -> bytes | None:
        """Ask for a directory's manifest; what is not the one that the commit names is none."""
        for way in self._ways:
            if not way.breaker.allows():
                continue
            data = way.manifest(md5)
            if data is None:
                continue
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
                way.breaker.count("wrong")
                continue
            if self._tier is not None and way is not self._tier:
                self._fill(self._tier, f"{md5}.dir", data)
            return data
        return None

    @staticmethod
    def _fill(tier: Tier, name: str, manifest: bytes) -> None:
        """Bring a manifest, and the empty file where it names one: nobody has to fetch that, and DVC wants it there."""
        tier.give(name, manifest)
        if EMPTY_MD5.encode() in manifest:
            tier.give(EMPTY_MD5, b"")
