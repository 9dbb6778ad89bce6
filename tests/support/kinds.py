"""A commit with each kind of content in each size, and readers that compare all of it with the truth."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.buckets import TOP, bucket
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

from dagfs.devhub.behaviour import RequestInfo
from dagfs.fetch.seam import WHOLE_MAX

SIZES = {"empty": 0, "small": 120_001, "large": WHOLE_MAX + 300_001}
KINDS = ("git", "dvc2", "dvc3", "texts")
READERS = {"one": 1, "eight": 8}
POND = f"{TOP}/s3/pond"
"""Where the objects of the connected bucket are."""

DIRECTORIES = {who: [*(f"{who}/{kind}" for kind in KINDS), f"{POND}/{who}"] for who in READERS}
_OF_POND = re.compile(r"/storage/(raw|content)/s3/pond/(.+)")


def aim(request: RequestInfo) -> tuple[str, str]:
    """Give what a request asks for, "raw" or "listing" of a path of the tree: of objects and folders of the bucket as
    well, which devhub tells otherwise."""
    found = _OF_POND.search(request.path) if request.kind == "storage" else None
    if found is None:
        return request.kind, request.path
    return {"raw": "raw", "content": "listing"}[found[1]], f"{POND}/{found[2]}"


def noise(path: str, size: int) -> bytes:
    return random.Random(path).randbytes(size)


def every_kind_of_content(path: Path) -> Truth:
    """Make the repository: `one/` is for one reader, `eight/` has the same kinds for eight."""
    root = new_repository(path)
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
    objects = {f"{who}/{size}.bin": noise(f"{who}bucket{size}", n) for who in READERS for size, n in SIZES.items()}
    pond = bucket(path.with_name(f"{path.name}-pond"), objects)
    files = git_files(root, head) | held | {f"{POND}/{name}": data for name, data in objects.items()}
    return Truth(root, head, {head: files}, {head: frozenset(held)}, {"main": head}, storages={"s3:pond": pond})


def of(contents: Truth, who: str, *, size: str = "") -> dict[str, bytes]:
    """Give the files that `who` reads."""
    return {
        path: data
        for path, data in contents.files.items()
        if path.startswith(tuple(f"{where}/" for where in DIRECTORIES[who])) and size in path
    }


def differences(contents: Truth, data: Path, errors: tuple[str, ...] = ()) -> list[str]:
    """Read everything: a file under `one/` by one of five programs, under `eight/` by each of eight."""
    with ThreadPoolExecutor(8) as pool:
        alone = [pool.submit(survey, data, where) for where in DIRECTORIES["one"]]
        crowd = pool.submit(survey, data, *DIRECTORIES["eight"], readers=8)
        found = {
            "one": Survey([{k: v for one in alone for k, v in one.result().found[0].items()}]),
            "eight": crowd.result(),
        }
    return [row for who, seen in found.items() for row in seen.differences(of(contents, who), errors=errors)]
