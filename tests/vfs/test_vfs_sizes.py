"""Names first, sizes when asked: which requests make a size known depends on what the program does."""

import time

import pytest
from support.world import DEADLINE, World

from dagfs.answers import wait
from dagfs.errors import NotADirectory, NotFound, RemoteError, RemoteUnavailable
from dagfs.hub.memory import MemorySource
from dagfs.model import Kind, Versioning
from dagfs.vfs.sizing import PATIENCE, SizePolicy

FILES = {f"d{i}/f{j:02}": bytes([i]) * (100 + 10 * i + j) for i in range(4) for j in range(20)} | {"top": b"top"}


def count(world, kind):
    return sum(n for call, n in world.calls.items() if call.startswith(f"{kind}:"))


@pytest.fixture
def world():
    with World(FILES) as world:
        yield world


def stat_all(world, directory):
    listing = world.list(directory)
    return {name: world.wait(world.vfs.lookup(listing.node, name)).size for name, _, _ in listing.rows(0, 1000)}


def truth(directory):
    return {
        path[len(directory) + 1 :].encode(): len(data) for path, data in FILES.items() if path.startswith(directory)
    }


def test_the_first_stat_of_a_file_is_its_first_request_for_bytes_and_reading_needs_no_other(world):
    world.list("d1")
    assert world.walk_to("d1/f03").size == len(FILES["d1/f03"])
    assert world.read("d1/f03") == FILES["d1/f03"]
    assert world.calls == {"list:": 1, "list:d1": 1, "open:d1/f03": 1}


def test_reading_file_after_file_never_asks_for_a_sized_listing(world):
    world.list("d1")
    for j in range(20):
        assert world.read(f"d1/f{j:02}") == FILES[f"d1/f{j:02}"]
    assert count(world, "list-sized") == 0
    assert count(world, "open") == 20


def test_many_stats_without_reads_are_one_sized_listing(world):
    assert stat_all(world, "d1") == truth("d1")
    assert world.calls["list-sized:d1"] == 1
    assert count(world, "open") == PATIENCE


def test_after_one_directory_of_stats_the_others_are_listed_with_sizes_at_once(world):
    stat_all(world, "d0")
    opened = count(world, "open")
    for directory in ("d2", "d3"):
        assert world.list(directory).sizes_known
        assert stat_all(world, directory) == truth(directory)
    assert "list:d2" not in world.calls
    assert count(world, "open") == opened


def test_a_read_ends_the_stat_mode(world):
    stat_all(world, "d0")
    world.read("d0/f00")
    assert not world.list("d2").sizes_known
    assert world.calls["list:d2"] == 1


def test_a_sized_listing_that_fails_leaves_the_files_own_requests(world):
    world.source.fail("list-sized:d1", RemoteUnavailable("no sizes today"), times=100)
    assert stat_all(world, "d1") == truth("d1")


def test_sizes_that_were_learnt_survive_a_restart(world):
    stat_all(world, "d1")
    world.restart()
    world.tree.prepare()
    before = world.calls
    assert world.list("d1").sizes_known
    assert stat_all(world, "d1") == truth("d1")
    assert world.calls == before


def test_a_huge_directory_is_asked_for_its_sizes_later():
    policy = SizePolicy()
    assert [policy.looked_up(1, n, 20_000) for n in range(10)].index(True) == PATIENCE + 4
    policy = SizePolicy()
    assert any(policy.looked_up(1, n, 1 << 24) for n in range(300))


def test_lookups_that_are_followed_by_reads_are_no_sign_of_stat():
    policy = SizePolicy()
    for node in range(1000):
        assert not policy.looked_up(1, node, 100)
        policy.was_read(1, node)


