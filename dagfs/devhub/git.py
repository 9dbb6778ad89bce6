"""A git repository's objects through git's own plumbing: names as bytes, long-lived processes, no working tree."""

from __future__ import annotations

import io
import os
import re
import subprocess  # each call is judged where it is  # nosec B404
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dagfs.devhub.git_process import Pool
from dagfs.errors import NotFound, UsageError

HEX = re.compile(rb"[0-9a-f]{5,40}\Z")
_REF_NAME = re.compile(rb"(?!.*(\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]{1,1000}\Z", re.DOTALL)

_QUESTIONS_AT_ONCE = 500
"""Names written before an answer is read: 20 KB, so that neither pipe (64 KiB) can fill up and lock both ends."""


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A line of a commit's tree: `mode` as git writes it (100644, 040000, 160000...), path in bytes."""

    mode: bytes
    oid: str
    path: bytes


@dataclass(frozen=True, slots=True)
class Person:
    """An author or committer."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit's own words; `time` is the committer's, in seconds since the epoch, `offset` its zone, as +0100."""

    sha: str
    message: str
    author: Person
    committer: Person
    time: int
    offset: str


class GitRepository:
    """Reads the objects of a repository, working tree or bare; thread-safe. Raises UsageError if it is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = _environment()
        self.git_dir = Path(self.run("rev-parse", "--absolute-git-dir").decode().rstrip("\n"))
        self._contents = Pool(self._start("--batch"))
        self._checks = Pool(self._start("--batch-check"))

    def run(self, *arguments: str) -> bytes:
        """Give git's output. Raises UsageError with git's own words."""
        done = self._run(*arguments)
        if done.returncode != 0:
            raise UsageError(f"{self.directory}: git says {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def resolve(self, ref: bytes) -> str | None:
        """Give the commit of a branch, a tag, or a full or short sha, in this order."""
        return self.branch(ref) or self.tag(ref) or self.commit(ref)

    def branch(self, name: bytes) -> str | None:
        return self._commit(b"refs/heads/" + name)

    def tag(self, name: bytes) -> str | None:
        return self._commit(b"refs/tags/" + name)

    def commit(self, sha: bytes) -> str | None:
        """Give the full sha of a commit named by 5 to 40 hex digits."""
        if not HEX.match(sha):
            return None
        found = self._commit(sha)
        return found if found is not None and found.startswith(sha.decode()) else None

    def head(self) -> str | None:
        """Give the commit of the default branch; None in a repository without commits."""
        return self._commit(b"HEAD") or self.branch(os.fsencode(self.default_branch()))

    def branches(self) -> list[tuple[str, str]]:
        """Give (name, commit) of every branch."""
        rows = self.run("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads").splitlines()
        split = (row.split(b" ", 1) for row in rows)
        return [(os.fsdecode(ref.removeprefix(b"refs/heads/")), oid.decode()) for oid, ref in split]

    def default_branch(self) -> str:
        """Give the branch that HEAD names, else main, master or the first one."""
        names = [name for name, _ in self.branches()]
        head = self._try("symbolic-ref", "-q", "--short", "HEAD")
        wanted = [os.fsdecode(head), "main", "master", *names]
        return next((name for name in wanted if name in names), "main")

    def tree(self, commit: str) -> Iterator[TreeRow]:
        """Give every path of a commit, directories before what is in them."""
        for row in self.run("ls-tree", "-r", "-t", "-z", "--full-tree", commit).split(b"\0"):
            if row:
                meta, path = row.split(b"\t", 1)
                mode, _, oid = meta.split(b" ")
                yield TreeRow(mode, oid.decode(), path)

    def sizes(self, oids: Iterable[str]) -> list[int]:
        """Give the objects' sizes in bytes, in the order asked. Raises NotFound."""
        names, answers = list(oids), []
        with self._checks.borrow() as process:
            for at in range(0, len(names), _QUESTIONS_AT_ONCE):
                some = names[at : at + _QUESTIONS_AT_ONCE]
                process.ask("".join(f"{oid}\n" for oid in some).encode())
                answers += [process.answer() for _ in some]
        return [_size(answer) for answer in answers]

    def read(self, oid: str) -> bytes:
        """Give an object's bytes. Raises NotFound."""
        buffer = io.BytesIO()
        self.copy(oid, buffer)
        return buffer.getvalue()

    def copy(self, oid: str, target: IO[bytes]) -> int:
        """Write an object's bytes to `target` and give their number. Raises NotFound."""
        with self._contents.borrow() as process:
            process.ask(f"{oid}\n".encode())
            answer = process.answer()
            if not answer.endswith(b" missing"):
                process.pour(_size(answer), target)
        return _size(answer)

    def describe(self, commit: str) -> CommitInfo:
        """Give a commit's author, time and message."""
        head, _, message = self.read(commit).partition(b"\n\n")
        fields = dict(line.split(b" ", 1) for line in head.split(b"\n") if b" " in line and line[:1] != b" ")
        author, _, _ = _person(fields[b"author"])
        committer, time, offset = _person(fields[b"committer"])
        return CommitInfo(commit, message.decode(errors="replace"), author, committer, time, offset)

    def changed_files(self, commit: str) -> list[str]:
        """Give the paths that a commit changed against its first parent."""
        names = self.run(
            "diff-tree", "-r", "-z", "--root", "--no-commit-id", "--name-only", "-m", "--first-parent", commit
        )
        return [name.decode(errors="replace") for name in names.split(b"\0") if name]

    def disk_bytes(self) -> int:
        """Give about how many bytes the objects take."""
        counts = dict(line.split(b": ") for line in self.run("count-objects", "-v").splitlines())
        return 1024 * (int(counts[b"size"]) + int(counts[b"size-pack"]))

    def remote_url(self) -> str:
        """Give the URL of the remote `origin`, "" when there is none."""
        return os.fsdecode(self._try("config", "--get", "remote.origin.url"))

    def close(self) -> None:
        """End git's processes."""
        self._contents.close()
        self._checks.close()

    def _commit(self, name: bytes) -> str | None:
        if not _REF_NAME.match(name):
            return None
        with self._checks.borrow() as process:
            process.ask(name + b"^{commit}\n")
            words = process.answer().split(b" ")
        return words[0].decode() if len(words) == 3 and words[1] == b"commit" else None

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "-C", str(self.directory), *arguments]
        try:
            return subprocess.run(command, env=self._environment, capture_output=True, check=False)  # noqa: S603 -- no shell  # nosec B603
        except FileNotFoundError:
            raise UsageError("git is not installed; a hub reads its repository through it") from None

    def _try(self, *arguments: str) -> bytes:
        """Give git's answer, empty when it has none."""
        return self._run(*arguments).stdout.rstrip(b"\n")

    def _start(self, mode: str) -> tuple[list[str], dict[str, str]]:
        return ["git", "-C", str(self.directory), "cat-file", mode], self._environment


def _size(answer: bytes) -> int:
    words = answer.rsplit(b" ", 2)
    if len(words) != 3 or not words[2].isdigit():
        raise NotFound(f"git has no such object: {answer.decode(errors='replace')}")
    return int(words[2])


def _person(field: bytes) -> tuple[Person, int, str]:
    """Split `Name <email> seconds zone`."""
    who, _, when = field.rpartition(b"> ")
    name, _, email = who.partition(b" <")
    seconds, _, zone = when.partition(b" ")
    return Person(name.decode(errors="replace"), email.decode(errors="replace")), int(seconds), zone.decode()


def _environment() -> dict[str, str]:
    """Drop what would point git elsewhere (it is set inside hooks), and what would make it ask or fetch."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith("GIT_CONFIG")}
    return inherited | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
