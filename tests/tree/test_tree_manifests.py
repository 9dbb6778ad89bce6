"""Listings that come all at once, from the manifest of a directory that DVC tracks."""

import threading

import pytest
from support.world import DEADLINE, World

from dagfs.answers import wait
from dagfs.errors import ProtocolError
from dagfs.hub.memory import MemorySource
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.listing import ROOT_NODE

FILES = {f"data/d{i}/f{j}": b"x" * (10 * i + j) for i in range(3) for j in range(2)} | {"data/top": b"1", "other": b"2"}


class Manifests(MemorySource):
    """A hub that tells all below `data` at once, with a file more in `data/d1` than its own listing has."""

    error = None

    def below(self, commit, directory):
        self.calls[f"below:{directory.path}"] += 1
        if directory.path != "data":
            return
        if self.error is not None:
            raise self.error
        children = self._snapshots[commit.sha].children
        for path in ("data/d0", "data/d1", "data/d2", "data"):
            entries = [Entry(e.path, e.kind, e.versioning, e.hash) for e in children[path].values()]
            if path == "data/d1":
                entries.append(Entry("data/d1/a", Kind.FILE, Versioning.DVC, "0" * 32))
            yield path, entries


@pytest.fixture
def world():
    with World(source=Manifests(FILES)) as world:
        yield world


def place(world, path):
    found = wait(world.tree.place(ROOT_NODE))
    for name in path.split("/"):
        found = wait(world.tree.lookup(found.node, name.encode()), DEADLINE)
    return found


def names(world, path):
    listing = wait(world.tree.listing(place(world, path)), DEADLINE)
    return [listing.path(position).rpartition("/")[2] for position in range(len(listing))]


def test_one_answer_is_the_listing_of_every_directory_below(world):
    assert names(world, "data") == ["d0", "d1", "d2", "top"]
    before = world.calls
    assert names(world, "data/d0") == ["f0", "f1"]
    assert names(world, "data/d1") == ["a", "f0", "f1"]
    assert world.calls == before
    assert not any(call.startswith("list:data") for call in before)


def test_what_a_manifest_told_is_there_after_a_restart(world):
    names(world, "data")
    world.restart()
    before = world.calls
    assert names(world, "data/d2") == ["f0", "f1"]
    assert world.calls == before


def test_a_listing_that_is_there_stays_as_node_ids_are_places_in_it(world):
    assert names(world, "data/d1") == ["f0", "f1"]
    assert names(world, "data") == ["d0", "d1", "d2", "top"]
    assert names(world, "data/d1") == ["f0", "f1"]
    world.restart()
    assert names(world, "data/d1") == ["f0", "f1"]


def test_sizes_are_the_hubs_to_tell(world):
    listing = wait(world.tree.sized(place(world, "data").entry), DEADLINE)
    assert listing.bytes_known == 1
    assert world.calls["list-sized:data"] == 1


def test_many_who_ask_at_once_cost_one_answer(world):
    threads = [threading.Thread(target=names, args=(world, "data")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert world.calls["below:data"] == 1


def test_a_manifest_that_fails_is_an_error_of_that_listing_only(world):
    world.source.error = ProtocolError("broken")
    with pytest.raises(ProtocolError):
        names(world, "data")
    assert names(world, "data/d0") == ["f0", "f1"]