def test_walk_and_stat_of_a_tree_takes_few_round_trips():
    files = {f"d{i:02}/f{j:02}": b"x" * (i + j) for i in range(50) for j in range(40)}
    with World(files) as world:
        world.source.latency = 0.02
        started = time.monotonic()
        sizes = {}
        for directory in world.names():
            for name, size in stat_all(world, directory.decode()).items():
                sizes[f"{directory.decode()}/{name.decode()}"] = size
        took = time.monotonic() - started
        assert sizes == {path: len(data) for path, data in files.items()}
        assert count(world, "open") <= 2 * PATIENCE
        assert count(world, "list-sized") <= 50
        assert count(world, "list") <= 12
        assert took < 10  # the count above is the rule; the bound only ends a walk that waits for each directory


def test_a_walk_lists_the_siblings_ahead_and_nothing_twice():
    files = {f"d{i:02}/f": b"x" for i in range(40)}
    with World(files) as world:
        for i in range(2):
            world.list(f"d{i:02}")
        end = time.monotonic() + DEADLINE
        while count(world, "list") < 7 and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.05)
        assert count(world, "list") == 1 + 2 + 4
        for i in range(2, 40):
            world.list(f"d{i:02}")
        assert count(world, "list") == 41


def test_two_directories_listed_out_of_order_are_no_walk(world):
    for directory in ("d3", "d1", "d0"):
        world.list(directory)
    time.sleep(0.05)
    assert count(world, "list") == 4


def test_a_git_path_without_content_is_the_empty_directory_of_a_submodule():
    source = MemorySource({"m/lib": b"", "m/x": b"xx"}, versioning=Versioning.GIT)
    source.fail("open:m/lib", NotFound("m/lib"), times=9)
    source.fail("list:m/lib", NotADirectory("m/lib"), times=9)
    with World(source=source) as world:
        world.list("m")
        found = world.walk_to("m/lib")
        assert found.kind is Kind.DIRECTORY
        assert world.names("m/lib") == []
        assert world.walk_to("m/x").size == 2
        assert world.kinds("m")[b"lib"] is Kind.DIRECTORY


def never_pushed(world, path):
    world.source.fail(f"open:{path}", NotFound(path), times=99)


def test_dvc_content_that_was_never_pushed_has_the_size_that_its_pointer_tells_and_cannot_be_read():
    pointer = b"outs:\n- md5: 0123456789abcdef0123456789abcdef\n  size: 1234\n  hash: md5\n  path: x\n"
    with World({"d/x": b"?", "d/x.dvc": pointer, "d/y": b"yy"}) as world:
        never_pushed(world, "d/x")
        world.list("d")
        found = world.walk_to("d/x")
        assert (found.size, found.kind) == (1234, Kind.FILE)
        with pytest.raises(RemoteUnavailable, match="no content"):
            wait(world.vfs.read(found.node, 0, 10), DEADLINE)
        assert world.read("d/y") == b"yy"


def test_content_whose_size_nobody_knows_is_an_error_of_that_path_alone():
    with World({"d/x": b"?", "d/y": b"yy"}) as world:
        never_pushed(world, "d/x")
        assert world.names("d") == [b"x", b"y"]
        with pytest.raises(RemoteError, match=r"d/x.*no content"):
            world.walk_to("d/x")
        assert world.read("d/y") == b"yy"


def test_a_file_that_the_store_holds_has_its_size_without_a_request(world):
    world.list("d1")
    world.read("d1/f00")
    world.values.clear()  # the listings are lost, the content is not
    cache = world.cache
    world.restart()
    world.cache._flights.update(cache._flights)
    world.tree.prepare()
    world.list("d1")
    before = world.calls
    assert world.walk_to("d1/f00").size == len(FILES["d1/f00"])
    assert world.calls == before


def test_sizes_learnt_from_reads_survive_an_orderly_restart(world):
    world.list("d1")
    world.read("d1/f03")
    world.restart()  # with an empty cache: only the listing can know
    world.tree.prepare()
    before = world.calls
    assert world.walk_to("d1/f03").size == len(FILES["d1/f03"])
    assert world.calls == before
