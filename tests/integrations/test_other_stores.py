"""Azure as tier, Azure and Google Cloud as DVC remotes: Azurite, fake-gcs-server, and what DVC keeps there."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.clouds import CONTAINER, azure_server, google_server
from support.commands import Home, asked, served
from support.repos import Truth, commit_all, environment, git, new_repository, put_dvc_directory, write_files

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
FILES = {f"sub{i % 3}/{i:02d}.bin": random.Random(i).randbytes(2000 + i) for i in range(12)} | {
    "big.bin": random.Random(99).randbytes(9_000_000)
}


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_server() as connection:
        yield connection


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with google_server(port) as url:
        yield url


def repository(path: Path, config: str = "") -> Truth:
    root = new_repository(path)
    put_dvc_directory(root, "data", FILES)
    write_files(root, {".dvc/config": config.encode()})
    head = commit_all(root, "data")
    held = {f"data/{name}": data for name, data in FILES.items()}
    return Truth(root, head, {head: held}, {head: frozenset(held)}, {"main": head})


def dvc(words: str, directory: Path, home: Path, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words.split()],
        cwd=directory,
        env=environment(HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"), **variables),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


def read_all(mountpoint: Path, truth: Truth) -> None:
    for path in sorted(truth.dvc[truth.head]):
        assert (mountpoint / path).read_bytes() == truth.files[path], path


def content_bytes(url: str) -> int:
    return asked(url)["bytes"].get("raw", 0)


def test_azure_is_a_tier_that_costs_the_hub_one_download_and_real_dvc_pulls_from_it(azure: str, tmp_path: Path) -> None:
    from azure.storage.blob import ContainerClient

    truth = repository(tmp_path / "repo")
    options = ("--shared-cache", f"az://{CONTAINER}/shared", "--no-prefetch")
    names = {hashlib.md5(data).hexdigest() for data in FILES.values()}
    container = ContainerClient.from_connection_string(azure, CONTAINER)
    with served(truth.path) as url:
        first, second = (Home(tmp_path / name, extra={CONNECTION: azure}) for name in ("first", "second"))
        with first.mounted(url, tmp_path / "a", *options) as mountpoint:
            read_all(mountpoint, truth)
            deadline = time.monotonic() + 30
            while not names <= {name[-33:].replace("/", "") for name in container.list_blob_names()}:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        asked(url, reset=True)
        with second.mounted(url, tmp_path / "b", *options) as mountpoint:
            read_all(mountpoint, truth)
            (told,) = second.status()
        asked_for = asked(url)["raw_paths"]
    assert (told["ways"][0]["state"], told["ways"][0]["failures"], told["ways"][0]["wrong"]) == ("in use", 0, 0)
    assert {path: n for path, n in asked_for.items() if path.startswith("data/")}.keys() <= {"data/big.bin"}  # its size
    assert [name for name in container.list_blob_names() if "/dagfs/" in name] == []  # no lease, no part

    git(tmp_path, "clone", "-q", str(truth.path), "clone")
    dvc(f"remote add --local -d tier azure://{CONTAINER}/shared", tmp_path / "clone", tmp_path)
    dvc("pull data", tmp_path / "clone", tmp_path, **{CONNECTION: azure})
    for name, data in FILES.items():
        assert (tmp_path / "clone/data" / name).read_bytes() == data, name


@pytest.mark.parametrize("where", ["environment", "dvc's own settings"])
def test_a_dvc_remote_in_azure_brings_what_dvc_pushed_there(azure: str, tmp_path: Path, where: str) -> None:
    remote = f"azure://{CONTAINER}/{where[:3]}"
    truth = repository(tmp_path / "repo", f"['remote \"store\"']\n    url = {remote}\n")
    dvc("push -r store", truth.path, tmp_path, **{CONNECTION: azure})
    home = Home(tmp_path / "home")
    if where == "environment":
        home.extra[CONNECTION] = azure
    else:
        secret = f"['remote \"store\"']\n    connection_string = {azure}\n"
        write_files(home.root, {".config/dvc/config": secret.encode()})
    bring(truth, home, tmp_path)


def test_a_dvc_remote_in_google_cloud_brings_what_it_has(google: str, tmp_path: Path) -> None:
    words = f"url = gs://{CONTAINER}/dvc\n    endpointurl = {google}\n    allow_anonymous_login = true\n"
    truth = repository(tmp_path / "repo", f"['remote \"store\"']\n    {words}")
    cache = truth.path / ".dvc/cache"
    for place in cache.rglob("*"):  # not by dvc: its client for Google wants gRPC, which no such server speaks
        if place.is_file():
            name = quote(f"dvc/{place.relative_to(cache)}", safe="")
            upload = f"{google}/upload/storage/v1/b/{CONTAINER}/o?uploadType=media&name={name}"
            urllib.request.urlopen(urllib.request.Request(upload, place.read_bytes()), timeout=10).read()
    bring(truth, Home(tmp_path / "home"), tmp_path)


def bring(truth: Truth, home: Home, tmp_path: Path) -> None:
    """Read all that DVC tracks: bytes and listings come from the remote."""
    with (
        served(truth.path) as url,
        home.mounted(url, tmp_path / "m", "--dvc-remote", "store", "--no-prefetch") as mountpoint,
    ):
        (mountpoint / "data").stat()
        assert {path.name for path in (mountpoint / "data").iterdir()} == {"big.bin", "sub0", "sub1", "sub2"}
        read_all(mountpoint, truth)
        told = home.status()[0]["ways"][0]
        sent = content_bytes(url)
    assert (told["state"], told["failures"], told["wrong"], told["manifests"]) == ("in use", 0, 0, 1), told
    assert told["misses"] <= 1  # the beginning of the large file, whose size only the hub can tell
    assert told["hits"] >= len(FILES)
    assert sent < 9_000_000
