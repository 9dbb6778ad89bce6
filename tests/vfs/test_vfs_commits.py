"""The real rooms of many commits in one mount, over a hub in memory."""

from __future__ import annotations

import gc
from types import SimpleNamespace

from support.generations import Ledger
from support.world import World

from dagfs.daemon.generation import Change, Trees
from dagfs.metrics import Metrics
from dagfs.model import Commit
from dagfs.repository.core import RESTING_BYTES, Rooms
from dagfs.tree.tree import Pinned, Tree
from dagfs.vfs.core import Vfs
from dagfs.vfs.generations import KEPT, Generations
from dagfs.vfs.seam import ROOT


def files(number: int) -> dict[str, bytes]:
    return {f"d/f{i}": b"%d of %d" % (i, number) for i in range(5)} | {"same": b"same", f"only{number}": b"x"}


def following(world: World, trees: Trees) -> Generations[Rooms]:
    def tree(commit: Commit, ordinal: int) -> Tree:
        pinned = Pinned(world.source.repo, commit, "", f"m{ordinal}", ordinal)
        return Tree(world.source, pinned, world.values, world.workers, world.metrics)

    def build(commit: Commit, ordinal: int) -> Rooms:
        one = trees.get(ordinal, lambda: tree(commit, ordinal))
        return Rooms(one, SimpleNamespace(enabled=True), Vfs(one, world.cache, world.store.size, Metrics()))

    ledger = Ledger(world.source.commit)
    return Generations(ledger, build, world.workers.submit, takes_over=False)


def node(fs: Generations[Rooms], path: str) -> int:
    found = ROOT
    for name in path.split("/"):
        found = World.wait(fs.lookup(found, name.encode())).node
    return found


def test_commits_are_let_go_and_their_open_files_are_read_all_the_same():
    trees, opened = Trees(), {}
    with World(files(1), real_cache=True) as world:
        fs = following(world, trees)
        change = Change(fs, "", lambda: None)
        for number in range(1, 13):
            if number > 1:
                assert change.prepare(world.source.publish(files(number))).show(lambda: True)
            opened[number] = node(fs, "d/f3")
            names = [name for name, _, _ in World.wait(fs.readdir(ROOT)).rows(0, 9)]
            assert names == [b"d", b"only%d" % number, b"same"]
        gc.collect()
        assert len(trees._used) <= KEPT + 1
        held = [tree._listings.memory_bytes for tree in trees._used.values()]
        assert held.count(RESTING_BYTES) >= len(held) - 1
        for number, one in opened.items():  # none was read before
            assert World.wait(fs.read(one, 0, 100)) == b"3 of %d" % number
        assert len(set(opened.values())) == 12
        gc.collect()
        assert len(trees._used) <= KEPT + 1


def test_what_both_commits_have_is_fetched_once():
    with World(files(1), real_cache=True) as world:
        fs = following(world, Trees())
        World.wait(fs.read(node(fs, "same"), 0, 9))
        assert Change(fs, "", lambda: None).prepare(world.source.publish(files(2))).show(lambda: True)
        assert World.wait(fs.read(node(fs, "same"), 0, 9)) == b"same"
        assert world.calls["open:same"] == 1
