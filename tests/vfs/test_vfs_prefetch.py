import random

from support.waiting import until
from support.world import World

IMAGES = {f"images/{i:04}.jpg": b"%d" % i * 50 for i in range(120)}


def test_files_read_in_listing_order_are_fetched_before_they_are_asked_for():
    with World(IMAGES, prefetch=True) as world:
        world.list("images")
        for i in range(3):
            world.read(f"images/{i:04}.jpg")
        until(lambda: len(world.cache.prepared) >= 64)
        assert world.cache.prepared[:3] == [f"images/{i:04}.jpg" for i in range(3, 6)]
        opens = dict(world.source.calls)
        until(lambda: all(world.source.calls[f"open:{path}"] for path in world.cache.prepared))
        for path in world.cache.prepared:
            assert world.read(path) == IMAGES[path]
            assert world.source.calls[f"open:{path}"] == 1
        assert all(n == 1 for call, n in opens.items() if call.startswith("open:"))


def test_rows_of_a_table_that_was_read_through_the_mount_are_fetched_in_their_order():
    order = random.Random(2).sample(sorted(IMAGES), len(IMAGES))
    table = "".join(f"{path.rpartition('/')[2]}\ta squirrel\t5.5\n" for path in order).encode()
    with World(IMAGES | {"labels.tsv": table}, prefetch=True) as world:
        world.list("images")
        assert world.read("labels.tsv") == table
        for path in order[:3]:
            world.read(path)
        until(lambda: len(world.cache.prepared) >= 3)
        assert world.cache.prepared[:3] == order[3:6]


def test_lookups_alone_fetch_no_content_ahead():
    with World(IMAGES, prefetch=True) as world:
        listing = world.list("images")
        for name, _, _ in listing.rows(0, 120):
            world.wait(world.vfs.lookup(listing.node, name))
        assert world.cache.prepared == []
