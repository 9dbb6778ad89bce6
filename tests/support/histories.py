"""A repository whose branch moves while it is mounted: every file says which version it is of."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.repos import commit_all, git, git_files, new_repository, put_dvc_directory, write_files

FIRST_TIME = 1_700_000_000


@dataclass
class History:
    """Version after version of one repository; `shas` and `files` by version, from 1 on.

    In every version: `version` holds its number, `at-N` and `v/N` exist for it alone, `data/` (DVC) and `src/` (git)
    have files that change and some that do not, and `turns` is a file in odd versions and a directory in even ones.
    The time of version N is FIRST_TIME + N.
    """

    root: Path
    shas: list[str] = field(default_factory=lambda: [""])
    files: list[dict[str, bytes]] = field(default_factory=lambda: [{}])

    @property
    def path(self) -> Path:
        return self.root

    def commit(self) -> str:
        """Move the branch to the next version."""
        number = len(self.shas)
        for path in (self.root / "v", self.root / "src", self.root / "turns", *self.root.glob("at-*")):
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        data = {f"{i:02d}.bin": body(f"data {i}", number) for i in range(12)}
        data |= {f"same/{i:02d}.bin": body(f"same {i}", 0) for i in range(12)}
        data |= {f"only/in-{number}.bin": body("only", number)}
        own = {"version": b"%d\n" % number, f"at-{number}": b"", f"v/{number}": b"", "src/kept.py": b"kept\n" * 50}
        own |= {f"src/m{i}.py": body(f"src {i}", number) for i in range(4)}
        own |= {"turns" if number % 2 else "turns/inside": body("turns", number)}
        put_dvc_directory(self.root, "data", data)
        write_files(self.root, own)
        sha = commit_all(self.root, f"version {number}", FIRST_TIME + number)
        self.shas.append(sha)
        self.files.append(git_files(self.root, sha) | {f"data/{name}": content for name, content in data.items()})
        return sha

    def back_to(self, number: int) -> None:
        """Move the branch to an earlier version, as a force-push does."""
        git(self.root, "reset", "-q", "--hard", self.shas[number])

    def digests(self) -> dict[str, dict[str, int]]:
        """Give path -> digest of its content -> the last version that has it, for readers in other processes."""
        found: dict[str, dict[str, int]] = {}
        for number, files in enumerate(self.files):
            for path, data in files.items():
                found.setdefault(path, {})[hashlib.sha256(data).hexdigest()] = number
        return found


def history(path: Path, versions: int = 1) -> History:
    made = History(new_repository(path))
    for _ in range(versions):
        made.commit()
    return made


def body(name: str, version: int) -> bytes:
    """Give content whose every line, and length, depend on the version."""
    return b"".join(b"%s v%d line %d\n" % (name.encode(), version, line) for line in range(400 + 7 * version))


@contextlib.contextmanager
def never_longer(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds
