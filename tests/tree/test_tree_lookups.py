import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.waiting import until
from support.world import DEADLINE, World

from dagfs.answers import wait
from dagfs.errors import ContentChanged, NotADirectory, NotFound, RemoteUnavailable
from dagfs.hub.memory import MemorySource
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.builder import build
from dagfs.tree.listing import ROOT_NODE, inode_of
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers

FILES = {f"d{i}/f{j}": b"x" * (10 * i + j) for i in range(3) for j in range(5)} | {"a": b"1", "d1/sub/deep": b"22"}


@pytest.fixture
def world():
    with World(FILES) as world:
        yield world


def place(world, path):
    found = wait(world.tree.place(ROOT_NODE))
    for name in path.split("/"):
        found = wait(world.tree.lookup(found.node, name.encode()), DEADLINE)
    return found


def test_a_lookup_in_a_directory_that_is_not_listed_asks_for_that_path_only(world):
    md5 = hashlib.md5(FILES["d1/f3"]).hexdigest()
    assert place(world, "d1/f3").entry == Entry("d1/f3", Kind.FILE, Versioning.DVC, md5, 13)
    assert world.calls == {"list:": 1, "describe:d1/f3": 1}


def test_the_second_lookup_in_a_directory_starts_its_listing_which_then_answers_everything(world):
    place(world, "d1/f0")
    assert "list:d1" not in world.calls
    place(world, "d1/f1")
    until(lambda: world.tree.listing_of("d1") is not None)
    calls = world.calls
    place(world, "d1/f2")
    with pytest.raises(NotFound):
        place(world, "d1/none")
    assert world.calls == calls
    assert calls["list:d1"] == 1


def test_a_lookup_does_not_wait_for_a_listing():
    source = MemorySource(FILES)
    gate = threading.Event()
    listed = source.list_directory

    def slow(commit, path, *, sized):
        if path:
            assert gate.wait(DEADLINE)
        yield from listed(commit, path, sized=sized)

    source.list_directory = slow
    with World(source=source) as world:
        assert [place(world, f"d1/f{i}").entry.size for i in range(4)] == [10, 11, 12, 13]
        gate.set()


def test_lookups_of_one_path_at_once_are_one_request(world):
    world.source.latency = 0.05
    directory = place(world, "d2").node
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: wait(world.tree.lookup(directory, b"f1"), DEADLINE).node, range(8)))
    assert len(set(found)) == 1
    assert world.calls["describe:d2/f1"] == 1


def test_an_absent_path_is_asked_for_once(world):
    for _ in range(5):
        with pytest.raises(NotFound):
            place(world, "d2/none")
    assert world.calls["describe:d2/none"] == 1


def test_a_lost_network_is_not_absence_and_not_remembered(world):
    world.source.fail("describe:d2/f1", RemoteUnavailable("no route"))
    with pytest.raises(RemoteUnavailable):
        place(world, "d2/f1")
    assert place(world, "d2/f1").entry.size == 21


def test_names_that_no_directory_may_hold_are_absent_without_a_request(world):
    directory = place(world, "d2").node
    for name in (b"..", b".", b"x" * 256, b""):
        with pytest.raises(NotFound):
            wait(world.tree.lookup(directory, name))
    assert world.calls == {"list:": 1}


def test_a_path_below_a_file_is_not_a_directory(world):
    with pytest.raises(NotADirectory):
        place(world, "a/b")
    with pytest.raises(NotADirectory):
        wait(world.tree.listing(place(world, "a")))


def test_a_directory_is_listed_once_however_many_ask(world):
    world.source.latency = 0.05
    d1 = place(world, "d1")
    with ThreadPoolExecutor(8) as pool:
        listings = list(pool.map(lambda _: wait(world.tree.listing(d1), DEADLINE), range(8)))
    assert len({id(listing) for listing in listings}) == 1
    assert world.calls["list:d1"] == 1


def test_followers_share_the_failure_of_a_listing_and_the_next_asks_anew(world):
    d1 = place(world, "d1")
    gate = threading.Event()
    listed = world.source.list_directory

    def failing(commit, path, *, sized):
        assert gate.wait(DEADLINE)
        yield from listed(commit, path, sized=sized)

    world.source.list_directory = failing
    world.source.fail("list:d1", RemoteUnavailable("cut"), after=3)
    promises = [world.tree.listing(d1) for _ in range(5)]
    gate.set()
    for promise in promises:
        assert isinstance(promise.exception(DEADLINE), RemoteUnavailable)
    assert len(wait(world.tree.listing(d1), DEADLINE)) == 6
    assert world.calls["list:d1"] == 2


