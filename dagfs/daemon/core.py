"""The rooms of one mount: those of a repository, and what a mount keeps beside them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dagfs.daemon.commits import CommitTable
from dagfs.daemon.generation import Trees
from dagfs.daemon.plan import MountPlan, ledger_path
from dagfs.hub.auth import Token
from dagfs.kernel.waiting import Waiting
from dagfs.model import Commit, Content
from dagfs.repository.core import Repository, Rooms
from dagfs.store.ledger import Ledger
from dagfs.store.spare import Spare
from dagfs.tree.tree import Tree
from dagfs.vfs.generations import Generations
from dagfs.vfs.seam import FileSystem

HIDDEN_TOLD = 100
"""Names of each kind that a report has."""


@dataclass(frozen=True, slots=True)
class Followed:
    """For a mount that changes its commit: those it has shown, and whether another worker has served it."""

    shown: CommitTable
    takes_over: bool


@dataclass(frozen=True, slots=True)
class Handed:
    """What the workers of a mount hand on. `session` names the mount's life, over all of its workers and commits;
    `spare` has the node ids that the disk does not take."""

    session: str = field(default_factory=lambda: secrets.token_hex(8))
    followed: Followed | None = None
    spare: Spare = field(default_factory=lambda: Spare(-1))


class Core(Repository):
    """One mount's rooms."""

    def __init__(self, plan: MountPlan, commit: Commit, token: Token, handed: Handed | None = None) -> None:
        handed = handed or Handed()
        self._ledger = Ledger(ledger_path(plan.places, plan.id), handed.spare)
        super().__init__(plan, commit, token, self._ledger, handed.session)
        self._plan = plan
        self._figures: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.followed = followed = handed.followed
        self.generations = None if followed is None else self._generations(followed)
        self._only = self.make_rooms(self.make_tree(commit, plan.id)) if followed is None else None
        self.drop_pages: Callable[[int], None] = lambda _node: None  # the adapter's
        self.waiting: Waiting | None = None  # the kernel driver's
        self.told: Callable[[], dict[str, Any]] = dict  # more for `dagfs status`

    @property
    def rooms(self) -> Rooms:
        """The rooms of the commit that the mount shows."""
        rooms = self._only if self.generations is None else self.generations.current
        assert rooms is not None  # noqa: S101 -- one of the two is there  # nosec B101
        return rooms

    @property
    def fs(self) -> FileSystem:
        """What the adapters serve."""
        return self.rooms.vfs if self.generations is None else self.generations

    @property
    def tree(self) -> Tree:
        """The tree of the commit that the mount shows."""
        return self.rooms.tree

    def _generations(self, followed: Followed) -> Generations[Rooms]:
        shown, trees = followed.shown, Trees()

        def build(commit: Commit, ordinal: int) -> Rooms:
            mount = f"{self._plan.id}-{shown.session}-{ordinal}"
            return self.make_rooms(trees.get(ordinal, lambda: self.make_tree(commit, mount, ordinal)))

        return Generations(shown, build, self.workers.submit, takes_over=followed.takes_over)

    def disproved(self, content: Content) -> None:
        super().disproved(content)
        at_hand = self.generations.at_hand() if self.generations is not None else [self.rooms]
        for node in [node for rooms in at_hand for node in rooms.vfs.nodes_of(content)]:
            self.drop_pages(node)

    def observe(self, room: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a room's own counters to the figures, as `room.NAME`."""
        self._figures[room] = counts

    def figures(self) -> dict[str, int]:
        """Give all counters of this worker."""
        more = {f"{room}.{name}": n for room, counts in self._figures.items() for name, n in counts().items()}
        return self.metrics.snapshot() | more

    def hub_state(self) -> dict[str, Any]:
        """Tell whether the hub answers: "state", "error" and for how many "seconds"."""
        return self.source.standing()

    def way_reports(self) -> list[dict[str, Any]]:
        """Tell of each way to the bytes before the hub's API whether it is in use, and what it has brought."""
        return [] if self.ways is None else self.ways.report()

    def hidden(self) -> dict[str, int | list[str]]:
        """Count and name what is not shown: names that no file system can show, in the listings at hand, and links
        that lead out of the mount. Of each at most HIDDEN_TOLD names."""
        hidden, names = self.tree.hidden()
        refused, links = self.tree.refused.told(HIDDEN_TOLD)
        return {
            "hidden": hidden,
            "hidden_names": names[:HIDDEN_TOLD],
            "refused_links": refused,
            "refused_link_names": links,
        }

    def close(self) -> None:
        self.rooms.prefetcher.enabled = False
        self.disconnect()
        (self.rooms if self.generations is None else self.generations).close()
        super().close()
        self._ledger.close()
