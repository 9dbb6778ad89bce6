"""Several machines share what one of them has fetched: `dagfs mount --shared-cache`, against a real S3 server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home, asked, served
from support.repos import Truth, environment, git
from support.s3server import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.integration

TIER = f"s3://{BUCKET}/shared"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def tier(server: S3Server, tmp_path: Path) -> Iterator[str]:
    """A tier of this test's own."""
    server.fail(None)
    server.counts()
    yield f"{TIER}/{hashlib.md5(str(tmp_path).encode()).hexdigest()[:8]}"
    server.fail(None)


def node(tmp_path: Path, name: str, server: S3Server) -> Home:
    return Home(tmp_path / name, extra=server.environment)


def read_all(mountpoint: Path, truth: Truth, paths: list[str]) -> None:
    for path in paths:
        assert (mountpoint / path).read_bytes() == truth.files[path], path


def way(home: Home, number: int = 0) -> dict:
    return home.status()[0]["ways"][number]


def stored(home: Home, count: int) -> dict:
    """Wait until a mount has brought so many files to the tier."""
    deadline = time.monotonic() + 20
    while way(home)["writing"]["stored"] < count:
        assert time.monotonic() < deadline, way(home)
        time.sleep(0.05)
    return way(home)


def await_objects(server: S3Server, tier: str, names: set[str]) -> None:
    """Wait until the tier has these objects."""
    prefix = f"{tier.removeprefix(f's3://{BUCKET}/')}/files/md5/"
    deadline = time.monotonic() + 30
    while left := names - {key.removeprefix(prefix).replace("/", "") for key in server.keys(prefix)}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def contents_of(truth: Truth, paths: list[str]) -> set[str]:
    """The MD5s of what is read from the tier; an empty file needs nobody."""
    return {hashlib.md5(truth.files[path]).hexdigest() for path in paths if truth.files[path]}


def dvc_paths(truth: Truth) -> list[str]:
    return sorted(path for path in truth.dvc[truth.head] if not path.startswith("legacy/"))


def test_a_second_machine_reads_what_the_first_has_fetched_without_the_hub(
    tmp_path: Path, sample: Truth, server: S3Server, tier: str
) -> None:
    paths = dvc_paths(sample)
    with served(sample.path) as url:
        first, second = node(tmp_path, "first", server), node(tmp_path, "second", server)
        options = ("--shared-cache", tier, "--no-prefetch")
        with first.mounted(url, tmp_path / "a", *options) as mountpoint:
            read_all(mountpoint, sample, paths)
            await_objects(server, tier, contents_of(sample, paths))
        asked(url, reset=True)
        with second.mounted(url, tmp_path / "b", *options) as mountpoint:
            read_all(mountpoint, sample, paths)
            assert way(second)["hits"] == len(contents_of(sample, paths))
        fetched = [path for path in asked(url)["raw_paths"] if sample.files.get(path)]
    assert fetched == []


