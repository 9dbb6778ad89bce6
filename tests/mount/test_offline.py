"""Mounts without a network: what the cache has is served, the rest is a clear error at once, and nobody is asked."""

from __future__ import annotations

import errno
import os
import random
import subprocess

import pytest
from support.commands import asked
from support.hubs import hub
from support.repos import commit_all, new_repository, write_files
from support.walks import differences, end_walk, looks_of, start_walk

from dagfs.errors import HubUnreachable, NotInCache, UnknownRevision

MISSING = errno.ENETUNREACH


def refused(home, *words) -> tuple[int, str]:
    done = home.run("mount", *words, check=False)
    (line,) = done.stderr.strip().splitlines()
    return done.returncode, line


def fails_with(path, number=MISSING) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
        path.read_bytes()
    assert raised.value.errno == number


def requests(url) -> dict[str, int]:
    return {kind: count for kind, count in asked(url)["requests"].items() if kind != "own"}


def test_everything_warmed_is_served_with_the_network_unplugged(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        home.run("warm", data)
    with home.mounted(url, tmp_path / "data", "--offline", "--driver", driver) as data:
        walks = [start_walk(data, seed) for seed in range(4)]
        for found in map(end_walk, walks):
            assert differences(found, looks_of(sample)) == []
        (report,) = home.status()
        assert report["hub"]["state"] == "offline"
        assert report["missing"] == {"directories": 0, "files": 0, "paths": []}
        assert (data / "README.md").stat().st_mtime == sample.time


def test_a_mount_without_a_network_sends_no_request(sample, home, tmp_path):
    with hub(sample.path) as url:
        with home.mounted(url, tmp_path / "data") as data:
            home.run("warm", data / "images")
            (data / "deep/a/b").stat()
        asked(url, reset=True)
        with home.mounted(url, tmp_path / "data", "--offline") as data:
            assert (data / "images/007.jpg").read_bytes() == sample.files["images/007.jpg"]
            for path in ("model.bin", "only/by/dvc/weights.bin", "deep/a/b/c/d/e/leaf.txt"):
                fails_with(data / path)
            home.run("warm", data / "images")
            assert home.run("warm", data, check=False).returncode == 1
            walking = subprocess.run(["find", data], capture_output=True, text=True, timeout=30)
            assert "Network is unreachable" in walking.stderr
        assert requests(url) == {}


def test_what_is_missing_is_told(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        home.run("warm", data / "deep", data / "README.md")
        os.listdir(data / "images")
    with home.mounted(url, tmp_path / "data", "--offline") as data:
        assert sorted(os.listdir(data)) == sorted({path.split("/")[0] for path in looks_of(sample)})
        assert "007.jpg" in os.listdir(data / "images")
        for _ in range(2):
            fails_with(data / "large.bin")
            for number in range(1, 9):  # so many that a program seems to want sizes
                fails_with(data / f"images/{number:03d}.jpg")
            fails_with(data / "legacy/tree/a.bin")
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
            os.listdir(data / "odd git")
        assert raised.value.errno == MISSING
        assert not (data / "no such file").exists()  # the root is listed: that is absence, and no lack
        fails_with(data / "no such file", errno.ENOENT)
        assert b"not in the cache" in os.getxattr(data / "odd git", "user.dagfs.error")
        assert b"the cache does not have" in os.getxattr(data / "images", "user.dagfs.error.007.jpg")
        assert "user.dagfs.error.008.jpg" in os.listxattr(data / "images")
        (report,) = home.status()
        missing = report["missing"]
        assert set(missing["paths"]) >= {"odd git/", "legacy/", "images/007.jpg"}
        assert (missing["directories"], missing["files"]) == (2, len(missing["paths"]) - 2)
        text = home.run("status").stdout
        assert "offline" in text
        assert f"2 listings and {missing['files']} files" in text


def test_a_file_is_found_again_although_its_directory_was_never_listed(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        (data / "deep/a/b/c/d/e/leaf.txt").read_bytes()
        assert {path for path in asked(url)["requests"] if path == "listing"}
    with home.mounted(url, tmp_path / "other", "--offline") as data:
        assert (data / "deep/a/b/c/d/e/leaf.txt").read_bytes() == b"leaf\n"
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
            (data / "deep/a/other").stat()
        assert raised.value.errno == MISSING


def test_the_blocks_of_an_incomplete_file_are_served_and_the_others_are_an_error(home, tmp_path):
    whole = random.Random(3).randbytes(40 << 20)
    root = new_repository(tmp_path / "repo")
    write_files(root, {"large.bin": whole})
    commit_all(root, "one large file")
    with (
        hub(root) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
        open(data / "large.bin", "rb", buffering=0) as file,
    ):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 65536, 30 << 20) == whole[30 << 20 : (30 << 20) + 65536]
    with (
        home.mounted(url, tmp_path / "data", "--offline") as data,
        open(data / "large.bin", "rb", buffering=0) as file,
    ):
        assert os.fstat(file.fileno()).st_size == len(whole)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 65536, 30 << 20) == whole[30 << 20 : (30 << 20) + 65536]
        with pytest.raises(OSError, match="unreachable"):
            os.pread(file.fileno(), 65536, 20 << 20)
        assert os.pread(file.fileno(), 4096, 30 << 20) == whole[30 << 20 : (30 << 20) + 4096]


def test_the_last_commit_that_was_seen_of_a_branch_is_mounted(sample, home, tmp_path):
    first = sample.tags["v1"]
    with hub(sample.path) as url:
        for words in ([], ["--branch", "feature/with/slashes"], ["--rev", "v1"]):
            with home.mounted(url, tmp_path / "data", *words):
                pass
    for words, commit in (
        ([], sample.head),
        (["--branch", "main"], sample.head),
        (["--branch", "feature/with/slashes"], first),
        (["--rev", "v1"], first),
        (["--rev", first], first),
    ):
        with home.mounted(url, tmp_path / "data", "--offline", *words):
            assert home.status()[0]["commit"] == commit


def test_what_the_cache_does_not_know_cannot_be_mounted_offline(sample, home, tmp_path):
    (tmp_path / "data").mkdir()
    with hub(sample.path) as url:
        nothing = [refused(home, url, tmp_path / "data", "--offline")]
        with home.mounted(url, tmp_path / "data"):
            pass
    for words in (["--branch", "other"], ["--rev", "v1"], ["--rev", "f" * 40], ["--subdir", "images"]):
        nothing.append(refused(home, url, tmp_path / "data", "--offline", *words))
    for status, line in nothing:
        assert status == NotInCache.exit_status
        assert "mount it once with a network" in line
    assert home.status() == []
    assert refused(home, url, tmp_path / "data", "--offline", "--subdir", "README.md")[0] in {
        NotInCache.exit_status,
        UnknownRevision.exit_status,
    }


def test_a_missing_token_file_is_no_hindrance_offline(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data"):
        pass
    with home.mounted(url, tmp_path / "data", "--offline", "--token-file", tmp_path / "gone") as data:
        assert "README.md" in os.listdir(data)


def test_without_the_hub_a_mount_fails_and_says_what_offline_would_show(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data"):
        pass
    status, line = refused(home, url, tmp_path / "data")
    assert status == HubUnreachable.exit_status
    assert f"--offline would serve what the cache has of commit {sample.head[:12]}" in line
    status, line = refused(home, url, tmp_path / "data", "--branch", "other")
    assert status == HubUnreachable.exit_status
    assert "--offline" not in line
