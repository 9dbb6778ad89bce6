"""Tables in Markdown, and their places in the documents: what is between two marker comments is renewed.

<!-- bench:NAME -->
...
<!-- /bench:NAME -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows under a head. `name` is that of its markers; `command` makes the figures again; notes stand below."""

    name: str
    command: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Give the table as Markdown. Raises ValueError when a row has another length than the head."""
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"{self.name}: a row does not fit its head")
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"`{self.command}`", text, *self.notes])


def seconds(value: float) -> str:
    """Write seconds with as many digits as tell two of them apart."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def show(tables: Iterable[Table]) -> None:
    """Print tables."""
    for table in tables:
        print(table.markdown(), end="\n\n", flush=True)


class Unmarked(Exception):
    """A document has one marker without the other, or the same twice."""


def renew(text: str, pieces: Mapping[str, str]) -> tuple[str, set[str]]:
    """Put each piece between the markers of its name, where a text has them; give the text and the names it has.

    Raises Unmarked.
    """
    found = set()
    for name, piece in pieces.items():
        first, last = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        if (text.count(first), text.count(last)) == (0, 0):
            continue
        if (text.count(first), text.count(last)) != (1, 1) or text.index(first) > text.index(last):
            raise Unmarked(f"{first} and {last} must be there once, in this order")
        head, rest = text.split(first)
        text = f"{head}{first}\n{piece}\n{last}{rest.split(last)[1]}"
        found.add(name)
    return text, found


def renew_documents(documents: Iterable[Path], tables: Iterable[Table]) -> set[str]:
    """Renew tables in documents; give the names that no document has a place for."""
    pieces = {table.name: table.markdown() for table in tables}
    placed: set[str] = set()
    for document in documents:
        text, found = renew(document.read_text(), pieces)
        if found:
            document.write_text(text)
        placed |= found
    return set(pieces) - placed


def names_in(text: str) -> set[str]:
    """Give the names that a document has places for."""
    return set(re.findall(r"<!-- bench:([\w-]+) -->", text))
