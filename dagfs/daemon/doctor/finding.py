"""What was found: one value for people and programs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dagfs.daemon.logs import redact
from dagfs.errors import DagfsError
from dagfs.model import printable

FURTHER = "heal what was found above, and look again"
"""For a check that could not be made."""


class Level(enum.Enum):
    """How much it matters."""

    OK = "ok"
    NOTE = "note"  # works, and could be faster or more
    WARNING = "warning"  # will be felt
    PROBLEM = "problem"  # a mount fails, or is of no use


@dataclass(frozen=True, slots=True)
class Finding:
    """`name` stays the same over versions; `remedy` is empty where all is well, and nowhere else."""

    name: str
    level: Level
    text: str
    remedy: str = ""

    def clean(self) -> Finding:
        """Without what looks like a secret, in one line each."""
        return Finding(self.name, self.level, printable(redact(self.text)), printable(redact(self.remedy)))


Check = Callable[[], Iterable[Finding]]


def findings(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run checks one after another; one that fails itself is a finding, and the others go on."""
    for name, check in checks:
        try:
            yield from (finding.clean() for finding in check())
        except (DagfsError, OSError) as error:
            yield Finding(name, Level.PROBLEM, str(error), FURTHER).clean()
        except Exception as error:  # noqa: BLE001 -- whoever looks for a fault must not be given another one
            text = f"this check failed: {type(error).__name__}: {error}"
            yield Finding(name, Level.PROBLEM, text, "report this as a bug of dagfs").clean()
