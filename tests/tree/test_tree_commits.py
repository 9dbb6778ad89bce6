"""Trees of several commits in one mount: their node ids, and what is listed ahead of a change."""

from __future__ import annotations

import gc
import weakref

import pytest
from support.world import Values, World

from dagfs.answers import wait
from dagfs.daemon.generation import Trees
from dagfs.errors import NotFound, ProtocolError, RemoteUnavailable, Unsupported
from dagfs.hub.memory import MemorySource
from dagfs.metrics import Metrics
from dagfs.model import Entry, Kind, Span, Urgency, Versioning
from dagfs.tree.numbers import BOOK_BITS, NumberBook
from dagfs.tree.tree import Pinned, Tree
from dagfs.vfs.generations import ORDINAL_SHIFT

FILES = {f"{top}/{below}/f": b"x" for top in "ab" for below in "cde"} | {"own": b"o"}


def tree_of(world: World, commit, ordinal: int) -> Tree:
    pinned = Pinned(world.source.repo, commit, "", f"m{ordinal}", ordinal)
    return Tree(world.source, pinned, world.values, world.workers, Metrics())


def list_all(tree: Tree, *paths: str) -> None:
    for path in paths:
        place = wait(tree.place(1))
        for name in path.split("/") if path else ():
            place = wait(tree.lookup(place.node, name.encode()))
        wait(tree.listing(place, sized="d" in path))


def test_node_ids_tell_the_commit():
    with World(FILES) as world:
        for ordinal in (1, 2, 65_535):
            tree = tree_of(world, world.source.commit, ordinal)
            assert tree.unnumbered
            tree.prepare()
            row = wait(tree.lookup(1, b"own"))
            assert row.node >> ORDINAL_SHIFT == ordinal
            again = tree_of(world, world.source.commit, ordinal)  # as after a restart
            assert not again.unnumbered
            assert wait(again.place(row.node)).entry.path == "own"


def test_a_tree_that_is_still_in_use_is_not_made_a_second_time():
    """Two would give one number to two paths."""
    trees = Trees()
    with World(FILES) as world:
        first = trees.get(1, lambda: tree_of(world, world.source.commit, 1))
        first.prepare()
        row = wait(first.lookup(1, b"own")).node
        assert trees.get(1, lambda: tree_of(world, world.source.commit, 1)) is first
        assert trees.get(2, lambda: tree_of(world, world.source.commit, 2)) is not first
        used = weakref.ref(first)
        del first
        gc.collect()
        assert used() is None
        again = trees.get(1, lambda: tree_of(world, world.source.commit, 1))
        assert not again.unnumbered
        assert wait(again.place(row)).entry.path == "own"


def test_a_book_gives_no_number_of_the_next_commits():
    book = NumberBook(Values(), "b", new_origin=lambda: 5 << BOOK_BITS, limit=4)
    entries = [Entry(f"d{i}", Kind.DIRECTORY, Versioning.GIT) for i in range(4)]
    assert [book.give(entry, early=False) >> BOOK_BITS for entry in entries[:3]] == [5] * 3
    with pytest.raises(Unsupported):
        book.give(entries[3], early=False)


def test_what_was_listed_is_listed_in_the_next_commit_and_nothing_else():
    with World(FILES) as world:
        old = tree_of(world, world.source.commit, 1)
        old.prepare()
        list_all(old, "a", "a/c", "a/d", "b/e")
        new_files = {path: body for path, body in FILES.items() if not path.startswith("b/e")}
        commit = world.source.publish(new_files | {"a/c/g": b"y"})
        world.source.calls.clear()
        new = tree_of(world, commit, 2)
        new.prepare()
        new.prepare_like(old, 100)
        assert dict(world.source.calls) == {"list:": 1, "list:a": 1, "list:a/c": 1, "list-sized:a/d": 1}
        list_all(new, "a/c", "a/d")
        assert sum(world.source.calls.values()) == 4


def test_a_listing_that_the_hub_does_not_give_now_fails_the_preparation_and_what_came_is_kept():
    with World(FILES) as world:
        old = tree_of(world, world.source.commit, 1)
        old.prepare()
        list_all(old, "a", "a/c")
        commit = world.source.publish(FILES | {"new": b""})
        world.source.fail("list:a/c", RemoteUnavailable("503"))
        new = tree_of(world, commit, 2)
        new.prepare()
        with pytest.raises(RemoteUnavailable):
            new.prepare_like(old, 100)
        world.source.calls.clear()
        new.prepare()
        new.prepare_like(old, 100)
        assert dict(world.source.calls) == {"list:a/c": 1}


@pytest.mark.parametrize("error", [ProtocolError("nonsense"), NotFound("a/c")])
def test_a_directory_that_cannot_be_listed_at_all_does_not_hold_the_commit_back(error):
    with World(FILES) as world:
        old = tree_of(world, world.source.commit, 1)
        old.prepare()
        list_all(old, "a", "a/c")
        commit = world.source.publish(FILES | {"new": b""})
        world.source.fail("list:a/c", error)
        new = tree_of(world, commit, 2)
        new.prepare()
        new.prepare_like(old, 100)


def test_there_is_a_bound_on_what_is_listed_ahead():
    with World(FILES) as world:
        old = tree_of(world, world.source.commit, 1)
        old.prepare()
        list_all(old, "a", "b", "a/c", "a/d")
        commit = world.source.publish(FILES | {"new": b""})
        world.source.calls.clear()
        new = tree_of(world, commit, 2)
        new.prepare()
        new.prepare_like(old, 3)
        assert dict(world.source.calls) == {"list:": 1, "list:a": 1, "list:b": 1}


def test_a_tree_at_rest_holds_little_and_still_answers():
    with World({f"d{i}/f{j}": b"x" for i in range(20) for j in range(50)}) as world:
        tree = tree_of(world, world.source.commit, 1)
        tree.prepare()
        list_all(tree, *(f"d{i}" for i in range(20)))
        assert len(tree._listings.held()) == 21
        tree.rest(6_000)
        assert len(tree._listings.held()) <= 2
        world.source.calls.clear()
        list_all(tree, "d3")
        assert dict(world.source.calls) == {}  # from the store


def test_contents_are_asked_for_in_the_commit_of_their_tree():
    """One cache and one fetcher serve all commits of a mount."""
    source = MemorySource({"f": b"old"}, versioning=Versioning.GIT)
    with World(source=source, real_cache=True) as world:
        first = tree_of(world, source.commit, 1)
        first.prepare()
        second = tree_of(world, source.publish({"f": b"new one"}), 2)
        second.prepare()
        contents = [tree.content(wait(tree.lookup(1, b"f"))) for tree in (second, first)]
        read = [wait(world.cache.read(c, Span(0, 7), Urgency.READER), 10) for c in contents]
        assert read == [b"new one", b"old"]
