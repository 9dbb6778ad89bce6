"""Directories that are larger than dagfs lists: an error of their own, and their files can be opened by name."""

from __future__ import annotations

import threading

import pytest
from support.world import World

from dagfs.errors import TooLarge
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree import builder
from dagfs.tree.builder import Giants


def entries(count: int, start: int = 0) -> list[Entry]:
    return [Entry(f"d/f{i}", Kind.FILE, Versioning.GIT) for i in range(start, start + count)]


def test_a_file_of_a_directory_that_is_too_large_is_read_and_others_are_listed(monkeypatch):
    monkeypatch.setattr(builder, "ROWS_MAX", 50)
    files = {f"big/f{i}": b"%d" % i for i in range(60)} | {"small/a": b"a"}
    with World(files) as world:
        for _ in range(2):
            with pytest.raises(TooLarge):
                world.list("big")
        assert world.read("big/f7") == b"7"
        assert world.names("small") == [b"a"]
        assert world.read("big/f59") == b"59"


def test_giants_are_built_one_at_a_time_and_small_listings_beside_them(monkeypatch):
    monkeypatch.setattr(builder, "GIANT_BYTES", 1000)
    giants = Giants()
    state = threading.Condition()
    far: dict[str, int] = {"one": 0, "two": 0}
    go_on = threading.Event()

    def feed(name):
        for i in range(20):
            with state:
                far[name] = i
                state.notify_all()
            if i == 10:
                go_on.wait(20)
            yield entries(20, i * 20)

    results: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(len(giants.build("d", feed(name))))) for name in far
    ]
    for thread in threads:
        thread.start()
    with state:
        assert state.wait_for(lambda: max(far.values()) == 10, 20)
    assert len(giants.build("d", [entries(5)])) == 5
    with state:
        assert not state.wait_for(lambda: min(far.values()) > 3, 0.3)  # the other one waits at its thousandth byte
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert results == [400, 400]


def test_a_giant_that_fails_lets_the_next_one_in(monkeypatch):
    monkeypatch.setattr(builder, "GIANT_BYTES", 10)
    monkeypatch.setattr(builder, "ROWS_MAX", 100)
    giants = Giants()
    for _ in range(2):
        with pytest.raises(TooLarge):
            giants.build("d", [entries(60), entries(60, 60)])
    assert len(giants.build("d", [entries(60)])) == 60


def test_a_listing_given_up_ends_its_transfer(monkeypatch):
    monkeypatch.setattr(builder, "ROWS_MAX", 10)
    ended: list[bool] = []

    def batches():
        try:
            while True:
                yield entries(6)
        finally:
            ended.append(True)

    with pytest.raises(TooLarge) as kept:
        builder.build("d", batches())
    assert ended == [True]
    assert kept.value is not None


def test_a_tree_without_end_ends_where_paths_do():
    """As of a hub that lists each directory in itself."""
    deep = "/".join("d" for _ in range(3000)) + "/f"
    with World({deep: b"x", "a": b"a"}) as world:
        with pytest.raises(TooLarge):
            world.walk_to(deep)
        with pytest.raises(TooLarge):
            world.list("/".join("d" for _ in range(2049)))
        assert world.kinds("/".join("d" for _ in range(2047))) == {b"d": Kind.DIRECTORY}
        assert world.read("a") == b"a"


def test_the_names_that_are_kept_for_status_count_as_memory():
    hidden = [Entry(f"d/{'n' * 1000}{i}", Kind.FILE, Versioning.GIT) for i in range(100)]
    assert builder.build("d", [hidden]).cost > 100_000
