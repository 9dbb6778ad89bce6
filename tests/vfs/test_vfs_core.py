import pytest
from support.world import DEADLINE, World

from dagfs.answers import wait
from dagfs.errors import IntegrityError, IsADirectory, NotADirectory, NotFound, RemoteUnavailable, Unsupported
from dagfs.hub.memory import MemorySource
from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.listing import inode_of
from dagfs.vfs.seam import ROOT

FILES = {"a": b"alpha", "d/b": b"beta" * 1000, "d/e/f": b"", "d/g/h": b"1", "é\n #?%": b"odd"}


@pytest.fixture
def world():
    with World(FILES) as world:
        yield world


def test_every_file_has_its_size_and_bytes(world):
    for path, data in FILES.items():
        assert world.walk_to(path).size == len(data)
        assert world.read(path) == data


def test_attributes_are_those_of_a_file_of_the_commit(world):
    found = world.walk_to("d/b")
    assert (found.kind, found.size, found.links) == (Kind.FILE, 4000, 1)
    assert found.mtime == world.source.commit.time
    assert found.inode == inode_of("d/b")
    assert world.wait(world.vfs.getattr(found.node)) == found


def test_the_root_is_node_and_inode_one(world):
    root = world.wait(world.vfs.getattr(ROOT))
    assert (root.node, root.inode, root.kind) == (1, 1, Kind.DIRECTORY)


def test_a_directory_has_one_link_before_and_after_it_is_listed(world):
    assert world.walk_to("d").links == 1
    world.list("d")
    assert world.walk_to("d").links == 1


def test_lookup_stat_and_readdir_agree_on_node_inode_and_kind(world):
    for directory in ("", "d", "d/e"):
        listing = world.list(directory)
        for position, (name, inode, kind) in enumerate(listing.rows(0, 100)):
            found = world.wait(world.vfs.lookup(listing.node, name))
            assert (found.inode, found.kind) == (inode, kind)
            assert listing.attributes(position).node == found.node
            assert listing.attributes(position).inode == inode


def test_rows_are_cut_where_asked(world):
    listing = world.list()
    whole = listing.rows(0, 99)
    assert len(listing) == len(whole) == 3
    assert listing.rows(1, 1) == whole[1:2]
    assert listing.rows(2, 99) == whole[2:]
    assert listing.rows(3, 1) == []


def test_a_directory_knows_itself_and_its_parent(world):
    assert (world.list().inode, world.list().parent_inode) == (1, 1)
    assert (world.list("d").inode, world.list("d").parent_inode) == (inode_of("d"), 1)
    assert world.list("d/e").parent_inode == inode_of("d")


@pytest.mark.parametrize(
    ("offset", "size", "span"), [(0, 4000, (0, 4000)), (3990, 100, (3990, 4000)), (4000, 1, (0, 0)), (9999, 5, (0, 0))]
)
def test_reads_are_clipped_to_the_size(world, offset, size, span):
    node = world.walk_to("d/b").node
    assert world.wait(world.vfs.read(node, offset, size)) == FILES["d/b"][slice(*span)]


def test_errors_are_those_of_a_local_disk(world):
    with pytest.raises(IsADirectory):
        wait(world.vfs.read(world.walk_to("d").node, 0, 1), DEADLINE)
    with pytest.raises(NotADirectory):
        wait(world.vfs.readdir(world.walk_to("a").node), DEADLINE)
    with pytest.raises(NotADirectory):
        wait(world.vfs.lookup(world.walk_to("a").node, b"x"), DEADLINE)
    with pytest.raises(NotFound):
        wait(world.vfs.lookup(ROOT, b"none"), DEADLINE)
    with pytest.raises(Unsupported):
        wait(world.vfs.readlink(world.walk_to("a").node), DEADLINE)


def test_what_is_known_is_answered_at_once(world):
    found = world.walk_to("d/b")
    world.read("d/b")
    world.list("d")
    for answer in (
        world.vfs.getattr(found.node),
        world.vfs.readdir(world.walk_to("d").node),
        world.vfs.read(found.node, 0, 10),
        world.vfs.lookup(ROOT, b"d"),
        world.vfs.getxattr(found.node, b"user.dagfs.commit"),
    ):
        assert not hasattr(answer, "result")


def test_what_needs_the_network_is_a_promise(world):
    world.source.latency = 0.2
    world.source.hold("a")
    answer = world.vfs.lookup(ROOT, b"a")
    assert not answer.done()
    world.source.release("a")
    assert answer.result(DEADLINE).size == 5


def test_a_size_that_the_hub_announced_wrongly_is_an_error_and_never_a_mix():
    source = MemorySource({"d/x": b"0123456789"})
    shown = source._shown
    wrong = Entry("d/x", Kind.FILE, Versioning.DVC, shown(source._find(source.commit, "d/x"), False).hash, 4)
    source._shown = lambda entry, sized: wrong if sized and entry.path == "d/x" else shown(entry, sized)
    with World(source=source) as world:
        found = world.walk_to("d/x")
        assert found.size == 4
        for _ in range(2):
            with pytest.raises(IntegrityError, match="announced 4 bytes, the file has 10"):
                wait(world.vfs.read(found.node, 0, 4), DEADLINE)