def test_google_cloud_is_a_tier_as_well(tmp_path: Path, sample: Truth, large: Truth, server: S3Server) -> None:
    """As its XML API takes it, which no server that can be installed speaks: the S3 server is told its other words."""
    keys = {
        "gcs_base_url": server.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    for name, truth, paths in (("many", sample, dvc_paths(sample)[:20]), ("large", large, ["data/big.bin"])):
        options = ("--shared-cache", f"gs://{BUCKET}/google-{name}", "--no-prefetch")
        homes = [
            Home(tmp_path / f"{name}{i}", extra={"GOOGLE_SERVICE_ACCOUNT": f"{tmp_path}/keys.json"}) for i in (1, 2)
        ]
        with served(truth.path) as url:
            with homes[0].mounted(url, tmp_path / "a", *options) as mountpoint:
                read_all(mountpoint, truth, paths)
                await_objects(server, f"s3://{BUCKET}/google-{name}", contents_of(truth, paths))
            asked(url, reset=True)
            with homes[1].mounted(url, tmp_path / "b", *options) as mountpoint:
                read_all(mountpoint, truth, paths)
                told = way(homes[1])
            assert asked(url)["bytes"].get("raw", 0) <= 9_000_000  # a large file's size is the hub's word
        assert (told["failures"], told["wrong"], told["writing"]["failures"]) == (0, 0, 0)
        assert told["hits"] >= len(contents_of(truth, paths))
    assert server.keys("google-many/dagfs/leases") == {}


def object_key(tier: str, data: bytes) -> str:
    digest = hashlib.md5(data).hexdigest()
    return f"{tier.removeprefix(f's3://{BUCKET}/')}/files/md5/{digest[:2]}/{digest[2:]}"


@pytest.mark.parametrize("wrong", [b"\0" * 21_001, b"short"], ids=["of the right size", "of another size"])
def test_wrong_bytes_in_the_tier_are_a_miss_and_replaced(
    tmp_path: Path, sample: Truth, server: S3Server, tier: str, wrong: bytes
) -> None:
    path = "images/030.jpg"
    right = sample.files[path]
    assert len(right) == 21_001
    server.put(object_key(tier, right), wrong)
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            assert (mountpoint / path).read_bytes() == right
            assert (mountpoint / path).stat().st_size == len(right)
            told = stored(home, 1)
            assert (told["wrong"], told["hits"], told["writing"]["replaced"]) == (1, 0, 1)
    assert server.get(object_key(tier, right)) == right


@pytest.mark.parametrize("how", ["503", "403", "silence"])
def test_a_tier_that_fails_is_left_alone_and_said_so(
    tmp_path: Path, sample: Truth, server: S3Server, tier: str, how: str
) -> None:
    """The wait for a silent one is its deadline, once."""
    paths = [path for path in dvc_paths(sample) if path.startswith("images/")]
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            server.fail(how)
            read_all(mountpoint, sample, paths)
            told = way(home)
            text = home.run("status").stdout
    assert told["state"] == "resting"
    assert told["failures"] <= 3
    assert told["hits"] == 0
    assert f"shared cache {tier}" in text
    assert f"resting: {told['why'][:20]}" in text
    asked_for = server.counts()
    assert asked_for["GET failed"] <= 3 * 2  # each is tried twice
    assert asked_for["PUT failed"] <= 3 * 2  # a manifest was to be brought


def test_a_tier_that_may_not_be_written_is_read(tmp_path: Path, sample: Truth, server: S3Server, tier: str) -> None:
    there, missing = "images/020.jpg", ["images/021.jpg", "images/022.jpg", "images/023.jpg"]
    server.put(object_key(tier, sample.files[there]), sample.files[there])
    server.fail("PUT 403")
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            read_all(mountpoint, sample, [*missing, there])
            told = way(home)
    assert (told["state"], told["hits"], told["misses"]) == ("in use", 1, 3)
    assert told["writing"]["state"] == "resting"
    assert server.counts()["PUT failed"] == 1


def test_what_git_holds_stays_with_the_hub(tmp_path: Path, sample: Truth, server: S3Server, tier: str) -> None:
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            read_all(mountpoint, sample, ["README.md", "large.bin", "labels.tsv"])
    assert sum(server.counts().values()) == 0


def test_a_mount_without_a_tier_does_not_load_the_library(tmp_path: Path, sample: Truth, server: S3Server) -> None:
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        loaded = {}
        for name, options in (("plain", ()), ("tier", ("--shared-cache", f"file://{tmp_path}/store"))):
            with home.mounted(url, tmp_path / name, *options) as mountpoint:
                path = "images/005.jpg" if name == "plain" else "images/006.jpg"
                assert (mountpoint / path).read_bytes() == sample.files[path]
                (worker,) = home.status()[0]["workers"]
                loaded[name] = "obstore" in Path(f"/proc/{worker}/maps").read_text()
    assert loaded == {"plain": False, "tier": True}


def test_a_directory_is_a_tier_as_well_and_an_unmount_brings_what_waits(tmp_path: Path, sample: Truth) -> None:
    place = tmp_path / "tier"
    paths = dvc_paths(sample)
    with served(sample.path) as url:
        home = Home(tmp_path / "home")
        with home.mounted(url, tmp_path / "m", "--shared-cache", str(place), "--no-prefetch") as mountpoint:
            read_all(mountpoint, sample, paths)
    found = {path.relative_to(place / "files/md5").as_posix().replace("/", ""): path for path in place.rglob("md5/*/*")}
    assert found.keys() >= contents_of(sample, paths)
    for name, path in found.items():  # manifests among them
        assert hashlib.md5(path.read_bytes()).hexdigest() == name.removesuffix(".dir")
    assert list((place / "dagfs/leases").glob("*")) == []


def test_a_tier_that_can_be_none_is_refused_before_the_mount(tmp_path: Path) -> None:
    """One that lies in the mount itself would wait for itself."""
    mountpoint = tmp_path / "m"
    mountpoint.mkdir()
    refusals = {"ftp://host/x": "s3://BUCKET/PREFIX", "bucket/prefix": "s3://BUCKET/PREFIX"}
    for url, text in (refusals | {f"file://{mountpoint}/tier": "inside", f"{mountpoint}/tier": "inside"}).items():
        done = Home(tmp_path / "home").run("mount", "o/n", mountpoint, "--shared-cache", url, check=False)
        assert done.returncode == 2
        assert text in done.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """A DVC directory with a file of 20 MB."""
    from support.repos import commit_all, new_repository, put_dvc_directory

    root = new_repository(tmp_path_factory.mktemp("large") / "repo")
    files = {"big.bin": random.Random(4).randbytes(20_000_000), "small.bin": b"small"}
    put_dvc_directory(root, "data", files)
    head = commit_all(root, "one large file")
    held = {f"data/{name}": data for name, data in files.items()}
    return Truth(root, head, {head: held}, {head: frozenset(held)}, {"main": head})


def test_a_large_file_goes_to_the_tier_when_it_is_whole_and_comes_from_there_in_spans(
    tmp_path: Path, large: Truth, server: S3Server, tier: str
) -> None:
    options = ("--shared-cache", tier, "--no-prefetch")
    with served(large.path) as url:
        first, second = node(tmp_path, "first", server), node(tmp_path, "second", server)
        with first.mounted(url, tmp_path / "a", *options) as mountpoint:
            read_all(mountpoint, large, ["data/big.bin"])
            stored(first, 1)
        asked(url, reset=True)
        with (
            second.mounted(url, tmp_path / "b", *options) as mountpoint,
            (mountpoint / "data/big.bin").open("rb") as file,
        ):
            file.seek(12_000_000)
            assert file.read(1000) == large.files["data/big.bin"][12_000_000:12_001_000]
            assert way(second)["bytes"] < 20_000_000
            read_all(mountpoint, large, ["data/big.bin"])
        assert asked(url)["bytes"].get("raw", 0) <= 9_000_000


def test_wrong_bytes_of_a_large_file_in_the_tier_are_found_and_replaced(
    tmp_path: Path, large: Truth, server: S3Server, tier: str
) -> None:
    """Like a hub's they are found by the read that completes the file; the next reader gets the hub's."""
    path, right = "data/big.bin", large.files["data/big.bin"]
    wrong = right[:15_000_000] + b"\0" + right[15_000_001:]
    server.put(object_key(tier, right), wrong)
    with served(large.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            assert (mountpoint / path).stat().st_size == len(right)
            with contextlib.suppress(OSError):
                assert (mountpoint / path).read_bytes() == right
            time.sleep(2.5)  # for which no read of a file is answered that was wrong just now
            assert (mountpoint / path).read_bytes() == right
            assert way(home)["wrong"] == 1
            assert stored(home, 1)["writing"]["stored"] == 1
    assert server.get(object_key(tier, right)) == right


def test_real_dvc_pulls_from_the_tier(tmp_path: Path, sample: Truth, server: S3Server, tier: str) -> None:
    """What was read is there, and the manifests of the directories that were listed."""
    paths = [path for path in dvc_paths(sample) if path.startswith(("images/", "model.bin"))]
    manifest = re.search(r"md5: (\w+\.dir)", sample.files["images.dvc"].decode())[1]
    with served(sample.path) as url:
        home = node(tmp_path, "home", server)
        with home.mounted(url, tmp_path / "m", "--shared-cache", tier, "--no-prefetch") as mountpoint:
            os.listdir(mountpoint / "images")
            read_all(mountpoint, sample, paths)
            (mountpoint / "images/sub/empty.png").read_bytes()
            await_objects(server, tier, {*contents_of(sample, paths), hashlib.md5(b"").hexdigest(), manifest})
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(sample.path), str(clone))
    options = f"url = {tier}\n    endpointurl = {server.url}\n    region = us-east-1"
    (clone / ".dvc/config.local").write_text(f"[core]\n    remote = tier\n['remote \"tier\"']\n    {options}\n")
    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "images", "model.bin"],
        cwd=clone,
        env=environment(**server.environment, HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert pulled.returncode == 0, pulled.stderr
    for path in paths:
        assert (clone / path).read_bytes() == sample.files[path], path
