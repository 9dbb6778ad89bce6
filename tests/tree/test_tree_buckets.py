"""Connected buckets in the tree: found without being listed, one listing for a mount's life, the next one's own."""

from __future__ import annotations

import pytest
from support.world import POND, Values

from dagfs.answers import wait
from dagfs.errors import ContentChanged, NotFound
from dagfs.hub.memory import MemorySource
from dagfs.hub.offline import OfflineSource
from dagfs.metrics import Metrics
from dagfs.model import Entry, Versioning, etag_of
from dagfs.tree.listing import ROOT_NODE
from dagfs.tree.tree import Pinned, Tree
from dagfs.tree.workers import Workers

DEADLINE = 20
OBJECTS = {f"{POND}/{name}": name.encode() for name in ("a", "b", "sub/c")}


class Unlisted(MemorySource):
    """A hub whose root listing does not name its storages."""

    def list_directory(self, commit, path, *, sized):
        for batch in super().list_directory(commit, path, sized=sized):
            yield [entry for entry in batch if path or entry.path != ".dagshub"]


class Mount:
    def __init__(self, source, values, *, snapshot="one", ledger=None, offline=False, repo=None):
        self.source = source
        self.workers = Workers()
        commit = source.commit if isinstance(source, MemorySource) else offline
        pinned = Pinned(repo or source.repo, commit, snapshot=snapshot, offline=bool(offline))
        self.tree = Tree(source, pinned, values, self.workers, Metrics(), ledger)
        self.tree.prepare()

    def place(self, path):
        found = wait(self.tree.place(ROOT_NODE))
        for name in path.split("/"):
            found = wait(self.tree.lookup(found.node, name.encode()), DEADLINE)
        return found

    def names(self, path):
        listing = wait(self.tree.listing(self.place(path)), DEADLINE)
        return [name.decode() for name, _, _ in listing.rows(0, 100)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tree.close()
        self.workers.close()


@pytest.fixture
def hub():
    source = Unlisted(OBJECTS | {"README": b"r"}, versioning=Versioning.BUCKET)
    yield source
    source.close()


def test_buckets_are_found_by_name_and_listed_nowhere(hub):
    with Mount(hub, Values()) as mount:
        root = wait(mount.tree.listing(wait(mount.tree.place(ROOT_NODE))))
        assert [name for name, _, _ in root.rows(0, 10)] == [b"README"]
        assert mount.names(POND) == ["a", "b", "sub"]
        node = mount.place(".dagshub").node
        assert wait(mount.tree.place(node)).entry.path == ".dagshub"
        assert hub.calls["describe:.dagshub"] == 1


def test_a_repository_without_buckets_is_asked_once():
    source = Unlisted({"README": b"r"}, versioning=Versioning.BUCKET)
    with Mount(source, Values()) as mount:
        for _ in range(3):
            with pytest.raises(NotFound):
                mount.place(".dagshub")
        with pytest.raises(NotFound):
            mount.place("dagshub")
    assert source.calls == {"list:": 1, "describe:.dagshub": 1}
    source.close()


def test_a_listing_is_made_once_a_mount_with_its_sizes_and_anew_at_the_next(hub):
    values = Values()
    for worker in range(2):
        with Mount(hub, values) as mount:
            assert mount.names(POND) == ["a", "b", "sub"]
            assert mount.place(f"{POND}/a").entry.size == 1
            assert hub.calls[f"list-sized:{POND}"] == 1, worker
    with Mount(hub, values, snapshot="two") as mount:
        assert mount.names(POND) == ["a", "b", "sub"]
        assert hub.calls[f"list-sized:{POND}"] == 2


def test_an_object_without_an_etag_is_another_content_at_the_next_mount(hub):
    keys = set()
    for snapshot in ("one", "one", "two"):
        with Mount(hub, Values(), snapshot=snapshot) as mount:
            looked_up = mount.place(f"{POND}/a")
            mount.names(POND)
            listed = mount.place(f"{POND}/a")
            assert mount.tree.content(looked_up).key == mount.tree.content(listed).key
            keys.add(mount.tree.content(listed).key)
            assert etag_of(listed.entry) == ""
    assert len(keys) == 2


def test_a_listing_that_the_cache_has_lost_is_stale_when_it_is_another(hub):
    ledger = Values()
    with Mount(hub, Values(), ledger=ledger) as mount:
        mount.names(POND)
    with Mount(hub, Values(), ledger=ledger) as mount:
        assert mount.names(POND) == ["a", "b", "sub"]
    children = hub._snapshots[hub.commit.sha].children[POND]
    grown = Entry(f"{POND}/a", children[f"{POND}/a"].kind, Versioning.BUCKET, "", 99)
    children[f"{POND}/a"] = grown
    with Mount(hub, Values(), ledger=ledger) as mount, pytest.raises(ContentChanged):
        mount.names(POND)
    with Mount(hub, Values(), ledger=ledger, snapshot="two") as mount:
        assert mount.names(POND) == ["a", "b", "sub"]


def test_without_a_network_each_folder_is_as_the_last_mount_saw_it_and_stays_so(hub):
    values = Values()
    with Mount(hub, values, snapshot="one") as mount:
        mount.names(POND)
        mount.names(f"{POND}/sub")
        key = mount.tree.content(mount.place(f"{POND}/sub/c")).key
    commit = hub.commit
    children = hub._snapshots[commit.sha].children
    children[POND][f"{POND}/new"] = children[POND][f"{POND}/a"]._replace(path=f"{POND}/new")
    with Mount(hub, values, snapshot="two") as mount:
        assert mount.names(POND) == ["a", "b", "new", "sub"]
    offline = {"offline": commit, "repo": hub.repo}
    with Mount(OfflineSource(), values, snapshot="three", **offline) as mount:
        assert mount.names(POND) == ["a", "b", "new", "sub"]
        assert mount.names(f"{POND}/sub") == ["c"]
        assert mount.tree.content(mount.place(f"{POND}/sub/c")).key == key  # so its bytes are found
    del children[POND][f"{POND}/b"]
    with Mount(hub, values, snapshot="four") as mount:
        assert mount.names(POND) == ["a", "new", "sub"]
    with Mount(OfflineSource(), values, snapshot="three", **offline) as successor:
        assert successor.names(POND) == ["a", "b", "new", "sub"]
        with pytest.raises(NotFound):
            successor.place(f"{POND}/none")
