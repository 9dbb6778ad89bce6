"""Recognises a program that walks the tree, directory by directory, and says how far to list ahead of it."""

from __future__ import annotations

import threading

from dagfs.tree.numbers import Recent

AHEAD_MAX = 32
"""Directories listed ahead of a walk. More would not come sooner: sixteen are fetched at a time."""

_PARENTS_KEPT = 1024
_SKIP_MAX = 16  # rows that a walk in order may pass over between two directories it lists, beside listed ones


class WalkAhead:
    """Siblings that are listed in order are a walk; the more of them, the farther ahead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Recent[str, tuple[int, int]] = Recent(_PARENTS_KEPT)  # parent -> ordinal visited last, streak

    def visited(self, parent: str, ordinal: int) -> int:
        """Note that the `ordinal`th sub-directory of `parent` is being listed; give how many next ones to fetch."""
        with self._lock:
            last, streak = self._seen.get(parent) or (-1, 0)
            if ordinal == last:
                return 0
            streak = streak + 1 if last < ordinal <= last + _SKIP_MAX else 1
            self._seen.put(parent, (ordinal, streak))
        return 0 if streak == 1 else min(AHEAD_MAX, 4 << (streak - 2))