def test_a_restart_asks_the_hub_for_no_listing_again(world):
    for path in ("", "d1", "d1/sub"):
        world.list(path)
    before = world.calls
    world.restart(killed=True)
    world.tree.prepare()
    assert world.names("d1") == [b"f0", b"f1", b"f2", b"f3", b"f4", b"sub"]
    assert place(world, "d1/sub/deep").kind is Kind.FILE
    assert world.calls == before


def test_node_ids_survive_a_restart_whatever_order_things_were_found_in(world):
    early = {path: place(world, path).node for path in ("d1/f3", "d1/f4", "d2/f0", "d1/sub")}
    until(lambda: world.tree.listing_of("d1") is not None)
    listed = {path: place(world, path).node for path in ("a", "d0", "d1", "d1/f0", "d1/f3", "d1/sub", "d1/sub/deep")}
    assert listed["d1/f3"] == early["d1/f3"]  # an id that was told stays when the listing comes
    ids = early | listed
    assert len(set(ids.values())) == len(ids)
    world.restart(killed=True)
    before = world.calls
    for path, node in ids.items():
        found = wait(world.tree.place(node), DEADLINE)
        assert (found.entry.path, found.node) == (path, node)
    world.tree.prepare()
    assert {path: place(world, path).node for path in ids} == ids
    assert world.calls.get("describe:d1/f3") == before["describe:d1/f3"] == 1


def test_a_node_id_that_was_never_given_is_stale(world):
    for node in (0, 2, (1 << 24) + 99, 77 << 24, (1 << 60) + 5):
        with pytest.raises(ContentChanged):
            wait(world.tree.place(node), DEADLINE)


def test_inode_numbers_depend_on_the_path_alone():
    with World(FILES) as world:
        early = place(world, "d1/f3")
        first = early.rows.inode(early.position)
    with World(FILES) as world:
        listing = wait(world.tree.listing(place(world, "d1")), DEADLINE)
        inodes = [listing.inode(i) for i in range(len(listing))]
    assert first == inodes[3] == inode_of("d1/f3")
    assert len(set(inodes)) == 6
    assert min(inodes) > 1


def test_a_subdirectory_can_be_the_root():
    with World(FILES, root_path="d1") as world:
        assert world.names() == [b"f0", b"f1", b"f2", b"f3", b"f4", b"sub"]
        assert place(world, "sub/deep").entry.path == "d1/sub/deep"
        assert world.list("sub").parent_inode == 1


@pytest.mark.parametrize(("path", "error"), [("a", NotADirectory), ("none", NotFound)])
def test_a_root_that_is_no_directory_is_told_at_once(path, error):
    world = World(FILES, root_path=path)
    with pytest.raises(error):
        world.tree.prepare()
    world.stop()
    world.source.close()


def test_a_submodule_that_is_listed_as_a_directory_is_empty():
    source = MemorySource({"sub/x": b"", "a/b": b""}, versioning=Versioning.GIT)
    source.fail("list:sub", NotFound("sub"))
    with World(source=source) as world:
        assert world.names("sub") == []
        assert world.names("a") == [b"b"]
        world.restart()
        assert world.names("sub") == []
        assert world.calls["list:sub"] == 1


def test_a_dvc_directory_without_a_listing_is_an_error_and_not_empty():
    source = MemorySource({"data/x": b""})
    source.fail("list:data", NotFound("data"))
    with World(source=source) as world, pytest.raises(RemoteUnavailable.__base__, match="no listing"):
        world.names("data")


def test_listings_beyond_the_memory_bound_come_back_from_disk():
    files = {f"d{i:03}/f{j}": b"x" for i in range(40) for j in range(3)}
    with World(files) as world:
        world.tree._listings.memory_bytes = 10 * 2200
        for _ in range(2):
            for i in range(40):
                assert world.names(f"d{i:03}") == [b"f0", b"f1", b"f2"]
        held = world.tree._listings
        assert held._cost <= held.memory_bytes
        assert set(held._numbered.values()) == set(held._held.values()) >= set(held._nodes.values())
        assert all(world.calls[f"list:d{i:03}"] == 1 for i in range(40))


def test_a_damaged_store_costs_requests_and_nothing_else(world):
    world.list("d1")
    world.restart()
    for name in list(world.values):
        if "/listing/" in name:
            world.values[name] = world.values[name][:-3]
    world.tree.prepare()
    assert len(world.names("d1")) == 6
    assert world.calls["list:d1"] == 2


