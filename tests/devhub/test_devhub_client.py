"""The real DagsHub client and real DVC against the hub: what they list and read equals git's and DVC's own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.repos import Truth, environment, git

from dagfs.devhub.serve import Hub

TOKEN = "t0ken"
WALK = """
import hashlib, json, os, sys
from dagshub.common.api.repo import RepoAPI
host, name, root, storage = sys.argv[1:]
api = RepoAPI(name, host=host)
SKIPPED = ("images/00", "images/01", "images/02")  # each request costs the client 25 ms of CPU

def walk(path, revision):
    for entry in api.list_path(path, revision, include_size=True):
        if entry.type == "dir":
            if entry.path != "vendor/library":
                yield from walk(entry.path, revision)
        elif entry.type == "file":
            found["sizes"][entry.path] = entry.size
            if entry.path.startswith(SKIPPED):
                continue
            body = api.get_file(entry.path, revision)
            yield entry.path, hashlib.sha256(body).hexdigest()

found = {"branch": api.get_branch_info("feature/with/slashes").commit.id, "default": api.default_branch, "sizes": {}}
found["api"] = dict(walk("", "main"))
found["tag"] = hashlib.sha256(api.get_file("images/000.jpg", "v1")).hexdigest()
found["storages"] = [s.full_path for s in api.get_connected_storages()]
entries = api.list_storage_path("s3/bucket")
found["bucket"] = [e.path for e in entries if e.type == "file"]
found["object"] = api.get_storage_file("s3/bucket/101.txt").decode()

from dagshub.streaming import DagsHubFilesystem
fs = DagsHubFilesystem(root, repo_url=f"{host}/{name}", branch="main")
streamed = {}
for path in found["api"]:
    if path.startswith((".dvc/", "odd git/", "images/0")):  # it asks the disk for .dvc; the others are read above
        continue
    with fs.open(os.path.join(root, path), "rb") as file:
        streamed[path] = hashlib.sha256(file.read()).hexdigest()
found["streamed"] = streamed
found["listdir"] = sorted(fs.listdir(os.path.join(root, "images")))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def seen(sample: Truth, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the real client finds, in a process of its own: it patches, caches and reads the environment."""
    work = tmp_path_factory.mktemp("client")
    bucket = work / "bucket"
    bucket.mkdir()
    for i in range(210):
        (bucket / f"{i:03d}.txt").write_text(f"object {i}")
    mine = {"DAGSHUB_USER_TOKEN": TOKEN, "HOME": str(work), "XDG_CACHE_HOME": str(work), "DAGSHUB_QUIET": "true"}
    root = work / "root"
    root.mkdir()
    with Hub(sample.path, "ada/sample", token=TOKEN, storages={"s3:bucket": bucket}) as hub:
        command = [sys.executable, "-c", WALK, hub.host, hub.name, str(root), str(bucket)]
        run = subprocess.run(
            command,
            cwd=work,
            env=environment(**mine, DAGSHUB_CLIENT_HOST=hub.host, DAGSHUB_DISABLE_ANALYTICS="1"),
            capture_output=True,
            timeout=100,
        )
    assert run.returncode == 0, run.stderr.decode()[-3000:]
    return json.loads(run.stdout.decode().splitlines()[-1])


def hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def test_the_clients_api_lists_every_file_with_its_size(seen: dict, sample: Truth) -> None:
    assert seen["sizes"] == {path: len(data) for path, data in sample.files.items()}


def test_the_clients_api_reads_every_byte(seen: dict, sample: Truth) -> None:
    skipped = ("images/00", "images/01", "images/02")
    assert seen["api"] == hashes({k: v for k, v in sample.files.items() if not k.startswith(skipped)})


def test_the_clients_streaming_filesystem_reads_every_byte(seen: dict, sample: Truth) -> None:
    assert {"empty", "odd dvc/line\nbreak.txt", "legacy/dos.txt", "model.bin"} <= set(seen["streamed"])
    assert seen["streamed"] == {k: v for k, v in hashes(sample.files).items() if k in seen["streamed"]}
    assert set(seen["listdir"]) == {path.split("/")[1] for path in sample.files if path.startswith("images/")}


def test_the_client_resolves_branches_and_tags(seen: dict, sample: Truth) -> None:
    assert (seen["branch"], seen["default"]) == (sample.branches["feature/with/slashes"], "main")
    assert seen["tag"] == hashes(sample.commits[sample.tags["v1"]])["images/000.jpg"]


def test_the_client_pages_through_a_bucket(seen: dict) -> None:
    assert seen["storages"] == ["s3/bucket"]
    assert seen["bucket"] == [f"s3/bucket/{i:03d}.txt" for i in range(210)]
    assert seen["object"] == "object 101"


def test_a_clone_pulls_every_file_with_real_dvc(sample: Truth, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(sample.path), str(clone))
    with Hub(sample.path, "ada/sample", token=TOKEN) as hub:
        (clone / ".dvc/config.local").write_text(
            f"[core]\n    remote = hub\n['remote \"hub\"']\n    url = {hub.url}.dvc\n"
            f"    auth = basic\n    user = {TOKEN}\n    password = {TOKEN}\n"
        )
        mine = environment(HOME=str(tmp_path), DVC_SITE_CACHE_DIR=str(tmp_path / "site"), XDG_CACHE_HOME=str(tmp_path))
        run = subprocess.run(
            [sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, env=mine, capture_output=True, timeout=100
        )
        assert run.returncode == 0, run.stderr.decode()[-3000:]
        assert hub.requests.count("dvc") > 0
    wrong = [p for p in sample.dvc[sample.head] if (clone / p).read_bytes() != sample.files[p]]
    assert wrong == []
    assert not os.path.exists(clone / "images/000.jpg")
