"""A hub that means harm: the mount lives, good files stay readable, and what is hidden is counted and named."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile_hub import HostileHub
from support.scripted_hub import Answer

GOOD = b"what the user came for\n"
LONGEST = "n" * 255
BAD_NAMES = {
    "..": "the parent",
    ".": "the directory itself",
    "": "no name",
    "../escape": "a way up",
    "a/../../escape": "a way up behind a name",
    "/etc/passwd": "an absolute path",
    "dir/inner/deep": "a slash inside",
    "nul\0name": "a NUL",
    "n" * 256: "a byte too long",
    "\u00e9" * 150: "300 bytes of 150 letters",
    "half\ud800": "half of a surrogate pair",
}
"""Names that no directory can hold. The first three stand for a directory's own path, which is no entry of it."""

ODD_NAMES = [
    "line\nbreak",
    "\x1b]0;owned\x07\x1b[31m",
    "\u202egnp.exe",
    "-rf",
    " ",
    "back\\slash",
    "e\u0301",
    "\u00e9",
    LONGEST,
]
"""Names that a disk can hold, however ugly: they are shown."""


@pytest.fixture
def hostile() -> Iterator[HostileHub]:
    hub = HostileHub()
    yield hub
    hub.stop()


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def failure(call, *arguments) -> int | None:
    """Give the errno that a call fails with."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    raise AssertionError("it did not fail")


def is_terminal_safe(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c)[0] not in "C" for c in text)


def test_bad_names_are_hidden_counted_and_named_and_good_files_stay_readable(hostile, home, tmp_path, driver):
    rows = [hostile.file("good.txt", GOOD), {"path": "dir", "type": "dir"}]
    bad = [name for name in BAD_NAMES if name.strip("/.")] + [".."]
    rows += [{"path": name, "type": "file", "hash": "", "versioning": "git"} for name in BAD_NAMES]
    rows += [hostile.file(name, name.encode()) for name in ODD_NAMES]
    hostile.list("", rows)
    hostile.list("dir", [hostile.file("dir/good.txt", GOOD), {"path": "dir/..", "type": "dir"}, {"path": "other/x"}])
    with home.mounted(hostile.repository, tmp_path / "data", "--driver", driver) as data:
        assert names(data) == {"good.txt", "dir", *ODD_NAMES}
        assert names(data / "dir") == {"good.txt"}
        assert (data / "good.txt").read_bytes() == (data / "dir/good.txt").read_bytes() == GOOD
        for name in ODD_NAMES:
            assert (data / name).read_bytes() == name.encode()
        report = home.status()[0]
        told = set(report["hidden_names"])
        assert set(bad) - {"."} <= told
        assert {"dir/..", "other/x"} <= told
        assert report["hidden"] == len(report["hidden_names"]) == len(told)
        text = home.run("status").stdout
        assert f"{report['hidden']} names that no file system can show" in text
        assert "a/../../escape" in text
        assert is_terminal_safe(text)
        assert is_terminal_safe(home.run("status", "--json").stdout)


def test_names_that_are_not_utf_8_are_their_own_bytes(hostile, home, tmp_path):
    raw = b'[{"path":"good.txt"},{"path":"latin\xe9"},{"path":"\xff\xfe"}]'
    hostile.file("good.txt", GOOD)
    hostile.file("latin\udce9", b"latin-1")
    hostile.answer_listing("", Answer(body=raw))
    with home.mounted(hostile.repository, tmp_path / "data") as data:
        assert set(os.listdir(os.fsencode(data))) == {b"good.txt", b"latin\xe9", b"\xff\xfe"}
        assert (data / "good.txt").read_bytes() == GOOD
        assert (data / os.fsdecode(b"latin\xe9")).read_bytes() == b"latin-1"


def test_of_duplicates_one_is_shown_and_the_others_are_named(hostile, home, tmp_path):
    rows = [
        hostile.file("good.txt", GOOD),
        {"path": "good.txt", "type": "file"},
        {"path": "both", "type": "file"},
        {"path": "both", "type": "dir"},
    ]
    hostile.list("", rows)
    hostile.list("both", [hostile.file("both/inside", GOOD)])
    with home.mounted(hostile.repository, tmp_path / "data") as data:
        assert sorted(os.listdir(data)) == ["both", "good.txt"]
        assert (data / "both/inside").read_bytes() == (data / "good.txt").read_bytes() == GOOD
        assert sorted(home.status()[0]["hidden_names"]) == ["both", "good.txt"]


def test_impossible_sizes_are_not_believed_and_possible_ones_are_held_to(hostile, home, tmp_path):
    sizes = [-1, -(1 << 63), 1 << 62, 1 << 64, 10**400, 0.5, None]
    rows = [hostile.file(f"d/f{i}", GOOD, size=size) for i, size in enumerate(sizes)]
    rows += [hostile.file("d/huge", GOOD, size=(1 << 62) - 1, versioning="dvc", hash="a" * 32)]
    rows += [hostile.file("d/short", GOOD, size=5, versioning="dvc", hash="b" * 32)]
    hostile.list("", [{"path": "d", "type": "dir"}])
    hostile.list("d", rows)
    with home.mounted(hostile.repository, tmp_path / "data", "--no-prefetch") as mountpoint:
        data = mountpoint / "d"
        assert len(os.listdir(data)) == len(rows)
        for i, size in enumerate(sizes):
            assert (data / f"f{i}").read_bytes() == GOOD, size
        assert (data / "huge").stat().st_size == (1 << 62) - 1
        for name in ("huge", "short"):
            with open(data / name, "rb") as file:
                assert failure(file.read, 100) == errno.EIO
        assert os.statvfs(data).f_files >= len(rows)
        assert (data / "f0").read_bytes() == GOOD


def test_links_that_leave_the_mount_are_refused_counted_and_named(hostile, home, tmp_path, driver):
    (tmp_path / "secret").write_text("not theirs")
    out = {
        "absolute": b"/etc/passwd", "up": b"../secret", "sub/up": b"../../secret", "hop": b"sub/../../secret",
        "proc": b"/proc/self/environ", "long": b"x/" * 3000, "nul": b"good.txt\0.png", "empty": b"",
    }  # fmt: skip
    inside = {"near": b"good.txt", "sub/near": b"../good.txt", "sub/self": b"./near", "dangling": b"nowhere"}
    link = {
        path: hostile.file(path, target, type="symlink", size=len(target)) for path, target in (out | inside).items()
    }
    top = [hostile.file("good.txt", GOOD), {"path": "sub", "type": "dir"}]
    hostile.list("", top + [row for path, row in link.items() if "/" not in path])
    hostile.list("sub", [row for path, row in link.items() if "/" in path])
    with home.mounted(hostile.repository, tmp_path / "data", "--driver", driver) as data:
        for path in out:
            assert failure(os.readlink, data / path) == errno.EPERM, path
            assert failure((data / path).read_bytes) == errno.EPERM, path
        for path, target in inside.items():
            assert os.readlink(data / path) == target.decode()
        for path in ("near", "sub/near", "sub/self", "good.txt"):
            assert (data / path).read_bytes() == GOOD
        assert failure((data / "dangling").read_bytes) == errno.ENOENT
        report = home.status()[0]
        assert report["refused_links"] == len(out)
        assert {told.partition(":")[0] for told in report["refused_link_names"]} == set(out)
        text = home.run("status").stdout
        assert f"{len(out)} symbolic links that lead out of the mount" in text
        assert is_terminal_safe(text)


def test_what_lies_above_the_subdir_of_a_mount_is_out_of_it_for_links(hostile, home, tmp_path):
    """There they would lead into whatever directory the mount lies in."""
    rows = {
        "": [hostile.file("top", GOOD), {"path": "a", "type": "dir"}],
        "a": [hostile.file("a/good", GOOD), {"path": "a/b", "type": "dir"}],
        "a/b": [],
    }
    for path, target in {"a/in": "good", "a/up": "../top", "a/b/up": "../good", "a/b/out": "../../top"}.items():
        rows[path.rpartition("/")[0]].append(hostile.file(path, target.encode(), type="symlink"))
    for path, listed in rows.items():
        hostile.list(path, listed)
    with home.mounted(hostile.repository, tmp_path / "data", "--subdir", "a") as data:
        assert (data / "in").read_bytes() == (data / "b/up").read_bytes() == GOOD
        assert failure(os.readlink, data / "up") == failure(os.readlink, data / "b/out") == errno.EPERM
    with home.mounted(hostile.repository, tmp_path / "data") as data:
        assert (data / "a/up").read_bytes() == (data / "a/b/out").read_bytes() == GOOD