def test_two_mounts_of_one_commit_number_their_directories_apart(world):
    d1 = place(world, "d1")
    wait(world.tree.listing(d1), DEADLINE)
    pinned = Pinned(world.source.repo, world.source.commit, "", "2")
    other = Tree(world.source, pinned, world.values, world.workers, world.metrics)
    other.prepare()
    d2 = wait(other.lookup(1, b"d2"))
    wait(other.listing(d2), DEADLINE)
    child, sibling = wait(other.lookup(d2.node, b"f0")), wait(world.tree.lookup(d1.node, b"f0"))
    assert child.node != sibling.node
    world.restart()
    assert wait(world.tree.place(sibling.node), DEADLINE).entry.path == "d1/f0"


def test_workers_run_what_somebody_waits_for_before_what_may_be_wanted():
    workers = Workers(threads=2, background=1)
    gate, order, done = threading.Event(), [], [Future() for _ in range(4)]

    def job(n):
        def run():
            order.append(n)
            done[n].set_result(None)

        return run

    started = threading.Event()
    workers.submit(lambda: (started.set(), gate.wait(DEADLINE)), background=True)
    started.wait(DEADLINE)
    late = workers.submit(job(0), background=True)
    workers.submit(job(1), background=True)
    workers.submit(job(2))
    done[2].result(DEADLINE)
    assert order == [2]  # the one background place is taken
    workers.promote(late)
    done[0].result(DEADLINE)
    assert order == [2, 0]
    gate.set()
    done[1].result(DEADLINE)
    assert order == [2, 0, 1]
    workers.close()


def test_promoted_work_that_is_dropped_at_the_end_is_dropped_once():
    workers = Workers(threads=1, background=1)
    gate, started, dropped = threading.Event(), threading.Event(), []
    workers.submit(lambda: (started.set(), gate.wait(DEADLINE)))
    started.wait(DEADLINE)
    job = workers.submit(lambda: None, background=True, dropped=lambda: dropped.append("promoted"))
    workers.submit(lambda: None, dropped=lambda: dropped.append("urgent"))
    workers.promote(job)
    threading.Timer(0.1, gate.set).start()
    workers.close()
    assert sorted(dropped) == ["promoted", "urgent"]


def test_of_two_listings_of_a_directory_the_one_in_use_is_stored(world):
    """An unversioned directory may change between them; a restart must find the rows where the kernel knows them."""
    listings = world.tree._listings
    directory = place(world, "d1").entry
    held = wait(world.tree.listing(place(world, "d1")), DEADLINE)
    listings._recalled = lambda _: None  # as for a second flight that began before the first one had ended
    rows = [Entry("d1/a-new-one", Kind.FILE, Versioning.BUCKET), *(held.entry(i) for i in range(len(held)))]
    listings._download = lambda *_: build("d1", [rows])
    assert listings._load(directory, True) is held
    del listings._recalled
    world.restart()
    again = wait(world.tree.listing(place(world, "d1")), DEADLINE)
    assert again.columns.names == held.columns.names


def test_a_background_listing_that_failed_is_tried_again_later():
    files = {f"d/f{i:02}": b"x" for i in range(40)}
    with World(files) as world:
        world.source.fail("list:d", RemoteUnavailable("busy"), times=2)
        for i in range(40):
            place(world, f"d/f{i:02}")
            until(lambda: not world.tree._listings._flights)
        assert world.calls["list:d"] == 3
        assert world.calls.get("describe:d/f39") is None


def test_the_end_does_not_wait_for_a_hub_that_hangs(world):
    gate, begun = threading.Event(), threading.Event()

    def hang(*_, **__):
        begun.set()
        gate.wait(DEADLINE)
        return iter(())

    world.source.list_directory = hang
    running = world.tree.listing(place(world, "d1"))
    assert begun.wait(DEADLINE)
    started = time.monotonic()
    world.workers.close()
    assert time.monotonic() - started < DEADLINE / 2
    with pytest.raises(RemoteUnavailable, match="ending"):
        wait(world.tree.listing(place(world, "d2")), DEADLINE)
    gate.set()
    assert running.exception(DEADLINE) is None


def test_the_size_of_one_path_is_kept_when_its_listing_overtakes_the_answer(world):
    describe = world.source.describe

    def overtaken(commit, path, *, sized):
        wait(world.tree.listing(place(world, "d2")))
        return describe(commit, path, sized=sized)

    world.source.describe = overtaken
    assert place(world, "d2/f1").entry.size == 21
