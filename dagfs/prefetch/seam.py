"""What a source of guesses is, and what it may ask of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dagfs.model import Answer, Content, Span, Urgency
from dagfs.prefetch.ledger import Stakes


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of the mount: `position` among the rows of its `directory`, -1 while that is not listed."""

    path: str
    directory: str
    position: int
    content: Content


class Catalogue(Protocol):
    """The part of the tree that is at hand; never asks disk or network."""

    def find(self, path: str) -> FileRef | None: ...

    def at(self, directory: str, position: int) -> FileRef | None:
        """Give the file in a row of a listing; None beyond the end, for a directory, or when it is not listed."""

    def rows(self, directory: str) -> int:
        """Give the number of rows of a listing; 0 when it is not at hand."""


class Bytes(Protocol):
    """The part of the cache that fetching ahead needs."""

    def read(self, content: Content, span: Span, urgency: Urgency) -> Answer[bytes]: ...
    def prepare(self, content: Content, span: Span | None, urgency: Urgency) -> None: ...
    def cached(self, content: Content) -> bool: ...

    def awaken(self, content: Content) -> None:
        """Have the disk bring a cached file into memory, without waiting for it."""


class GuessSource(Protocol):
    """Guesses which files are opened next. Called by one thread at a time, never by the dispatcher."""

    name: str
    stakes: Stakes

    @property
    def urgency(self) -> Urgency:
        """The class in which the guesses about the last opening are fetched."""

    def opened(self, file: FileRef) -> None: ...

    def guesses(self, count: int) -> Sequence[FileRef]:
        """Give up to `count` files, the likeliest first, none of them twice for one opening."""

    def patience(self) -> int:
        """Openings that a guess may wait for its own before it counts as wasted, beside four for each open guess."""
