"""Which commit a branch, tag or sha was when the hub was asked last: kept in the store for mounts without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from dagfs.model import Commit, RefKind, RepoRef
from dagfs.tree.numbers import Values

_SHA = re.compile(r"[0-9a-f]{40}")


class Known:
    """The commits of one repository that the hub has told, by name. Nothing here asks the hub."""

    def __init__(self, values: Values, repo: RepoRef) -> None:
        self._values = values
        self._prefix = f"commits/{repo}"

    def remember(self, revision: str | None, commit: Commit) -> None:
        """Note what `revision` (None: the default branch) turned out to be."""
        names = [f"sha/{commit.sha}"]
        if revision is None:
            names.append("default")
        if commit.branch is not None:
            names.append(f"branch/{commit.branch}")
        elif revision is not None:
            names.append(f"commit/{revision}")
        value = json.dumps([commit.sha, commit.time, commit.branch]).encode()
        for name in names:
            self._values.set_value(f"{self._prefix}/{name}", value)

    def recall(self, revision: str | None, kind: RefKind) -> Commit | None:
        """Give the last commit that the hub named; of a full sha that it never named, only the time is unknown."""
        for name in _names(revision, kind):
            found = self._get(name)
            if found is not None:
                return found
        full = revision is not None and kind is not RefKind.BRANCH and _SHA.fullmatch(revision.lower())
        return Commit(revision.lower(), 0.0) if full and revision is not None else None

    def _get(self, name: str) -> Commit | None:
        try:
            sha, time, branch = json.loads(self._values.get_value(f"{self._prefix}/{name}") or b"")
        except (ValueError, TypeError):
            return None
        return Commit(sha, time, branch)


def _names(revision: str | None, kind: RefKind) -> Iterator[str]:
    """Give the names to look for, in the order in which the hub is asked (`hub.revisions`)."""
    if revision is None:
        yield "default"
        return
    branch, commit = f"branch/{revision}", f"commit/{revision}"
    if kind is not RefKind.BRANCH and _SHA.fullmatch(revision.lower()):
        yield f"sha/{revision.lower()}"
    yield from {
        RefKind.BRANCH: (branch,),
        RefKind.COMMIT: (commit, branch),
        RefKind.ANY: (branch, commit),
    }[kind]
