"""Any order of any operations, with faults, restarts and evictions between them: the file system equals its model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support.world import World, placed

from dagfs.errors import IsADirectory, NotADirectory, NotFound, RemoteUnavailable, Stalled
from dagfs.fetch import retries
from dagfs.metrics import Metrics
from dagfs.model import Kind, Versioning
from dagfs.store.disk import DiskStore
from dagfs.vfs.seam import ROOT

LIMIT = 40_000
"""Bytes of the cache: some files of a tree fit, not all; one is larger than it."""

names = st.one_of(
    st.sampled_from(["a", "b", "c", "a.dvc", "é", "e\u0301", "x y", "\n", "%41", "#?&+", "'\"\\", "\U0001f600"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8),
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
sizes = st.sampled_from([0, 1, 40, 4096, 9_000, 60_000])
trees = st.dictionaries(paths, sizes, min_size=1, max_size=12).map(
    lambda tree: {p: size for p, size in tree.items() if not any(other.startswith(p + "/") for other in tree)}
)
picks = st.integers(0, 9_999)
places = st.integers(0, 70_000)


def content(path: str, size: int) -> bytes:
    pattern = path.encode() + b"|"
    return (pattern * (size // len(pattern) + 1))[:size]


class TreeMachine(RuleBasedStateMachine):
    """`self.files` is the truth. Node and inode numbers that were told once never mean anything else."""

    @initialize(tree=trees, versioning=st.sampled_from(Versioning))
    def begin(self, tree, versioning):
        self.files = {path: content(path, size) for path, size in placed(tree, versioning).items()}
        self.directories = sorted(
            {"/".join(path.split("/")[:n]) for path in self.files for n in range(path.count("/") + 1)}
        )
        self.paths = [*sorted(self.files), *self.directories]
        self.nodes: dict[int, str] = {ROOT: ""}  # that the file system must know
        self.told: dict[int, str] = {}
        self.inodes: dict[int, str] = {}
        self.faults = 0  # injected; each may fail an operation or two
        self.root = Path(tempfile.mkdtemp(prefix="dagfs-machine-"))
        self.store = DiskStore(self.root / "cache", LIMIT, Metrics())
        self.world = World(self.files, versioning=versioning, store=self.store)
        self.world.tree.prepare()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.stop()
            self.world.source.close()
            self.store.close()
            shutil.rmtree(self.root)

    @rule(pick=picks)
    def look_up(self, pick):
        self.attempt(lambda path: self.note(path, self.world.walk_to(path)), self.pick(pick, self.paths))

    @rule(pick=picks, name=names)
    def look_up_what_is_absent(self, pick, name):
        path = f"{self.pick(pick, self.paths)}/{name}".lstrip("/")
        if path not in self.paths:
            self.attempt(self.must_be_absent, path)

    @rule(pick=picks)
    def describe_a_node(self, pick):
        node = self.pick(pick, sorted(self.nodes))
        self.attempt(lambda path: self.note(path, self.world.wait(self.world.vfs.getattr(node))), self.nodes[node])

    @rule(pick=picks, start=st.integers(0, 12), count=st.integers(0, 12))
    def list_from_somewhere(self, pick, start, count):
        self.attempt(lambda path: self.check_rows(path, start, count), self.pick(pick, self.directories))

    @rule(pick=picks, offset=st.one_of(st.just(0), places), size=st.one_of(st.just(70_000), places))
    def read_a_span(self, pick, offset, size):
        self.attempt(lambda path: self.check_read(path, offset, size), self.pick(pick, sorted(self.files)))

    @rule(pick=picks)
    def read_a_directory(self, pick):
        def step(path):
            node = self.world.walk_to(path).node
            with pytest.raises(IsADirectory):
                self.world.wait(self.world.vfs.read(node, 0, 10))

        self.attempt(step, self.pick(pick, self.directories))

    @rule()
    def evict_everything(self):
        self.store.clear()

    @rule(killed=st.booleans())
    def restart(self, killed):
        self.world.restart(killed=killed)
        self.attempt(lambda _: self.world.tree.prepare(), "")

    @rule(
        pick=picks,
        call=st.sampled_from(["open", "list", "list-sized", "describe"]),
        times=st.integers(1, 3),
        after=st.sampled_from([0, 1, 100, 5_000]),
        stalls=st.booleans(),
    )
    def let_the_hub_fail(self, pick, call, times, after, stalls):
        error = Stalled("no byte for 30 s") if stalls else RemoteUnavailable("HTTP 503")
        self.world.source.fail(f"{call}:{self.pick(pick, self.paths)}", error, times, after=after)
        self.faults += 2 * times

    @rule(pick=picks, read=st.booleans())
    def come_to_a_path_through_a_fault(self, pick, read):
        """In a new process, which knows nothing of it."""
        self.world.values.clear()
        self.nodes = {ROOT: ""}
        self.restart(killed=True)
        path = self.pick(pick, sorted(self.files))
        for call in (f"describe:{path}", f"list:{path.rpartition('/')[0]}", f"open:{path}"):
            self.world.source.fail(call, RemoteUnavailable("HTTP 503"))
        self.faults += 6
        for _ in range(2):
            if read:
                self.attempt(lambda path: self.check_read(path, 0, 100), path)
            else:
                self.attempt(lambda path: self.note(path, self.world.walk_to(path)), path)

    @invariant()
    def the_cache_is_within_its_limit(self):
        if hasattr(self, "store") and self.store.flush(20):
            assert self.store.info().bytes <= LIMIT

    def pick(self, number, among):
        return among[number % len(among)]

    def attempt(self, step, path):
        """Do something that may fail only where a fault was injected, and never as if a path were missing."""
        try:
            step(path)
        except (RemoteUnavailable, Stalled):
            self.faults -= 1
            assert self.faults >= 0

    def note(self, path, found):
        self.nodes[found.node] = path
        assert self.told.setdefault(found.node, path) == path
        assert self.inodes.setdefault(found.inode, path) == path
        assert found.kind is (Kind.FILE if path in self.files else Kind.DIRECTORY)
        if path in self.files:
            assert found.size == len(self.files[path])

    def must_be_absent(self, path):
        with pytest.raises((NotFound, NotADirectory)):
            self.world.walk_to(path)

    def check_rows(self, path, start, count):
        rows = list(self.world.list(path).rows(0, 1 << 30))
        prefix = f"{path}/" if path else ""
        wanted = {
            name[len(prefix) :].encode(): Kind.FILE if name in self.files else Kind.DIRECTORY
            for name in self.paths
            if name and name.startswith(prefix) and "/" not in name[len(prefix) :]
        }
        assert {name: kind for name, _, kind in rows} == wanted
        assert len(rows) == len(wanted)
        assert list(self.world.list(path).rows(start, count)) == rows[start : start + count]

    def check_read(self, path, offset, size):
        node = self.world.walk_to(path).node
        assert self.nodes.setdefault(node, path) == path
        found = self.world.wait(self.world.vfs.read(node, offset, size))
        assert found == self.files[path][offset : offset + size]


PROFILE = settings(deadline=None, suppress_health_check=list(HealthCheck))


def test_any_order_of_operations_is_the_models(monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    run_state_machine_as_test(TreeMachine, settings=settings(PROFILE, max_examples=30, stateful_step_count=25))


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_any_long_order_of_operations_is_the_models(monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    run_state_machine_as_test(TreeMachine, settings=settings(PROFILE, max_examples=400, stateful_step_count=80))
