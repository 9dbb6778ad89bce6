"""Right or nothing: kinds of content x faults x sizes x readers, through a real mount of a hub that fails on command.

Each mount holds every kind of content in both sizes; `one/` is read by one program, `eight/` by eight at once.
Connected buckets are not in the matrix: a mount does not show them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import Home, asked
from support.hubs import hub
from support.repos import (
    DVC_INIT,
    Truth,
    add_legacy_directory,
    add_legacy_file,
    commit_all,
    dos2unix_md5,
    dvc,
    git_files,
    new_repository,
    write_files,
)
from support.surveys import Survey, survey

from dagfs.devhub.behaviour import Behaviour, Fault, Redirect
from dagfs.fetch.seam import WHOLE_MAX

MiB = 1 << 20
SIZES = {"empty": 0, "small": 120_001, "large": WHOLE_MAX + 300_001}
KINDS = ("git", "dvc2", "dvc3", "texts")
READERS = {"one": 1, "eight": 8}
DIRECTORIES = {who: [f"{who}/{kind}" for kind in KINDS] for who in READERS}

STALL, PATIENCE = 1.0, 20.0
"""Seconds of the daemon under test, instead of 30 and 120."""

SHORT = (0.5, 3.0)
"""The same, where the hub never recovers."""


def noise(path: str, size: int) -> bytes:
    import random

    return random.Random(path).randbytes(size)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """A commit with each kind of content in each size."""
    root = new_repository(tmp_path_factory.mktemp("contents") / "repo")
    files = {
        f"{who}/{kind}": {f"{size}.bin": noise(f"{who}{kind}{size}", n) for size, n in SIZES.items()}
        for who in READERS
        for kind in ("git", "dvc2", "dvc3")
    }
    held = {f"{place}/{name}": data for place, rows in files.items() for name, data in rows.items()}
    write_files(root, {path: data for path, data in held.items() if "/dvc2/" not in path})
    dvc(root, f"{DVC_INIT}repo.add(['one/dvc3', 'eight/dvc3'])")
    for who in READERS:
        add_legacy_directory(root, f"{who}/dvc2", files[f"{who}/dvc2"])
        text = held[f"{who}/texts/crlf.txt"] = b"name\tscore\r\n" * (100 + len(who))
        (root / who / "texts").mkdir()
        add_legacy_file(root, f"{who}/texts/crlf.txt", text, dos2unix_md5(text))
    head = commit_all(root, "contents")
    return Truth(root, head, {head: git_files(root, head) | held}, {head: frozenset(held)}, {"main": head})


def of(contents: Truth, who: str, *, size: str = "") -> dict[str, bytes]:
    """Give the files that `who` reads."""
    return {
        path: data
        for path, data in contents.files.items()
        if path.startswith(tuple(f"{where}/" for where in DIRECTORIES[who])) and size in path
    }


def differences(contents: Truth, data: Path, errors: tuple[str, ...] = ()) -> list[str]:
    """Read everything: a file under `one/` by one of four programs, under `eight/` by each of eight."""
    with ThreadPoolExecutor(8) as pool:
        alone = [pool.submit(survey, data, where) for where in DIRECTORIES["one"]]
        crowd = pool.submit(survey, data, *DIRECTORIES["eight"], readers=8)
        found = {"one": Survey([{k: v for one in alone for k, v in one.result().found[0].items()}]), "eight": crowd.result()}
    return [row for who, seen in found.items() for row in seen.differences(of(contents, who), errors=errors)]


def first(count, *faults, kind="raw", size=""):
    """Let the first `count` answers for each path fail, by `faults` in turn."""

    def hook(request):
        hit = request.kind == kind and request.number < count and request.path.startswith(tuple(READERS))
        return faults[request.number % len(faults)] if hit and size in request.path else None

    return hook


def now_and_then(fault, every=4, kind="raw"):
    """Let the first answer for each path fail, and of those that follow one in `every`."""

    def hook(request):
        hit = request.kind == kind and request.number % every == 0 and request.path.startswith(tuple(READERS))
        return fault if hit else None

    return hook


FAULTS = {
    "none": first(0, Fault()),
    "a burst of 500": first(3, Fault(status=500)),
    "a burst of 502, 503 and 504": first(3, Fault(status=502), Fault(status=503), Fault(status=504)),
    "429 without Retry-After": first(2, Fault(status=429)),
    "429 with Retry-After": first(1, Fault(status=429, retry_after="1")),
    "503 with Retry-After": first(1, Fault(status=503, retry_after="1")),
    "a body cut at once": first(2, Fault(cut_after=0)),
    "bodies cut in the middle": now_and_then(Fault(cut_after=1_000)),
    "bodies cut one byte before their end": first(2, Fault(cut_after=120_000)),
    "a flipped byte in small files": first(2, Fault(flip=99_999), size="small"),
    "a longer Content-Length": first(2, Fault(length_error=7)),
    "a shorter Content-Length": first(2, Fault(length_error=-7)),
    "a body that ends early without a word": first(2, Fault(truncate=7)),
    "stalls at once": first(2, Fault(stall_after=0)),
    "stalls in the middle": first(2, Fault(stall_after=1_500)),
    "a silence before the head": first(1, Fault(delay=3 * STALL)),
    "resets in the middle": now_and_then(Fault(reset_after=2_000)),
    "resets at once": first(2, Fault(reset_after=0)),
    "a trickle of single bytes": first(1, Fault(drip=30)),
    "the name of another span": first(2, Fault(start_error=5)),
    "the bytes of another span after a cut, in small files": first(
        2, Fault(cut_after=1_000), Fault(misplaced=True), size="small"
    ),
    "gzip that nobody asked for": first(2, Fault(gzip=True)),
    "gzip that is cut": first(2, Fault(gzip=True, cut_after=200)),
    "gzip that is damaged": first(2, Fault(gzip=True, flip=200)),
    "gzip without its end": first(2, Fault(gzip=True, truncate=5)),
    "listings: a burst of 500": first(2, Fault(status=500), kind="listing"),
    "listings: 503 with Retry-After": first(1, Fault(status=503, retry_after="1"), kind="listing"),
    "listings: cut": first(2, Fault(cut_after=100), kind="listing"),
    "listings: JSON that ends early": first(2, Fault(truncate=30), kind="listing"),
    "listings: JSON that is none": first(2, Fault(flip=0), kind="listing"),
    "listings: JSON damaged in the middle": first(2, Fault(flip=120), kind="listing"),
    "listings: a wrong Content-Length": first(2, Fault(length_error=9), kind="listing"),
    "listings: stalls": first(2, Fault(stall_after=50), kind="listing"),
    "listings: resets": first(2, Fault(reset_after=50), kind="listing"),
    "listings: a trickle": first(1, Fault(drip=30), kind="listing"),
    "listings: gzip that is cut": first(2, Fault(gzip=True, cut_after=60), kind="listing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_a_retry_heals_is_seen_by_no_reader(contents, tmp_path, fault):
    home = Home(tmp_path / "home", deadlines=(STALL, PATIENCE))
    with hub(contents.path, fault=FAULTS[fault]) as url, home.mounted(url, tmp_path / "data") as data:
        assert differences(contents, data) == []
        raw = asked(url)["raw_paths"]
    print(fault, max(raw.values()), sum(raw.values()))
