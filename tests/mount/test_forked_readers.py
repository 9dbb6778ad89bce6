"""Processes that were forked with an open file share its place in it, as the workers of a loader do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.commands import asked
from support.hubs import hub
from support.repos import commit_all, new_repository, put_dvc_directory
from support.waiting import until

from dagfs.devhub.behaviour import Fault

PAGE = 4096
SMALL, LARGE = 300, 3000
"""Pages: a file that comes whole, and one of 12 MB that comes in pieces."""

READERS = 8

PROGRAM = """
import json, os, sys
path, readers, page = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = os.open(path, os.O_RDONLY)
ends = []
for number in range(readers):
    mine, theirs = os.pipe()
    if os.fork() == 0:
        taken = []
        while got := os.read(file, page * (1 + number % 3)):  # each call goes on where another process's ended
            taken += [got[at : at + page].hex() for at in range(0, len(got), page)]
        os.close(file)
        with os.fdopen(theirs, "w") as out:
            json.dump([int(row[:16], 16) if row == row[:16] * (len(row) // 16) else row for row in taken], out)
        os._exit(0)
    os.close(theirs)
    ends.append(mine)
taken = [json.load(os.fdopen(end)) for end in ends]
for _ in ends:
    assert os.wait()[1] == 0
assert os.read(file, 1) == b""  # the parent's descriptor is still good, and at the end
os.lseek(file, 5 * page, os.SEEK_SET)
assert int.from_bytes(os.read(file, 8), "big") == 5
print(json.dumps(taken))
"""


def paged(pages: int) -> bytes:
    """Give content whose every page says which it is."""
    return b"".join(number.to_bytes(8, "big") * (PAGE // 8) for number in range(pages))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = new_repository(tmp_path_factory.mktemp("shared") / "repo")
    put_dvc_directory(root, "data", {"small.bin": paged(SMALL), "large.bin": paged(LARGE)})
    commit_all(root, "files")
    return root


def late(request):
    """So that readers wait together."""
    return Fault(delay=0.1) if request.kind == "raw" else None


@pytest.mark.parametrize(("name", "pages"), [("small.bin", SMALL), ("large.bin", LARGE)])
def test_forked_readers_of_one_descriptor_get_each_byte_once(shared, home, tmp_path, driver, name, pages):
    with (
        hub(shared, fault=late) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch", "--driver", driver) as data,
    ):
        path = data / "data" / name
        with start(path) as program:
            taken = told(program)
        assert Counter(page for reader in taken for page in reader) == Counter(range(pages))
        assert all(reader == sorted(reader) for reader in taken)
        sent = asked(url)["raw_paths"][f"data/{name}"]
        assert sent == 1 if name == "small.bin" else sent < pages / 32  # not one for each read


def test_forked_readers_of_one_descriptor_see_a_pause_when_the_worker_is_killed(shared, home, tmp_path):
    name = "data/large.bin"
    with hub(shared, fault=late) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        worker = home.status()[0]["workers"][0]
        with start(data / name) as program:
            until(lambda: asked(url)["raw_paths"].get(name))
            before = asked(url)["raw_paths"][name]
            os.kill(worker, signal.SIGKILL)
            taken = told(program)
        assert asked(url)["raw_paths"][name] > before
        assert Counter(page for reader in taken for page in reader) == Counter(range(LARGE))


def start(path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, str(path), str(READERS), str(PAGE)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(program: subprocess.Popen[str]) -> list[list[int]]:
    """Give the pages that each reader has got."""
    try:
        out, error = program.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        program.kill()
        raise
    assert program.returncode == 0, error
    return json.loads(out)
