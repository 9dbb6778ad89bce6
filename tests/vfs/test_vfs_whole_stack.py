"""The file system over the real cache and fetcher: counts of what the hub is asked for."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.world import DEADLINE, World

from dagfs.answers import wait
from dagfs.errors import IntegrityError, NotFound, RemoteError
from dagfs.hub.memory import MemorySource
from dagfs.model import Entry, Kind, Versioning

MB = 1 << 20
IMAGES = {f"images/{i:03}.jpg": random.Random(i).randbytes(2000 + i) for i in range(100)}


def opens(world):
    return {call[5:]: n for call, n in world.calls.items() if call.startswith("open:")}


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("versioning", Versioning, ids=lambda versioning: versioning.name)
def test_each_file_is_downloaded_once_whoever_reads_it_and_how_often(prefetch, versioning):
    """Of objects, too, whose size turns out only when they are read: that does not change what they are."""
    with World(IMAGES, versioning=versioning, prefetch=prefetch, real_cache=True) as world:
        world.source.chunk = 700
        world.names("images")
        with ThreadPoolExecutor(8) as pool:
            paths = sorted(IMAGES) * 3
            for path, data in zip(paths, pool.map(world.read, paths), strict=True):
                assert data == IMAGES[path]
        assert opens(world) == dict.fromkeys(IMAGES, 1)
        world.restart(killed=True)
        world.tree.prepare()
        for path, data in IMAGES.items():
            assert world.read(path) == data
        assert opens(world) == dict.fromkeys(IMAGES, 1)


def test_a_large_file_is_right_at_every_offset_and_read_ahead():
    data = random.Random(1).randbytes(24 * MB + 12345)
    with World({"big": data, "x": b"x"}, real_cache=True) as world:
        found = world.walk_to("big")
        assert found.size == len(data)
        for offset in [0, 20 * MB, 5, 24 * MB + 12340, 256 * 1024 - 1, 12 * MB]:
            assert wait(world.vfs.read(found.node, offset, 131072), DEADLINE) == data[offset : offset + 131072]
        for offset in range(0, len(data), 131072):
            assert wait(world.vfs.read(found.node, offset, 131072), DEADLINE) == data[offset : offset + 131072]
        assert world.metrics.snapshot()["reader.ahead_bytes"] >= 10 * MB


def test_a_random_read_of_a_large_file_does_not_fetch_the_file():
    data = bytes(24 * MB)
    with World({"d/big": data}, real_cache=True) as world:
        found = world.walk_to("d/big")  # described with its size: nothing has been fetched for it
        for offset in (20 * MB, 10 * MB, 15 * MB):
            assert wait(world.vfs.read(found.node, offset, 4096), DEADLINE) == bytes(4096)
        assert sum(span.size for path, span in world.source.spans if span) <= 3 * 256 * 1024


@pytest.mark.parametrize("versioning", [Versioning.DVC, Versioning.GIT])
@pytest.mark.parametrize("announced", [4, 16])
def test_a_size_that_the_hub_announced_wrongly_gives_an_error_and_no_byte(announced, versioning):
    source = MemorySource({"d/x": b"0123456789"}, versioning=versioning)
    shown = source._shown
    entry = source._find(source.commit, "d/x")
    wrong = Entry("d/x", Kind.FILE, versioning, entry.hash, announced)
    source._shown = lambda entry, sized: wrong if sized and entry.path == "d/x" else shown(entry, sized)
    with World(source=source, real_cache=True) as world:
        world.fetcher.patience = 1.0
        found = world.walk_to("d/x")
        assert found.size == announced
        with pytest.raises((IntegrityError, RemoteError)):
            wait(world.vfs.read(found.node, 0, announced), DEADLINE)


def test_content_that_was_never_pushed_breaks_nothing_else():
    with World({"d/x": b"?", "d/y": b"yy"}, real_cache=True) as world:
        world.source.fail("open:d/x", NotFound("d/x"), times=99)
        assert world.names("d") == [b"x", b"y"]
        with pytest.raises(RemoteError, match="no content"):
            world.walk_to("d/x")
        assert world.read("d/y") == b"yy"