def test_bytes_that_are_missing_are_an_error_and_not_a_short_read(world):
    found = world.walk_to("d/b")
    world.cache.stored = lambda content: None
    world.cache.read = lambda content, span, urgency: b"be"
    with pytest.raises(IntegrityError, match="2 bytes came where 4 were announced"):
        wait(world.vfs.read(found.node, 0, 4), DEADLINE)


def test_a_failed_read_can_be_tried_again(world):
    found = world.walk_to("d/b")
    world.source.fail("open:d/b", RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable):
        wait(world.vfs.read(found.node, 0, 10), DEADLINE)
    assert wait(world.vfs.read(found.node, 0, 4), DEADLINE) == b"beta"


def test_extended_attributes_tell_what_is_known_of_a_path(world):
    found = world.walk_to("d/b")

    def get(name, node=found.node):
        return world.wait(world.vfs.getxattr(node, f"user.dagfs.{name}".encode()))

    assert get("commit") == world.source.commit.sha.encode()
    assert get("versioning") == b"dvc"
    assert len(get("hash")) == 32
    assert get("cached") == b"0"
    world.read("d/b")
    assert get("cached") == b"1"
    assert get("error") is None
    assert b"user.dagfs.error" not in world.vfs.listxattr(found.node)
    world.vfs.failed(found.node, "read", RemoteUnavailable("the hub is asleep"))
    assert get("error") == b"read of d/b: the hub is asleep"
    assert b"user.dagfs.error" in world.vfs.listxattr(found.node)
    assert get("none") is None
    assert world.wait(world.vfs.getxattr(found.node, b"security.selinux")) is None
    assert get("versioning", ROOT) == b"git"
    assert world.metrics.snapshot()["vfs.failed.read"] == 1


def test_a_failure_before_a_size_is_known_is_told_by_the_directory_and_then_by_the_file(world):
    world.source.has_sizes = False
    directory = world.walk_to("d")

    def get(name, node):
        return world.wait(world.vfs.getxattr(node, b"user.dagfs." + name))

    world.wait(world.vfs.readdir(directory.node))
    world.source.fail("open:d/b", RemoteUnavailable("the hub is asleep"))
    with pytest.raises(RemoteUnavailable):
        world.wait(world.vfs.lookup(directory.node, b"b"))
    assert b"the hub is asleep" in get(b"error.b", directory.node)
    assert b"user.dagfs.error.b" in world.vfs.listxattr(directory.node)
    with pytest.raises(NotFound):
        world.wait(world.vfs.lookup(directory.node, b"absent"))
    assert get(b"error.absent", directory.node) is None
    found = world.wait(world.vfs.lookup(directory.node, b"b"))
    assert b"the hub is asleep" in get(b"error", found.node)


def test_attributes_of_names_have_names_that_the_kernel_takes_and_are_few(world):
    names = [b"%0255d" % 0, b"%0238d" % 0, b"%0237d" % 0, *(b"%d" % n for n in range(2000))]
    for name in names:
        world.vfs._marks.not_found(ROOT, name, RemoteUnavailable("x" * 5000))
        if len(name) > 4:
            world.vfs._marks.not_found(ROOT, name, None)
    listed = [name for name in world.vfs.listxattr(ROOT) if b".error." in name]
    assert listed == [b"user.dagfs.error.%d" % n for n in range(1900, 2000)]
    world.vfs._marks.not_found(ROOT, names[1], RemoteUnavailable("x"))
    world.vfs._marks.not_found(ROOT, names[0], RemoteUnavailable("x"))
    assert world.vfs.listxattr(ROOT)[-1] == b"user.dagfs.error." + names[1]
    assert max(map(len, world.vfs.listxattr(ROOT))) == 255
    assert len(world.wait(world.vfs.getxattr(ROOT, b"user.dagfs.error.1999"))) == 1024
    assert len(world.vfs._marks.failures._names) == 1024


def test_the_memory_of_failures_is_bounded(world):
    for node in range(5000):
        world.vfs.failed(node, "read", RemoteUnavailable("x" * 5000))
    texts = world.vfs._marks.failures._texts
    assert len(texts) <= 1024
    assert len(texts.get(4999)) <= 1024


def test_statfs_counts_the_paths_and_bytes_at_hand(world):
    world.read("a")
    figures = world.vfs.statfs()
    assert (figures.files, figures.blocks) == (3, 1)


def test_a_symbolic_link_that_the_hub_names_is_one():
    source = MemorySource({"link": "target/é".encode(), "x": b""}, versioning=Versioning.GIT)
    shown = source._shown
    source._shown = lambda entry, sized: (
        Entry(entry.path, Kind.SYMLINK, entry.versioning, entry.hash) if entry.path == "link" else shown(entry, sized)
    )
    with World(source=source) as world:
        assert world.kinds()[b"link"] is Kind.SYMLINK
        found = world.walk_to("link")
        assert (found.kind, found.size) == (Kind.SYMLINK, 9)
        assert world.wait(world.vfs.readlink(found.node)) == "target/é".encode()


def test_a_worker_that_was_killed_serves_the_same_nodes_after_its_restart(world):
    nodes = {path: world.walk_to(path).node for path in FILES}
    directory = world.list("d").node
    world.restart(killed=True)  # nobody looks anything up again: the kernel knows the ids
    for path, node in nodes.items():
        assert world.wait(world.vfs.read(node, 0, 1 << 20)) == FILES[path]
    assert [name for name, _, _ in world.wait(world.vfs.readdir(directory)).rows(0, 9)] == [b"b", b"e", b"g"]
