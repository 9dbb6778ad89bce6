"""The DVC remote as a second way to the bytes: `dagfs mount --dvc-remote`."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.commands import Home, asked, served
from support.repos import (
    Truth,
    add_legacy_directory,
    big_directory,
    commit_all,
    git_files,
    new_repository,
    put_dvc_directory,
    write_files,
)
from support.s3server import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.integration

FILES = {f"sub{i}/deep/{i:02d}.bin": bytes([i]) * (1000 + i) for i in range(12)}
KEYS = "    access_key_id = key\n    secret_access_key = secret\n"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """120 files in forty directories."""
    return big_directory(tmp_path_factory.mktemp("deep") / "repo", 120, size=900, per_directory=3)


def repository(path: Path, config: str, *, files: dict[str, bytes] = FILES) -> Truth:
    """Make a repository with a DVC directory and a `.dvc/config`."""
    root = new_repository(path)
    put_dvc_directory(root, "data", files)
    write_files(root, {".dvc/config": config.encode(), "README.md": b"# readme\n"})
    head = commit_all(root, "data")
    held = {f"data/{name}": data for name, data in files.items()}
    return Truth(root, head, {head: git_files(root, head) | held}, {head: frozenset(held)}, {"main": head})


def cached_objects(root: Path) -> dict[str, bytes]:
    cache = root / ".dvc/cache"
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def remote(name: str, *lines: str) -> str:
    return "\n".join([f"['remote \"{name}\"']", *(f"    {line}" for line in lines), ""])


def walk(mountpoint: Path) -> list[str]:
    found = subprocess.run(
        ["find", ".", "-type", "f", "-not", "-path", "./.dvc/*"],
        cwd=mountpoint,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return sorted(line.removeprefix("./") for line in found.stdout.splitlines())


def read_dvc(mountpoint: Path, truth: Truth) -> None:
    """Read all that DVC tracks; who lists first does not read before the remote is found."""
    for top in {path.partition("/")[0] for path in truth.dvc[truth.head]}:
        os.listdir(mountpoint / top)
    for path in sorted(truth.dvc[truth.head]):
        assert (mountpoint / path).read_bytes() == truth.files[path], path


def content_requests(url: str) -> dict[str, int]:
    """Requests for what DVC tracks, by kind; the root and .dvc/config are asked for in any case."""
    told = asked(url)
    raw = sum(n for path, n in told["raw_paths"].items() if path.startswith("data/"))
    return {"raw": raw, "dvc": told["requests"].get("dvc", 0), "listing": told["requests"].get("listing", 0)}


def way(home: Home) -> dict:
    return home.status()[0]["ways"][0]


def test_one_manifest_replaces_the_listings_of_a_deep_directory(tmp_path: Path, deep: Truth) -> None:
    found, listings = {}, {}
    with served(deep.path) as url:
        for name, options in (("without", ()), ("with", ("--dvc-remote", "default"))):
            asked(url, reset=True)
            with Home(tmp_path / name).mounted(url, tmp_path / "m", "--no-prefetch", *options) as mountpoint:
                found[name] = walk(mountpoint)
            listings[name] = content_requests(url)
    assert found["with"] == found["without"]
    assert set(found["with"]) >= deep.dvc[deep.head]
    assert listings["without"] == {"raw": 0, "dvc": 0, "listing": 43}  # the root, .dvc, data, and forty below it
    assert listings["with"] == {"raw": 0, "dvc": 1, "listing": 2}


def test_listings_from_a_manifest_are_kept_and_serve_a_mount_without_a_network(tmp_path: Path, deep: Truth) -> None:
    home = Home(tmp_path / "home")
    with served(deep.path) as url, home.mounted(url, tmp_path / "m", "--dvc-remote", "default") as mountpoint:
        os.listdir(mountpoint / "data")
        os.listdir(mountpoint / ".dvc")
    with home.mounted(url, tmp_path / "m", "--offline") as mountpoint:
        assert set(walk(mountpoint)) >= deep.dvc[deep.head]


def test_the_hubs_own_remote_is_asked_first_and_the_api_for_the_rest(tmp_path: Path, deep: Truth) -> None:
    home = Home(tmp_path / "home", extra={"DAGSHUB_USER_TOKEN": "secret-token"})
    with served(deep.path, "--token", "secret-token") as url:
        home.extra["DAGSHUB_CLIENT_HOST"] = url.rsplit("/", 2)[0]
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "default") as mountpoint:
            read_dvc(mountpoint, deep)
            assert (mountpoint / "data.dvc").read_bytes() == deep.files["data.dvc"]
            told = way(home)
            text = home.run("status").stdout
        requests = content_requests(url)
    assert requests == {"raw": 0, "dvc": 121, "listing": 1}
    assert (told["hits"], told["misses"], told["manifests"]) == (120, 0, 1)
    assert "DVC remote default: 120 files" in text


def test_a_remote_without_the_data_is_given_up_and_the_api_serves(tmp_path: Path, server: S3Server) -> None:
    files = {f"{i:03d}.bin": b"%d" % i for i in range(100)}
    config = remote("store", f"url = s3://{BUCKET}/empty", f"endpointurl = {server.url}") + KEYS
    truth = repository(tmp_path / "repo", config, files=files)
    server.counts()
    with served(truth.path) as url:
        home = Home(tmp_path / "home")
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
    assert (told["state"], told["misses"]) == ("resting", 64)
    assert "had none of 64 files" in told["why"]
    assert sum(n for name, n in server.counts().items() if name.startswith("GET")) == 2 * 65  # two layouts, a manifest


def test_the_remote_that_dvc_config_names_brings_bytes_and_listings(tmp_path: Path, server: S3Server) -> None:
    config = "[core]\n    remote = store\n" + remote(
        "store", f"url = s3://{BUCKET}/full", f"endpointurl = {server.url}", "region = us-east-1"
    )
    truth = repository(tmp_path / "repo", config)
    for key, data in cached_objects(truth.path).items():
        server.put(f"full/{key}", data)
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with served(truth.path) as url:
        home = Home(tmp_path / "home", extra=keys)
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "default") as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
        assert content_requests(url) == {"raw": 0, "dvc": 0, "listing": 1}
    assert (told["hits"], told["manifests"]) == (len(FILES), 1)


def test_keys_come_from_the_files_of_the_aws_tools_and_from_dvcs_own(tmp_path: Path, server: S3Server) -> None:
    config = remote("store", f"url = s3://{BUCKET}/full", f"endpointurl = {server.url}", "profile = lab")
    truth = repository(tmp_path / "repo", config)
    for key, data in cached_objects(truth.path).items():
        server.put(f"full/{key}", data)
    places = {
        "aws": (".aws/credentials", "[lab]\naws_access_key_id = key\naws_secret_access_key = secret\n"),
        "dvc": (".config/dvc/config", remote("store") + KEYS),
    }
    with served(truth.path) as url:
        for name, (place, text) in places.items():
            home = Home(tmp_path / name)
            write_files(home.root, {place: text.encode()})
            with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
                read_dvc(mountpoint, truth)
                assert way(home)["hits"] == len(FILES), name


@pytest.mark.parametrize(
    ("config", "name", "why"),
    [
        (remote("other", "url = s3://b/p"), "store", ".dvc/config has no remote store; it has other"),
        (remote("store", "url = ssh://host/path"), "store", "ssh://"),
        (remote("store", "url = ../../elsewhere"), "store", "a path from a working copy"),
        ("[core\n", "store", ".dvc/config cannot be read"),
    ],
    ids=["an unknown name", "a protocol that is not spoken", "a relative path", "a broken file"],
)
def test_a_remote_that_cannot_be_used_is_named_in_status_and_the_api_serves(
    tmp_path: Path, config: str, name: str, why: str
) -> None:
    truth = repository(tmp_path / "repo", config)
    with served(truth.path) as url:
        home = Home(tmp_path / "home")
        with home.mounted(url, tmp_path / "m", "--dvc-remote", name) as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
            assert why in home.run("status").stdout
    assert (told["state"], told["hits"]) == ("resting", 0)


def test_a_remote_that_refuses_is_left_alone_and_the_token_is_good_for_the_api(
    tmp_path: Path, server: S3Server
) -> None:
    """Refused keys are no reason to ask for each file."""
    config = remote("store", f"url = s3://{BUCKET}/full", f"endpointurl = {server.url}") + KEYS
    truth = repository(tmp_path / "repo", config)
    server.counts()
    server.fail("403")
    try:
        with served(truth.path) as url:
            home = Home(tmp_path / "home")
            with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
                read_dvc(mountpoint, truth)
                told = way(home)
    finally:
        server.fail(None)
    assert (told["state"], told["failures"]) == ("resting", 1)
    assert server.counts()["GET failed"] == 1


def test_without_keys_the_api_serves_and_status_says_so(tmp_path: Path, server: S3Server) -> None:
    config = remote("store", f"url = s3://{BUCKET}/full", f"endpointurl = {server.url}")
    truth = repository(tmp_path / "repo", config)
    server.counts()
    with served(truth.path) as url:
        home = Home(tmp_path / "home", extra={"AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"})
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
            assert "resting: no keys for it were found" in home.run("status").stdout
    assert (told["failures"], told["hits"]) == (1, 0)
    assert sum(server.counts().values()) == 0


class _Files(SimpleHTTPRequestHandler):
    """Serves a directory to who knows the password, and notes what it was shown."""

    shown: set[str | None] = set()  # noqa: RUF012 -- of the one test
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.shown.add(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"ada:pass").decode():
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web(directory: Path) -> Iterator[str]:
    def handler(*words: object) -> _Files:
        return _Files(*words, directory=str(directory))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_web_server_is_a_remote_and_never_sees_the_hubs_token(tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    with web(place) as address:
        truth = repository(tmp_path / "repo", remote("store", f"url = {address}", "auth = basic", "user = ada"))
        write_files(place, cached_objects(truth.path))
        with served(truth.path, "--token", "hub-token") as url:
            host = url.rsplit("/", 2)[0]
            home = Home(tmp_path / "home", extra={"DAGSHUB_USER_TOKEN": "hub-token", "DAGSHUB_CLIENT_HOST": host})
            write_files(home.root, {".config/dvc/config": (remote("store") + "    password = pass\n").encode()})
            with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
                read_dvc(mountpoint, truth)
                assert way(home)["hits"] == len(FILES)
    assert _Files.shown == {"Basic " + base64.b64encode(b"ada:pass").decode()}


def test_a_directory_of_this_machine_is_a_remote_in_both_of_dvcs_layouts(tmp_path: Path) -> None:
    place = tmp_path / "store"
    root = new_repository(tmp_path / "repo")
    put_dvc_directory(root, "data", FILES)
    old = {"a.bin": b"old" * 100, "sub/b.bin": b"older" * 100}
    add_legacy_directory(root, "legacy", old)
    write_files(root, {".dvc/config": remote("store", f"url = {place}").encode()})
    head = commit_all(root, "both")
    held = {f"data/{k}": v for k, v in FILES.items()} | {f"legacy/{k}": v for k, v in old.items()}
    truth = Truth(root, head, {head: held}, {head: frozenset(held)}, {"main": head})
    write_files(place, cached_objects(root))
    with served(root) as url:
        home = Home(tmp_path / "home")
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
    assert (told["hits"], told["misses"], told["manifests"]) == (len(held), 0, 2)


def test_wrong_objects_of_a_remote_are_not_served(tmp_path: Path) -> None:
    """Neither bytes nor a manifest."""
    place = tmp_path / "store"
    truth = repository(tmp_path / "repo", remote("store", f"url = {place}"))
    objects = cached_objects(truth.path)
    write_files(place, {key: b"[]" if key.endswith(".dir") else b"x" * len(data) for key, data in objects.items()})
    with served(truth.path) as url:
        home = Home(tmp_path / "home")
        with home.mounted(url, tmp_path / "m", "--no-prefetch", "--dvc-remote", "store") as mountpoint:
            read_dvc(mountpoint, truth)
            told = way(home)
    assert told["hits"] == 0
    assert told["wrong"] >= 3
