"""The fallback driver works with whichever binding and library is there, and says what to install where none is."""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library

import pytest
from support.mounts import mounted
from support.trees import FILES, LINKS, ODD, tree

from dagfs import libfuse
from dagfs.errors import NoFuse
from dagfs.libfuse import PathOperations, load_binding
from dagfs.vfs.memory import MemoryFs

pytestmark = pytest.mark.mount


@pytest.mark.parametrize("choice", ["mfusepy on libfuse3", "mfusepy on libfuse2", "fusepy"])
def test_every_binding_serves_the_tree(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if choice != "mfusepy on libfuse3" and find_library("fuse") is None:
        pytest.skip("libfuse2 is not installed: apt install libfuse2")
    if choice == "fusepy":
        monkeypatch.setitem(sys.modules, "mfusepy", None)
    monkeypatch.setenv("FUSE_LIBRARY_NAME", "fuse3" if choice.endswith("3") else "fuse")
    with mounted(tree, "libfuse") as one:
        for name, data in FILES.items():
            assert (one.path / name).read_bytes() == data, name
        assert sorted(os.listdir(os.fsencode(one.path / "odd"))) == sorted(map(os.fsencode, ODD))
        assert os.readlink(one.path / "images/up") == LINKS["images/up"]
        assert os.stat(one.path / "small.txt").st_mtime_ns == 1_600_000_000_250_000_000
        assert os.getxattr(one.path / "small.txt", "user.dagfs.commit") == b"0" * 40
        assert os.statvfs(one.path).f_blocks == 1000
        assert not (one.path / "no").exists()
        with pytest.raises(OSError, match="Read-only"):
            (one.path / "new").write_text("x")


def test_without_a_binding_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    monkeypatch.setitem(sys.modules, "fuse", None)
    with pytest.raises(NoFuse, match="apt install fuse3"):
        load_binding()


def test_the_paths_that_are_remembered_are_bounded_and_the_root_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libfuse, "NODES_KEPT", 8)
    operations = PathOperations(MemoryFs({f"d/{n}": b"x" for n in range(50)}), lambda: None)
    for number in range(50):
        assert operations.read(f"/d/{number}", 10, 0, 0) == b"x"
        assert len(operations._nodes) <= 9
    assert operations.getattr("/")["st_nlink"] == 3
