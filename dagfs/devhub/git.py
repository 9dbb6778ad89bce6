"""A git repository's objects through git's own plumbing: names as bytes, long-lived processes, no working tree."""

from __future__ import annotations

import io
import os
import re
import subprocess  # each call is judged where it is  # nosec B404
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dagfs.errors import NotFound, UsageError

HEX = re.compile(rb"[0-9a-f]{5,40}\Z")
_REF_NAME = re.compile(rb"(?!.*(\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]{1,1000}\Z", re.DOTALL)

_QUESTIONS_AT_ONCE = 500
"""Names written before an answer is read: 20 KB, so that neither pipe (64 KiB) can fill up and lock both ends."""

_COPY_BYTES = 1 << 20


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
        self._contents = _Pool(self._start("--batch"))
        self._checks = _Pool(self._start("--batch-check"))

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


class _Process:
    """One `git cat-file`, used by one thread at a time."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- no shell  # nosec B603
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C is for the server, which ends its processes itself
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both were asked for")
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout

    def ask(self, lines: bytes) -> None:
        self._input.write(lines)
        self._input.flush()

    def answer(self) -> bytes:
        line = self._output.readline()
        if not line:
            raise UsageError("git cat-file ended: the repository is gone or damaged")
        return line.rstrip(b"\n")

    def pour(self, size: int, target: IO[bytes]) -> None:
        """Copy the bytes of the object that was announced, and drop the line feed behind them."""
        left = size
        while left:
            chunk = self._output.read(min(left, _COPY_BYTES))
            if not chunk:
                raise UsageError("git cat-file ended in the middle of an object")
            target.write(chunk)
            left -= len(chunk)
        self._output.read(1)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()


class _Pool:
    """Idle processes of one kind. No more run than threads ask at once; a process whose user failed is ended."""

    _KEPT = 4

    def __init__(self, start: tuple[list[str], dict[str, str]]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._idle: list[_Process] = []  # under the lock; each has answered all that it was asked
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[_Process]:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or _Process(*self._start)
        healthy = False
        try:
            yield process
            healthy = True
        finally:
            if not (healthy and self._keep(process)):
                process.end()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _keep(self, process: _Process) -> bool:
        with self._lock:
            keep = not self._closed and len(self._idle) < self._KEPT
            if keep:
                self._idle.append(process)
        return keep


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
