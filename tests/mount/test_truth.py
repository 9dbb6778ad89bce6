"""One commit, true or nothing: what a mount shows equals what git and DVC hold, whatever the hub is like."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess

import pytest
from support.commands import asked
from support.hubs import VARIANTS, hub
from support.repos import IDENTITY, git
from support.walks import differences, end_walk, looks_of, start_walk, walk

from dagfs.devhub.behaviour import Fault


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_byte_and_size_is_true_under_each_variant_of_the_hub(sample, home, tmp_path, variant):
    with hub(sample.path, behaviour=VARIANTS[variant]) as url, home.mounted(url, tmp_path / "data") as data:
        walks = [start_walk(data, seed) for seed in range(8)]
        for found in map(end_walk, walks):
            assert differences(found, looks_of(sample)) == []


def test_the_libfuse_driver_shows_the_same(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", "libfuse") as data:
        assert differences(walk(data), looks_of(sample)) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "main"),
        (["--branch", "feature/with/slashes"], "feature/with/slashes"),
        (["--branch", "deadbeef"], "deadbeef"),
        (["--rev", "v1"], None),
        (["--rev", "light"], None),
    ],
)
def test_every_kind_of_revision_is_mounted_at_its_commit(sample, home, tmp_path, words, name):
    commit = sample.branches[name] if name else sample.tags[words[1]]
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", *words) as data:
        assert home.status()[0]["commit"] == commit
        assert differences(walk(data), looks_of(sample, commit)) == []


@pytest.mark.parametrize("length", [7, 12, 40])
def test_short_and_full_shas_are_mounted(sample, home, tmp_path, length):
    first = sample.tags["v1"]
    with hub(sample.path) as url, home.mounted(f"{url}@{first[:length]}", tmp_path / "data") as data:
        assert home.status()[0]["commit"] == first
        assert sorted(os.listdir(data)) == sorted({path.split("/")[0] for path in looks_of(sample, first)})


def test_a_sub_directory_can_be_mounted(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--subdir", "images/sub") as data:
        wanted = {p.removeprefix("images/sub/"): v for p, v in looks_of(sample).items() if p.startswith("images/sub/")}
        assert differences(walk(data), wanted) == []


def test_a_push_during_the_mount_changes_nothing(sample, home, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", sample.path, copy], check=True)
    with hub(copy) as url, home.mounted(url, tmp_path / "data") as data:
        assert (data / "README.md").read_bytes() == b"# sample, second\n"
        (copy / "README.md").write_text("a third\n")
        (copy / "docs/late.md").write_text("late\n")
        git(copy, "add", "-A")
        subprocess.run(["git", "commit", "-qm", "third"], cwd=copy, check=True, env=os.environ | IDENTITY)
        assert differences(walk(data), looks_of(sample)) == []


def test_times_are_the_commits(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        for path in (data, data / "README.md", data / "images", data / "images/001.jpg"):
            assert path.stat().st_mtime == sample.time


def test_inode_numbers_are_unique_and_stay_over_a_remount(sample, home, tmp_path, driver):
    def numbers(root, backwards):
        rows = [root / path for path in sorted(looks_of(sample), reverse=backwards)]
        return {str(path): os.lstat(path).st_ino for path in rows}

    with hub(sample.path) as url:
        with home.mounted(url, tmp_path / "data", "--driver", driver) as data:
            first = numbers(data, backwards=False)
            listed = {row.name: row.inode() for row in os.scandir(data)}
        home.run("cache", "clear")
        with home.mounted(url, tmp_path / "data", "--driver", driver) as data:
            second = numbers(data, backwards=True)
    assert first == second
    assert len(set(first.values())) == len(first)
    assert listed == {name: first[str(tmp_path / "data" / name)] for name in listed}


def test_odd_offsets_and_sizes_give_the_bytes_of_the_truth(sample, home, tmp_path, driver):
    truth = sample.files["large.bin"]
    noise = random.Random(7)
    with (
        hub(sample.path) as url,
        home.mounted(url, tmp_path / "data", "--driver", driver) as data,
        open(data / "large.bin", "rb", buffering=0) as file,
    ):
        for _ in range(200):
            offset = noise.randrange(len(truth) + 5000)
            size = noise.choice((1, 4095, 4096, 70_000, 1 << 20))
            assert os.pread(file.fileno(), size, offset) == truth[offset : offset + size]


def test_wrong_bytes_are_never_served(sample, home, tmp_path):
    def flip(request):
        return Fault(flip=100) if request.kind == "raw" and request.path == "images/039.jpg" else None

    with hub(sample.path, fault=flip) as url, home.mounted(url, tmp_path / "data") as data:
        with pytest.raises(OSError, match="Input/output error"):
            (data / "images/039.jpg").read_bytes()
        reason = os.getxattr(data / "images/039.jpg", "user.dagfs.error").decode()
        assert "MD5" in reason or "hash" in reason
        assert (data / "images/038.jpg").read_bytes() == sample.files["images/038.jpg"]


def test_wrong_bytes_that_come_once_are_fetched_again(sample, home, tmp_path):
    def flip(request):
        return Fault(flip=100) if request.kind == "raw" and request.number == 0 else None

    with hub(sample.path, fault=flip) as url, home.mounted(url, tmp_path / "data") as data:
        assert (data / "images/039.jpg").read_bytes() == sample.files["images/039.jpg"]


def test_a_lost_hub_is_never_enoent(sample, home, tmp_path):
    home.deadlines = (2.0, 4.0)
    with hub(sample.path) as url:
        context = home.mounted(url, tmp_path / "data", "--no-prefetch")
        data = context.__enter__()
        seen = (data / "images/001.jpg").read_bytes()
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- which error it is depends on how the hub went away
            os.stat(data / "deep/a/b")
        assert raised.value.errno in (errno.EIO, errno.ETIMEDOUT)
        assert (data / "images/001.jpg").read_bytes() == seen
    finally:
        context.__exit__(None, None, None)


def test_content_that_was_never_pushed_is_eio_and_breaks_nothing_else(sample, home, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", sample.path, copy], check=True)
    digest = next(row for row in (copy / "only/by/dvc/weights.bin.dvc").read_text().split() if len(row) == 32)
    (copy / f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}").unlink()
    with hub(copy) as url, home.mounted(url, tmp_path / "data") as data:
        assert subprocess.run(["find", data], capture_output=True, timeout=60).returncode == 0
        assert (data / "only/by/dvc/weights.bin").stat().st_size == 70_000
        with pytest.raises(OSError, match="Input/output error"):
            (data / "only/by/dvc/weights.bin").read_bytes()
        assert b"push" in os.getxattr(data / "only/by/dvc/weights.bin", "user.dagfs.error")


def test_links_and_submodules_break_no_program(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        assert (data / "links/to-readme").read_text() == "../README.md"
        assert os.listdir(data / "vendor/library") == []
        for command in (["ls", "-laR"], ["find"], ["du", "-a"]):
            done = subprocess.run([*command, data], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "")


def test_the_marks_of_a_path_tell_where_it_comes_from(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        path = data / "images/003.jpg"

        def mark(name):
            return os.getxattr(path, f"user.dagfs.{name}").decode()

        assert mark("commit") == sample.head
        assert mark("versioning") == "dvc"
        assert len(mark("hash")) == 32
        assert mark("cached") == "0"
        path.read_bytes()
        assert mark("cached") == "1"
        assert {"user.dagfs.commit", "user.dagfs.hash"} <= set(os.listxattr(path))
        with pytest.raises(OSError, match="No data"):
            os.getxattr(path, "user.other")


def test_modes_are_those_of_a_read_only_tree(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        assert stat.S_IMODE((data / "README.md").stat().st_mode) == 0o444
        assert stat.S_IMODE((data / "images").stat().st_mode) == 0o555
        assert (data / "README.md").stat().st_nlink == 1
        assert (data / "images").stat().st_nlink == 1
        assert (data / "README.md").stat().st_uid == os.getuid()


def test_a_second_read_asks_the_hub_for_nothing(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        walk(data)
        asked(url, reset=True)
        assert differences(walk(data), looks_of(sample)) == []
        assert {kind for kind in asked(url)["requests"] if kind != "own"} == set()


def test_a_remount_asks_the_hub_for_no_content(sample, home, tmp_path, driver):
    with hub(sample.path) as url:
        with home.mounted(url, tmp_path / "data", "--driver", driver) as data:
            walk(data)
        asked(url, reset=True)
        with home.mounted(url, tmp_path / "data", "--driver", driver) as data:
            assert differences(walk(data), looks_of(sample)) == []
        counted = asked(url)
    assert counted["raw_paths"] == {}
    assert {kind for kind in counted["requests"] if kind not in ("rest", "own")} == set()


def test_many_readers_cause_one_download(sample, home, tmp_path):
    with hub(sample.path, latency=0.05) as url, home.mounted(url, tmp_path / "data") as data:
        walks = [start_walk(data, seed) for seed in range(8)]
        for found in map(end_walk, walks):
            assert differences(found, looks_of(sample)) == []
        raw = asked(url)["raw_paths"]
    whole = {path: count for path, count in raw.items() if path != "vendor/library"}
    assert {path: count for path, count in whole.items() if count > 1} == {}
