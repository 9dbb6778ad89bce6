"""`dagshub://` through fsspec: true bytes, true errors, one commit, and few requests."""

from __future__ import annotations

import errno
import io
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.buckets import bucket
from support.repos import Truth, commit_all, git, write_files
from support.waiting import until

from dagfs.devhub.behaviour import Fault
from dagfs.devhub.serve import Hub
from dagfs.errors import UsageError
from dagfs.fsspec_adapter import core
from dagfs.fsspec_adapter.filesystem import DagsHubFileSystem
from dagfs.fsspec_adapter.pool import POOL
from dagfs.hub.urls import parse_repo
from dagfs.store.disk import DiskStore


@pytest.fixture
def hub(sample: Truth) -> Iterator[Hub]:
    with Hub(sample.path, "ada/data") as running:
        yield running


@pytest.fixture
def fs(hub: Hub, tmp_path: Path) -> Iterator[DagsHubFileSystem]:
    yield connected(hub, tmp_path)
    POOL.close()


def connected(hub: Hub, tmp_path: Path, **options: object) -> DagsHubFileSystem:
    return DagsHubFileSystem(host=hub.host, cache_dir=str(tmp_path / "cache"), skip_instance_cache=True, **options)


def test_every_path_and_byte_is_that_of_the_commit(fs, sample):
    found = fs.find("ada/data", detail=True)
    assert set(found) == {f"ada/data/{path}" for path in sample.files}
    assert {path: info["size"] for path, info in found.items()} == {
        f"ada/data/{path}": len(body) for path, body in sample.files.items()
    }
    bodies = dict(zip(found, fs.cat_ranges(list(found), None, None), strict=True))
    assert bodies == {f"ada/data/{path}": body for path, body in sample.files.items()}
    assert fs.cat("ada/data/images", recursive=True) == {
        path: body for path, body in bodies.items() if path.startswith("ada/data/images/")
    }


def test_listings_say_what_paths_are(fs, sample):
    rows = {row["name"]: row for row in fs.ls("dagshub://ada/data/images")}
    assert rows["ada/data/images/001.jpg"]["type"] == "file"
    assert rows["ada/data/images/001.jpg"]["mtime"] == sample.time
    assert fs.info("ada/data/images")["type"] == "directory"
    assert fs.info("ada/data")["type"] == "directory"
    assert fs.isdir("ada/data/images")
    assert fs.isfile("ada/data/README.md")
    assert fs.ls("ada/data/README.md", detail=False) == ["ada/data/README.md"]
    assert fs.glob("dagshub://ada/data/images/00*.jpg")[:2] == ["ada/data/images/001.jpg", "ada/data/images/002.jpg"]
    assert "ada/data/images/001.jpg" in fs.glob("ada/data/**/*.jpg")
    assert fs.du("ada/data/images") == sum(
        len(body) for path, body in sample.files.items() if path.startswith("images/")
    )


def test_names_alone_are_listed_without_sizes(fs, hub):
    fs.find("ada/data")
    fs.glob("ada/data/**/*.jpg")
    assert hub.requests.count("raw") == 0
    listings = hub.requests.count("listing")
    fs.find("ada/data")
    assert hub.requests.count("listing") == listings


def test_open_files_seek_and_read_like_local_ones(fs, sample):
    for name in ("large.bin", "images/001.jpg", "empty.dat"):
        body, noise = sample.files[name], random.Random(5)
        with fs.open(f"dagshub://ada/data/{name}") as ours:
            theirs = io.BytesIO(body)
            assert ours.size == len(body)
            for _ in range(60):
                whence = noise.randrange(3)
                place = -noise.randrange(len(body) + 1) if whence == 2 else noise.randrange(len(body) + 10)
                if whence == 1 and theirs.tell() + place > len(body):
                    continue
                assert ours.seek(place, whence) == theirs.seek(place, whence)
                size = noise.choice([0, 1, 100, 70_000, -1])
                assert ours.read(size) == theirs.read(size)
    with fs.open("ada/data/README.md", "r", encoding="utf-8") as file:
        assert file.read().encode() == sample.files["README.md"]


def test_ranges_are_those_of_a_slice(fs, sample):
    body = sample.files["large.bin"]
    spans = [(0, 10), (5, None), (None, -5), (-7, None), (10, 5), (None, None), (len(body) - 1, len(body) + 100)]
    starts, ends = map(list, zip(*spans, strict=True))
    found = fs.cat_ranges(["ada/data/large.bin"] * len(spans), starts, ends)
    assert found == [body[start:end] for start, end in spans]


