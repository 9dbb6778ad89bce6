"""Random trees, random orders of discovery, restarts in the middle: the file system equals the dict it was made of."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.world import World, placed

from dagfs.errors import NotADirectory, NotFound
from dagfs.model import Kind, Versioning

names = st.one_of(
    st.sampled_from(["a", "b", "c", "a.dvc", "é", "e\u0301", "x y", "\n", "%41", "#?&+", "'\"\\", "\U0001f600"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8),
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
trees = st.dictionaries(paths, st.binary(max_size=40), min_size=1, max_size=15).map(
    lambda tree: {p: data for p, data in tree.items() if not any(other.startswith(p + "/") for other in tree)}
)
steps = st.lists(
    st.tuples(st.sampled_from(["stat", "list", "read", "restart", "kill"]), st.integers(0, 999)), max_size=25
)


def directories(files):
    return sorted({"/".join(path.split("/")[:n]) for path in files for n in range(path.count("/") + 1)})


def children(files, directory):
    prefix = directory + "/" if directory else ""
    found = {}
    for path in [*files, *directories(files)]:
        if path and path.startswith(prefix) and "/" not in path[len(prefix) :]:
            found[path[len(prefix) :].encode()] = Kind.FILE if path in files else Kind.DIRECTORY
    return found


class Model:
    """What has been told so far: an id or inode that was told once never means anything else."""

    def __init__(self, files):
        self.files = files
        self.paths = [*sorted(files), *directories(files)]
        self.nodes = {}
        self.inodes = {}

    def note(self, path, found):
        assert self.nodes.setdefault(found.node, path) == path
        assert self.inodes.setdefault(found.inode, path) == path
        assert found.kind is (Kind.FILE if path in self.files else Kind.DIRECTORY)
        if path in self.files:
            assert found.size == len(self.files[path])

    def step(self, world, what, number):
        path = self.paths[number % len(self.paths)]
        if what in ("restart", "kill"):
            world.restart(killed=what == "kill")
            world.tree.prepare()
        elif what == "list" and path not in self.files:
            assert world.kinds(path) == children(self.files, path)
        elif what == "read" and path in self.files:
            assert world.read(path) == self.files[path]
        else:
            self.note(path, world.walk_to(path))

    def check_all(self, world):
        for node, path in self.nodes.items():
            found = world.wait(world.vfs.getattr(node))
            self.note(path, found)
        for path in self.paths:
            self.note(path, world.walk_to(path))
        for path, data in self.files.items():
            assert world.read(path) == data
            for absent in (path + "x", path + "/x"):
                try:
                    world.walk_to(absent)
                except (NotFound, NotADirectory):
                    continue
                assert absent in self.paths


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees, steps, st.sampled_from(Versioning))
def test_whatever_order_a_tree_is_discovered_in_it_is_the_same_tree(files, walk, versioning):
    files = placed(files, versioning)
    model = Model(files)
    with World(files, versioning=versioning) as world:
        for what, number in walk:
            model.step(world, what, number)
        model.check_all(world)
        absent = [call for call, n in world.calls.items() if n > 1 and call.startswith("list:")]
        assert absent == []  # every listing once, restarts included
