"""`dagfs warm`, the daemon's side."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.hubs import hub
from support.repos import commit_all, new_repository, put_dvc_directory
from support.rooms import rooms

from dagfs.daemon.warming import Warmer
from dagfs.devhub.behaviour import Fault
from dagfs.tree.tree import Tree


def test_the_tree_is_walked_once_and_every_file_fetched_also_when_its_listing_has_left_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{folder}/{n}.bin": f"{folder} {n}".encode() * 50 for folder in "abc" for n in range(20)}
    root = new_repository(tmp_path / "repo")
    put_dvc_directory(root, "data", files)
    commit_all(root, "files")
    walked: Counter[str] = Counter()
    listing = Tree.listing

    def counted(tree: Tree, place, *, sized: bool = False):
        walked[place.entry.path] += 1
        return listing(tree, place, sized=sized)

    with hub(root) as url, rooms(url, tmp_path / "home") as built:
        monkeypatch.setattr(Tree, "listing", counted)
        steps = []
        for step in Warmer(built.core).answer({"paths": ["data", "data.dvc"]}):
            steps.append(step)
            built.core.tree.rest(0)  # of an earlier commit, for example
        assert walked == Counter(dict.fromkeys(("data", "data/a", "data/b", "data/c"), 1))
        assert steps[-1]["done_files"] == steps[-1]["files"] == len(files) + 1
        assert [step["failed"] for step in steps if step["failed"]] == []
        before = built.requests()
        assert {path: built.read(f"data/{path}") for path in files} == files
        assert built.requests() == before


def test_each_failure_is_told_once(tmp_path: Path) -> None:
    root = new_repository(tmp_path / "repo")
    put_dvc_directory(root, "data", {f"{n}.bin": bytes([n]) * 50 for n in range(40)})
    commit_all(root, "files")

    def refuse(request: Any) -> Fault | None:
        return Fault(status=403) if request.kind == "raw" and request.path.endswith("7.bin") else None

    with hub(root, fault=refuse) as url, rooms(url, tmp_path / "home") as built:
        steps = list(Warmer(built.core).answer({"paths": ["data"]}))
        failed = [line.partition(":")[0] for step in steps for line in step["failed"]]
        assert sorted(failed) == [f"data/{n}.bin" for n in (17, 27, 37, 7)]