def test_many_files_are_asked_for_at_the_same_time(hub, tmp_path):
    fs = connected(hub, tmp_path, prefetch=False)
    paths = fs.glob("ada/data/images/*.jpg")[:8]
    together = threading.Barrier(8)

    def fault(info):
        if info.kind == "raw":
            together.wait(20)  # passes only when eight requests are there at once

    hub.fault = fault
    bodies = fs.cat_ranges(paths, 0, 10, on_error="raise")
    assert all(len(body) == 10 for body in bodies)
    POOL.close()


def test_eight_threads_that_read_one_file_cost_one_request(fs, hub, sample):
    fs.ls("ada/data")
    with ThreadPoolExecutor(8) as threads:
        bodies = list(threads.map(lambda _: fs.cat_file("ada/data/README.md"), range(8)))
    assert set(bodies) == {sample.files["README.md"]}
    assert hub.requests.raw_paths["README.md"] == 1


def test_threads_share_what_the_process_has_open(hub, tmp_path):
    """fsspec makes a file system for each thread."""

    def read(_: int) -> int:
        fs = DagsHubFileSystem(host=hub.host, cache_dir=str(tmp_path / "cache"))
        return len(fs.cat_file("ada/data/README.md"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
    POOL.close()
    DagsHubFileSystem.clear_instance_cache()
    assert hub.requests.raw_paths["README.md"] == 1
    assert hub.requests.count("rest") == 2  # the default branch's name, and its commit


@pytest.mark.parametrize("path", ["ada/data/nothing", "ada/data/README.md/below", "ada/nobody", "ada", ""])
def test_what_is_not_there_is_missing(fs, path):
    assert not fs.exists(path)
    assert not fs.isfile(path)
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        fs.open(path)
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        fs.ls(path)


def test_a_revision_that_is_not_there_is_missing(fs):
    with pytest.raises(FileNotFoundError, match="no branch, tag or commit"):
        fs.ls("ada/data@nothing")


def test_what_the_hub_refuses_is_never_missing(fs, hub):
    assert fs.exists("ada/data/README.md")
    hub.fault = lambda info: Fault(status=403) if info.kind in ("listing", "raw") else None
    for ask in (fs.exists, fs.isfile, fs.isdir, fs.info, fs.ls, fs.find, lambda path: fs.glob(path + "/*")):
        with pytest.raises(PermissionError):
            ask("ada/data/deep")


def test_a_directory_that_cannot_be_listed_is_no_empty_one(fs, hub):
    fs.ls("ada/data")
    hub.fault = lambda info: Fault(status=403) if info.path.startswith("deep") else None
    with pytest.raises(PermissionError):
        fs.find("ada/data")


def test_a_private_repository_without_a_token_says_what_to_do(sample, tmp_path):
    with Hub(sample.path, "ada/data", token="secret") as private:
        fs = connected(private, tmp_path)
        with pytest.raises(FileNotFoundError, match="dagfs login"):
            fs.ls("ada/data")


def test_wrong_bytes_are_an_error(fs, hub):
    hub.fault = lambda info: Fault(flip=0) if info.path == "images/002.jpg" else None
    with pytest.raises(OSError, match=r"images/002\.jpg") as caught:
        fs.cat_file("ada/data/images/002.jpg")
    assert caught.value.errno == errno.EIO


def test_nothing_can_be_written(fs):
    attempts = [
        lambda: fs.open("ada/data/new", "wb"),
        lambda: fs.open("ada/data/README.md", "ab"),
        lambda: fs.rm("ada/data/README.md"),
        lambda: fs.mkdir("ada/data/new"),
        lambda: fs.pipe_file("ada/data/new", b""),
        lambda: fs.mv("ada/data/README.md", "ada/data/new"),
        lambda: fs.touch("ada/data/new"),
        lambda: fs.put(__file__, "ada/data/new"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:  # noqa: PT011 -- the number tells
            attempt()
        assert caught.value.errno == errno.EROFS


def test_a_directory_is_no_file(fs):
    for ask in (fs.open, fs.cat_file):
        with pytest.raises(IsADirectoryError):
            ask("ada/data/images")


def test_branches_tags_and_shas_are_revisions(fs, hub, tmp_path, sample):
    branch, sha = "feature/with/slashes", sample.branches["feature/with/slashes"]
    named = "ada/data@feature%2Fwith%2Fslashes"
    assert fs.commit(named) == fs.commit(f"ada/data@{sha[:10]}") == sha
    assert fs.commit("ada/data@v1") == sample.tags["v1"]
    assert fs.find(named)[0].startswith(named + "/")
    assert connected(hub, tmp_path, rev=branch).commit("ada/data/README.md") == sha


def test_a_revision_that_the_hub_tells_opens_the_store_once(fs, monkeypatch):
    opened, init = [], DiskStore.__init__
    monkeypatch.setattr(DiskStore, "__init__", lambda *words: (opened.append(words), init(*words))[1])
    fs.commit("ada/data@v1")
    assert len(opened) == 1


@pytest.fixture
def moving(sample: Truth, tmp_path: Path) -> Path:
    """A copy of the sample that a test may commit to."""
    shutil.copytree(sample.path, tmp_path / "moving", symlinks=True)
    return tmp_path / "moving"


def push(repository: Path) -> str:
    write_files(repository, {"README.md": b"another"})
    return commit_all(repository, "one more", when=1_800_000_000)


def test_a_branch_is_one_commit_until_it_is_asked_for_anew(moving, tmp_path):
    before = git(moving, "rev-parse", "HEAD")
    with Hub(moving, "ada/data") as hub:
        fs = connected(hub, tmp_path)
        assert fs.commit("ada/data") == before
        after = push(moving)
        assert fs.cat_file("ada/data/README.md") != b"another"
        assert connected(hub, tmp_path).commit("ada/data") == before
        fs.invalidate_cache("ada/data")
        assert fs.commit("ada/data") == before
        fs.invalidate_cache()
        assert fs.commit("ada/data") == after
        assert fs.cat_file("ada/data/README.md") == b"another"
        POOL.close()


def test_what_was_read_once_is_there_without_a_network(hub, fs, tmp_path, sample):
    fs.cat_file("ada/data/images/001.jpg")
    POOL.close()
    hub.fault = lambda _: Fault(status=500)
    asked = hub.requests.count()
    offline = connected(hub, tmp_path, offline=True)
    assert offline.cat_file("ada/data/images/001.jpg") == sample.files["images/001.jpg"]
    with pytest.raises(OSError, match="README") as caught:
        offline.cat_file("ada/data/README.md")
    assert caught.value.errno == errno.ENETUNREACH
    assert hub.requests.count() == asked


def test_more_commits_than_are_kept_open_are_read_all_the_same(sample, tmp_path):
    with Hub(sample.path, "ada/data") as hub:
        fs = connected(hub, tmp_path)
        threads = threading.active_count()
        revisions = [sample.head[:length] for length in range(10, 40)]
        assert {fs.commit(f"ada/data@{revision}") for revision in revisions} == {sample.head}
        assert {fs.cat_file(f"ada/data@{revision}/README.md") for revision in revisions} == {sample.files["README.md"]}
        assert threading.active_count() - threads < 16 * 25
        POOL.close()


def test_checksums_change_with_the_bytes(fs, sample):
    keys = {path: fs.ukey(f"ada/data/{path}") for path in ("images/001.jpg", "images/002.jpg", "README.md")}
    assert len(set(keys.values())) == 3


def test_objects_of_connected_buckets_are_read(sample, tmp_path):
    storages = {"s3:pond": bucket(tmp_path / "pond", {"a/b.bin": b"frog" * 1000})}
    with Hub(sample.path, "ada/data", storages=storages) as running:
        fs = connected(running, tmp_path)
        assert fs.ls("ada/data/.dagshub/storage/s3/pond/a", detail=False) == [
            "ada/data/.dagshub/storage/s3/pond/a/b.bin"
        ]
        assert fs.cat_file("ada/data/.dagshub/storage/s3/pond/a/b.bin") == b"frog" * 1000
        POOL.close()


def test_what_one_machine_has_read_another_takes_from_the_cache_that_they_share(hub, sample, tmp_path):
    (tmp_path / "shared").mkdir()
    shared = str(tmp_path / "shared")
    for machine in ("one", "other"):
        fs = connected(hub, tmp_path / machine, shared_cache=shared)
        assert fs.cat_file("ada/data/model.bin") == sample.files["model.bin"]
        until(lambda: any((tmp_path / "shared/files").rglob("*")))
        POOL.close()
    assert hub.requests.raw_paths["model.bin"] == 1


def test_a_token_file_without_a_name_is_an_error_and_not_another_token(tmp_path):
    settings = core.Settings(tmp_path / "cache", 1 << 30, tmp_path / "none", token_file="")
    repo, _ = parse_repo("http://hub.test/o/n", "https://hub.invalid")
    with pytest.raises(UsageError, match="token"):
        core._token(repo, settings)
