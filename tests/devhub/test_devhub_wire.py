"""Requests that nobody sends by accident: the server answers or hangs up, and goes on."""

from __future__ import annotations

import socket

import pytest
from support.repos import Truth

from dagfs.devhub.serve import Hub
from dagfs.devhub.wire import MAX_HEAD_BYTES


def converse(hub: Hub, data: bytes) -> bytes:
    """Send bytes and read until the server hangs up or says nothing for a second."""
    with socket.create_connection(("127.0.0.1", int(hub.host.rsplit(":", 1)[1])), timeout=1) as client:
        answer = b""
        try:
            client.sendall(data)
            while piece := client.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


def raw(hub: Hub, path: str) -> bytes:
    return f"GET /api/v1/repos/{hub.name}/raw/main/{path} HTTP/1.1\r\nHost: h\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_cannot_be_read_is_refused_and_ends_the_connection(hub: Hub, request_: bytes, status: int) -> None:
    answer = converse(hub, request_ + raw(hub, "README.md") + b"\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or answer == b"", answer[:100]
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_only_reading_is_allowed(call, hub: Hub, method: str) -> None:
    for url in (f"{call.api}/raw/main/README.md", f"{call.api}/content/main/", f"{hub.url}.dvc/files/md5/aa/bb"):
        assert call.session.request(method, url, timeout=20).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "../README.md",
        "deep/../README.md",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "./README.md",
        "//README.md",
        "README.md%00",
        "..%2f..%2fetc%2fpasswd",
        "%ff%fe",
        "%",
        "%zz",
        "images/../images/001.jpg",
    ],
)
def test_a_path_leads_nowhere_but_into_the_commit(hub: Hub, path: str) -> None:
    assert converse(hub, raw(hub, path) + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "key", ["../../config", "files/md5/../../../config", "aa/bb", "files/md5/aa", "", "%2e%2e/config"]
)
def test_a_key_of_the_dvc_remote_leads_into_the_cache_only(hub: Hub, key: str) -> None:
    request = f"GET /{hub.name}.dvc/{key} HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert converse(hub, request.encode()).startswith(b"HTTP/1.1 404 ")


def test_requests_follow_one_another_on_a_connection(hub: Hub, sample: Truth) -> None:
    last = raw(hub, "labels.tsv") + b"Connection: close\r\n\r\n"
    answer = converse(hub, raw(hub, "README.md") + b"\r\n" + raw(hub, "nothing") + b"\r\n" + last)
    assert [answer.count(status) for status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ")] == [2, 1]
    assert answer.endswith(sample.files["labels.tsv"])


def test_a_request_may_arrive_in_pieces(hub: Hub, sample: Truth) -> None:
    with socket.create_connection(("127.0.0.1", int(hub.host.rsplit(":", 1)[1])), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw(hub, "README.md") + b"Connection: close\r\n\r\n":
            client.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.endswith(b"\r\n\r\n" + sample.files["README.md"])
