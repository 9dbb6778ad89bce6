"""Every command that the documents show is run; `support/documents.py` says how."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import DETACH, Home
from support.documents import ROOT, RUN, SHELLS, Block, blocks, indented_commands, pages
from support.hubs import hub
from support.repos import Truth, git, sample_repository

pytestmark = pytest.mark.mount

SHIMS = Path(__file__).parent / "shims"
TRAIN = """
import os, sys
assert sys.argv[1] == "--data"
sizes = [os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(sys.argv[2]) for name in names]
assert len(sizes) > 30, sizes
"""
BLOCK_SECONDS = 60
PORTS = re.compile(r"127\.0\.0\.1:(9\d{3})\b")
"""Ports that the documents name; each page gets free ones in their places."""


def pages_with_commands() -> list[Path]:
    return [page for page in pages() if any(block.language in RUN and not _left_out(block) for block in blocks(page))]


def _left_out(block: Block) -> bool:
    return block.how in ("not run", "run by")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    truth = sample_repository(tmp_path_factory.mktemp("documented") / "my-repository")
    for words in (("branch", "feature/x"), ("tag", "v1.2")):
        git(truth.path, *words)
    return truth


@pytest.fixture(scope="module")
def url(repository: Truth) -> Iterator[str]:
    with hub(repository.path, name="owner/name") as running:
        yield running


class Reader:
    """Somebody who follows a page: a home, a directory with the checkout and a train.py in it, and a hub."""

    def __init__(self, root: Path, repository: Path, url: str) -> None:
        self.work = root / "work"
        self.state = root / "state"
        self.home = Home(root / "home")
        for directory in (self.work, self.state, self.home.root):
            directory.mkdir()
        (self.work / "dagfs").symlink_to(ROOT)
        (self.work / "train.py").write_text(TRAIN)
        (self.work / "token.txt").write_text("0123456789abcdef" * 2 + "01234567\n")
        shutil.copytree(repository, self.home.root / "my-repository", symlinks=True)
        self._ports: dict[str, str] = {}
        path = [str(SHIMS), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.home.extra = {
            "PATH": ":".join(path),
            "DAGSHUB_CLIENT_HOST": url.rpartition("/owner/")[0],
            "DOCS_STATE": str(self.state),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._begin()

    def follow(self, block: Block) -> None:
        if block.how == "each line alone":
            for line in block.lines():
                if re.search(r"\bdagfs mount\b", line):
                    self.unmount()
                self.run(line, block)
        else:
            self.run(block.text, block)

    def run(self, script: str, block: Block) -> None:
        """Run commands in the page's shell, which goes on to the next block with its variables and jobs."""
        path = self.state / "block.sh"
        path.write_text(self._fitted(script))
        self._said.seek(0)
        self._said.truncate()
        self._shell.stdin.write(f". {path} </dev/null; echo done >&{self._done[1]}\n")
        self._shell.stdin.flush()
        came = select.select([self._done[0]], [], [], BLOCK_SECONDS)[0] and os.read(self._done[0], 16)
        self._said.seek(0)
        assert came == b"done\n", f"{block.where}\n{script}\n{self._said.read()}"

    def _begin(self) -> None:
        """Start the shell. It ends where a command fails, and with it the last writer of the pipe that tells."""
        self._said = open(self.state / "said", "w+")  # noqa: SIM115 -- open as long as the shell is
        self._done = os.pipe()
        self._shell = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            cwd=self.work,
            env=self.home.environment(),
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            text=True,
            pass_fds=(self._done[1],),
            start_new_session=True,
        )
        os.close(self._done[1])

    def _fitted(self, script: str) -> str:
        """Put in what a reader would: another terminal for `dagfs serve`, the address that it prints, free ports."""
        script = re.sub(r"^(dagfs serve\b[^\n&]*)$", r"aside \1", script, flags=re.MULTILINE)
        script = re.sub(r"(?<!prints )http://127\.0\.0\.1:PORT/OWNER/NAME", '"$(cat "$DOCS_STATE/url")"', script)
        return PORTS.sub(lambda port: f"127.0.0.1:{self._ports.setdefault(port[1], _free_port())}", script)

    def unmount(self) -> None:
        for report in self.home.status():
            self.home.run("unmount", report["mountpoint"])

    def leave(self) -> None:
        """Leave neither mounts nor servers."""
        for report in self.home.status():
            if self.home.run("unmount", report["mountpoint"], check=False).returncode:
                subprocess.run([*DETACH, report["mountpoint"]], timeout=10, stderr=subprocess.DEVNULL)
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        pids = self.state / "pids"
        for pid in (self._shell.pid, *map(int, pids.read_text().split() if pids.exists() else ())):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._shell.wait(10)
        os.close(self._done[0])
        self._said.close()


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.mark.parametrize("page", pages_with_commands(), ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.skipif(os.geteuid() != 0, reason="what stands behind sudo is run as root")
def test_every_command_of_a_page_can_be_followed(page, repository, url, tmp_path):
    reader = Reader(tmp_path, repository.path, url)
    try:
        for block in blocks(page):
            if block.language in RUN and not _left_out(block):
                reader.follow(block)
    finally:
        reader.leave()


def everything() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def test_every_block_says_what_it_is_written_in():
    assert [block.where for block in everything() if not block.language] == []
    assert [block.where for block in everything() if block.language in SHELLS and block.language not in RUN] == []


def test_no_command_is_shown_by_indentation_alone():
    assert [place for page in pages() for place in indented_commands(page)] == []


def test_a_command_that_is_not_run_has_a_reason():
    left = [block for block in everything() if block.how == "not run"]
    assert [block.where for block in left if len(block.why.split()) < 2] == []


def test_what_runs_a_command_elsewhere_exists():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = [
        block.where
        for block in everything()
        if block.how == "run by" and not (ROOT / block.why).is_file() and not re.search(rf"def {block.why}\(", tests)
    ]
    assert there == []


def test_a_marker_stands_before_a_block_of_commands():
    assert [block.where for block in everything() if block.how and block.language not in RUN] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="as above")
@pytest.mark.parametrize("text", ["dagfs status --no-such-option", "cd nowhere\ntrue", "false | true"])
def test_a_page_that_is_wrong_is_noticed(text, repository, url, tmp_path):
    reader = Reader(tmp_path, repository.path, url)
    try:
        with pytest.raises(AssertionError, match=r"README\.md:1"):
            reader.follow(Block(ROOT / "README.md", 1, "sh", text))
    finally:
        reader.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="as above")
def test_a_page_is_followed_in_one_shell(repository, url, tmp_path):
    reader = Reader(tmp_path, repository.path, url)
    try:
        for text in ("sleep 50 & cd dagfs", 'kill "$!"; test -f pyproject.toml'):
            reader.follow(Block(ROOT / "README.md", 1, "sh", text))
    finally:
        reader.leave()
