"""The hub as a whole: access, names, counters, its life, and the blocking `serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from support.repos import Truth, commit_all, environment, git, new_repository, write_files

from dagfs.devhub.serve import Hub
from dagfs.errors import UsageError


def test_without_its_token_a_private_repository_is_not_there(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path, token="right") as hub:
        for headers, status in [
            ({}, 404),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic !!!"}, 401),
            ({"Authorization": "Bearer right"}, 200),
            ({"Authorization": "token right"}, 200),
        ]:
            call = caller_of(hub, **headers)
            assert call.session.get(call.api, timeout=20).status_code == status, headers
            assert call.raw("main", "README.md").status_code == status, headers
            assert call.session.get(f"{hub.host}/api/v1/user", timeout=20).status_code == (
                status if status != 404 else 401
            )
        plain = caller_of(hub)
        assert plain.get("branches", params={"token": "right"}).status_code == 200
        assert plain.session.get(plain.api, auth=("anybody", "right"), timeout=20).json()["private"] is True


def test_the_dvc_remote_asks_for_a_token_and_serves_each_layout(sample: Truth) -> None:
    pointer = sample.files["model.bin.dvc"].decode()
    digest = pointer.split("md5: ")[1].split()[0]
    with Hub(sample.path, token="right") as hub, requests.Session() as session:
        url = f"{hub.url}.dvc/files/md5/{digest[:2]}/{digest[2:]}"
        assert session.get(url, timeout=20).status_code == 401
        session.auth = ("right", "right")
        assert session.get(url, timeout=20).content == sample.files["model.bin"]
        head = session.head(url, timeout=20)
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(sample.files["model.bin"])))
        assert session.head(url[:-1] + "0" if url[-1] != "0" else url[:-1] + "1", timeout=20).status_code == 404
        assert session.get(url.replace("files/md5/", ""), timeout=20).status_code == 404
        old = sample.files["legacy/tree.dvc"].decode().split("md5: ")[1].split()[0]
        manifest = session.get(f"{hub.url}.dvc/{old[:2]}/{old[2:]}", timeout=20)
        assert {row["relpath"] for row in manifest.json()} == {"a.bin", "sub/b.bin"}


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("https://dagshub.com/ada/data.git", "ada/data"),
        ("https://token:token@host.example/ada/data", "ada/data"),
        ("ssh://git@dagshub.com:2200/ada/data.git", "ada/data"),
        ("/somewhere/on/disk", "local/place-with-spaces"),
        ("https://host.example/deep/er/data.git", "local/place-with-spaces"),
        (None, "local/place-with-spaces"),
    ],
)
def test_the_name_comes_from_a_hubs_remote_or_the_directory(tmp_path: Path, remote: str | None, name: str) -> None:
    root = new_repository(tmp_path / "place with spaces")
    if remote:
        git(root, "remote", "add", "origin", remote)
    with Hub(root) as hub:
        assert hub.name == name
        assert hub.url == f"{hub.host}/{name}"


@pytest.mark.parametrize("name", ["no-slash", "a/b/c", "a/../b", "a b/c"])
def test_a_name_that_is_no_name_is_refused(sample: Truth, name: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        Hub(sample.path, name)


def test_a_port_that_is_taken_is_refused_in_one_line(sample: Truth, hub: Hub) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        Hub(sample.path, port=int(hub.host.rsplit(":", 1)[1]))


def test_requests_are_counted_by_kind_in_process_and_over_http(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path) as hub:
        call = caller_of(hub)
        call.session.get(call.api, timeout=20)
        call.listing("main")
        call.raw("main", "images/001.jpg")
        call.raw("main", "images/001.jpg", Range="bytes=0-9")
        call.raw("main", "nothing")
        expected = {"rest": 1, "listing": 1, "raw": 3}
        assert {kind: hub.requests.count(kind) for kind in expected} == expected
        last = hub.requests.records[-2]
        shown = (last.method, last.kind, last.path, last.status, last.span, last.bytes)
        assert shown == ("GET", "raw", "images/001.jpg", 206, "bytes=0-9", 10)
        summary = call.session.get(f"{hub.host}/-/requests", timeout=20).json()
        assert {kind: summary["requests"][kind] for kind in expected} == expected
        assert summary["raw_paths"] == {"images/001.jpg": 2, "nothing": 1}
        assert call.session.post(f"{hub.host}/-/requests/reset", timeout=20).status_code == 200
        assert hub.requests.count("raw") == 0
        assert hub.requests.raw_paths == {}


def test_bytes_are_counted_before_the_client_has_them(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path, bandwidth=200e6) as slow, Hub(sample.path) as quick:
        for hub in (slow, quick):
            call = caller_of(hub)
            for n in range(1, 6):
                call.raw("main", "large.bin")
                assert hub.requests.bytes("raw") == n * len(sample.files["large.bin"])


def test_many_clients_at_once_get_their_own_bytes(caller_of: Callable, sample: Truth) -> None:
    paths = sorted(sample.files)
    with Hub(sample.path) as hub, ThreadPoolExecutor(8) as pool:
        calls = [caller_of(hub) for _ in range(8)]

        def read_all(mine: int) -> list[str]:
            order = paths[mine * 7 :] + paths[: mine * 7]
            return [p for p in order if calls[mine].raw("main", p).content != sample.files[p]]

        assert list(pool.map(read_all, range(8))) == [[]] * 8
        assert hub.requests.count("raw") == 8 * len(paths)


def test_latency_is_added_once_to_each_answer(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path, latency=0.1) as hub:
        call = caller_of(hub)
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            calls = [caller_of(hub) for _ in range(10)]
            list(pool.map(lambda c: c.raw("main", "README.md"), calls))
        assert time.monotonic() - started >= 0.1
        call.raw("main", "large.bin")
        assert hub.requests.count() == 11


def test_a_stopped_hub_leaves_no_thread_process_or_descriptor(caller_of: Callable, sample: Truth) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    with Hub(sample.path):  # what Python opens once is open from here on
        pass
    before, names, processes = descriptors(), threads(), _children()
    with Hub(sample.path) as hub:
        idle = socket.create_connection(("127.0.0.1", int(hub.host.rsplit(":", 1)[1])), timeout=20)
        call = caller_of(hub)
        assert call.raw("main", "large.bin").status_code == 200
        assert _children() > processes
    assert idle.recv(1) == b""
    idle.close()
    call.session.close()
    assert descriptors() == before
    assert threads() == names
    assert _children() == processes


def _children() -> set[str]:
    """Give this process's children; /proc has them by the thread that started them, or a surviving one."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for children in lists for pid in children.read_text().split()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_url_first_and_ends_cleanly_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    root = new_repository(tmp_path / "served")
    write_files(root, {"a.txt": b"a"})
    commit_all(root, "one")
    script = "import sys; from pathlib import Path; from dagfs.devhub.serve import serve; serve(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(root)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url.endswith("/local/served")
        host = url.removesuffix("/local/served")
        assert requests.get(f"{host}/api/v1/repos/local/served/raw/main/a.txt", timeout=20).content == b"a"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.parametrize("words", [["--token", "s3cr3t"], ["--token=s3cr3t"]])
def test_the_token_of_a_hub_is_in_no_command_line(sample: Truth, words: list[str]) -> None:
    command = [sys.executable, "-m", "dagfs", "serve", str(sample.path), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            assert b"s3cr3t" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
            owner = "/".join(url.rsplit("/", 2)[1:])
            answers = [
                requests.get(f"{url.removesuffix(owner)}api/v1/repos/{owner}", headers=headers, timeout=10).status_code
                for headers in ({}, {"Authorization": "Bearer s3cr3t"})
            ]
        finally:
            server.terminate()
    assert answers[1] == 200
    assert answers[0] != 200
