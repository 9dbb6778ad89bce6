"""The rule for symbolic links holds whatever the links on the way lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.world import World

from dagfs.errors import UnsafeLink
from dagfs.kernel.protocol import encode_statfs
from dagfs.tree import refused
from dagfs.vfs import links

PARTS = st.sampled_from(["..", ".", "", "a", "b", "c"])
TARGETS = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(bool)
PLACES = st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tree=st.dictionaries(PLACES, TARGETS, max_size=7))
def test_no_path_over_accepted_links_leaves_the_tree(tmp_path_factory, tree):
    """Make the links that the rule accepts on a real disk, and see where the kernel ends up."""
    outer = tmp_path_factory.mktemp("links")
    root = outer / "root"
    (root / "d/e").mkdir(parents=True)
    for name in "abc":
        (outer / name).mkdir()
    made: list[Path] = []
    for place, target in tree.items():
        try:
            links.check(target.encode(), place.count("/"))
        except UnsafeLink:
            continue
        os.symlink(target, root / place)
        made.append(root / place)
    for link in made:
        try:
            end = os.path.realpath(link, strict=True)
        except OSError:  # a loop, or nowhere
            continue
        assert Path(end).is_relative_to(root)


@pytest.mark.parametrize(
    ("target", "depth"),
    [(b"../x", 0), (b"../../x", 1), (b"/x", 9), (b"a/../x", 3), (b"", 0), (b"a\0", 0), (b"x" * 4096, 0)],
)
def test_what_may_lead_out_is_refused(target, depth):
    with pytest.raises(UnsafeLink):
        links.check(target, depth)


@pytest.mark.parametrize(
    ("target", "depth"), [(b"x", 0), (b"../x", 1), (b"./../../a//b/.", 2), (b"..", 1), (b"x" * 4095, 0)]
)
def test_what_stays_inside_is_followed(target, depth):
    links.check(target, depth)


def test_the_refused_links_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(refused, "REFUSED_KEPT", 3)
    kept = refused.Refused()
    for node in range(10):
        kept.note(node, str(node))
    assert kept.told(2) == (3, ["0", "1"])


def test_sizes_that_no_disk_has_do_not_break_statfs(monkeypatch):
    with World({f"f{i}": b"x" for i in range(10)}) as world:
        monkeypatch.setattr(world.tree, "figures", lambda: (10, 10 * (1 << 80)))
        encode_statfs(world.vfs.statfs())
