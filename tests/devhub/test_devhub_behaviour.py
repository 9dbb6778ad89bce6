"""The variants of the contract, and the faults on command."""

from __future__ import annotations

import gzip
import http.client
import itertools
import socket
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from support.repos import Truth

from dagfs.devhub.behaviour import DRIP_SECONDS, Behaviour, Fault, Gzip, LastToken, Paging, Redirect, RequestInfo
from dagfs.devhub.serve import Hub

KINDS = ("README.md", "large.bin", "images/039.jpg", "empty", "empty.dat", "labels.tsv")


def fetch(hub: Hub, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask once, on a connection of its own, with no header that was not asked for."""
    connection = http.client.HTTPConnection("127.0.0.1", int(hub.host.rsplit(":", 1)[1]), timeout=20)
    connection.putrequest(method, f"/api/v1/repos/{hub.name}/raw/main/{path}", skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    try:
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("length", "ranges", "etag", "packed", "redirect"),
    list(itertools.product((True, False), (True, False), (True, False), Gzip, Redirect)),
)
def test_every_variant_gives_the_right_bytes(
    caller_of: Callable, sample: Truth, length: bool, ranges: bool, etag: bool, packed: Gzip, redirect: Redirect
) -> None:
    behaviour = Behaviour(length=length, ranges=ranges, etag=etag, gzip=packed, redirect=redirect)
    with Hub(sample.path, behaviour=behaviour) as hub:
        call = caller_of(hub)
        for path in KINDS:
            assert call.raw("main", path).content == sample.files[path]
        span = call.raw("main", "labels.tsv", Range="bytes=10-29", Accept_Encoding="identity")
        whole = sample.files["labels.tsv"]
        assert span.content == (whole[10:30] if span.status_code == 206 else whole)
        if packed is Gzip.NEVER:
            assert span.status_code == (206 if ranges else 200)
        assert ("ETag" in span.headers) is etag
        assert hub.requests.raw_paths["labels.tsv"] == 2
        assert hub.requests.leaks == []


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("0-0", 0, 1), ("5-", 5, None), ("-7", -7, None), ("3-99999999", 3, None), ("-99999999", 0, None)],
)
def test_a_single_span_is_answered_with_206(hub: Hub, sample: Truth, wanted: str, start: int, end: int | None) -> None:
    for path in ("labels.tsv", "large.bin", "images/039.jpg"):
        data = sample.files[path]
        first = start if start >= 0 else len(data) + start
        response, body = fetch(hub, path, Range=f"bytes={wanted}")
        assert (response.status, body) == (206, data[start:end])
        assert response.headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(data)}"
        assert response.headers["Content-Length"] == str(len(body))


def test_a_span_outside_is_416_and_an_odd_one_is_ignored(hub: Hub, sample: Truth) -> None:
    size = len(sample.files["labels.tsv"])
    response, _ = fetch(hub, "labels.tsv", Range=f"bytes={size}-")
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert fetch(hub, "empty", Range="bytes=0-10")[0].status == 416
    assert fetch(hub, "empty.dat", Range="bytes=-5")[0].status == 416
    for odd in ("bytes=0-1,3-4", "bytes=5-2", "items=0-1", "bytes=x-", "bytes=-", "bytes=1"):
        response, body = fetch(hub, "labels.tsv", Range=odd)
        assert (response.status, body) == (200, sample.files["labels.tsv"]), odd


def test_if_range_gives_the_span_of_the_same_content_only(hub: Hub, sample: Truth) -> None:
    etag = fetch(hub, "labels.tsv", "HEAD")[0].headers["ETag"]
    assert fetch(hub, "labels.tsv", Range="bytes=0-4", If_Range=etag)[0].status == 206
    response, body = fetch(hub, "labels.tsv", Range="bytes=0-4", If_Range='"another"')
    assert (response.status, body) == (200, sample.files["labels.tsv"])
    assert fetch(hub, "labels.tsv", If_None_Match=etag)[0].status == 304


def test_head_announces_what_get_sends(hub: Hub, sample: Truth) -> None:
    for path in KINDS:
        head, nothing = fetch(hub, path, "HEAD")
        assert (head.status, nothing) == (200, b"")
        assert head.headers["Content-Length"] == str(len(sample.files[path]))
        assert head.headers["ETag"] == fetch(hub, path)[0].headers["ETag"]


def test_a_hub_without_head_says_405(sample: Truth) -> None:
    with Hub(sample.path, behaviour=Behaviour(head=False)) as hub:
        assert fetch(hub, "README.md", "HEAD")[0].status == 405
        assert fetch(hub, "README.md")[1] == sample.files["README.md"]


def test_gzip_is_what_the_variant_says(sample: Truth) -> None:
    expected = {
        Gzip.NEVER: (None, None),
        Gzip.ACCEPTED: (None, "gzip"),
        Gzip.ALWAYS: ("gzip", "gzip"),
    }
    for packed, (plain, accepting) in expected.items():
        with Hub(sample.path, behaviour=Behaviour(gzip=packed)) as hub:
            identity, body = fetch(hub, "labels.tsv", Accept_Encoding="identity")
            assert identity.headers["Content-Encoding"] == plain
            assert (gzip.decompress(body) if plain else body) == sample.files["labels.tsv"]
            assert fetch(hub, "labels.tsv", Accept_Encoding="gzip, br")[0].headers["Content-Encoding"] == accepting


def test_a_chunked_body_announces_no_length(sample: Truth) -> None:
    with Hub(sample.path, behaviour=Behaviour(length=False)) as hub:
        response, body = fetch(hub, "labels.tsv")
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.headers["Content-Length"] is None
        assert body == sample.files["labels.tsv"]


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(length=False)])
def test_http_1_0_gets_no_chunks_and_its_end_of_file(sample: Truth, behaviour: Behaviour) -> None:
    with Hub(sample.path, behaviour=behaviour) as hub:
        with socket.create_connection(("127.0.0.1", int(hub.host.rsplit(":", 1)[1])), timeout=20) as client:
            client.sendall(f"GET /api/v1/repos/{hub.name}/raw/main/labels.tsv HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.partition(b"\r\n\r\n")[2] == sample.files["labels.tsv"]


def test_sizes_are_absent_or_0_where_not_asked_for(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path, behaviour=Behaviour(size_when_unsized=False, blob_hash=False)) as hub:
        call = caller_of(hub)
        assert not any("size" in entry for entry in call.listing("main"))
        sized = call.listing("main", sized=True)
        assert {e["path"]: e["size"] for e in sized if e["type"] == "file"}["large.bin"] == (3 << 20) + 17
        assert {e["hash"] for e in sized if e["versioning"] == "git"} == {sample.head}


@pytest.mark.parametrize("redirect", [Redirect.SAME, Redirect.OTHER])
def test_a_redirect_leads_to_a_signed_address_that_expires(sample: Truth, redirect: Redirect) -> None:
    behaviour = Behaviour(redirect=redirect, signature_seconds=0.5)
    with Hub(sample.path, behaviour=behaviour, token="t") as hub, requests.Session() as session:
        url = f"{hub.host}/api/v1/repos/{hub.name}/raw/main/images/039.jpg"
        first = session.get(url, headers={"Authorization": "Bearer t"}, allow_redirects=False, timeout=20)
        target = first.headers["Location"]
        assert first.status_code == 302
        assert target.startswith(hub.host + "/") is (redirect is Redirect.SAME)
        assert session.get(target, timeout=20).content == sample.files["images/039.jpg"]
        assert session.get(target.replace("039", "038"), timeout=20).status_code == 403
        assert session.get(target.replace("expires=", "expires=9"), timeout=20).status_code == 403
        time.sleep(0.6)
        assert session.get(target, timeout=20).status_code == 403
        assert session.get(url, timeout=20).status_code == 404


def test_the_other_origin_refuses_and_records_an_authorization(sample: Truth) -> None:
    with Hub(sample.path, behaviour=Behaviour(redirect=Redirect.OTHER)) as hub:
        url = f"{hub.host}/api/v1/repos/{hub.name}/raw/main/README.md"
        target = requests.get(url, allow_redirects=False, timeout=20).headers["Location"]
        leaked = requests.get(target, headers={"Authorization": "Bearer t"}, timeout=20)
        assert leaked.status_code == 400
        assert len(hub.requests.leaks) == 1
        other = target.partition("/-/")[0]
        assert requests.get(f"{other}/api/v1/repos/{hub.name}/raw/main/README.md", timeout=20).status_code == 403


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bucket/sub").mkdir(parents=True)
    for i in range(25):
        (tmp_path / f"bucket/sub/{i:02d} #?%.bin").write_bytes(b"x" * i)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "bucket/out").symlink_to(tmp_path / "secret")
    return tmp_path / "bucket"


@pytest.mark.parametrize("last", LastToken)
@pytest.mark.parametrize("itself", [False, True])
def test_a_bucket_is_listed_by_pages(
    caller_of: Callable, sample: Truth, folder: Path, last: LastToken, itself: bool
) -> None:
    behaviour = Behaviour(last_token=last, folder_lists_itself=itself)
    with Hub(sample.path, storages={"gs:data": folder}, behaviour=behaviour) as hub:
        call = caller_of(hub)
        pages, token = [], ""
        for _ in range(4):
            query = {"paging": "true", "limit": "10", "from_token": token}
            pages.append(call.get("storage/content/gs/data/sub", params=query).json())
            token = pages[-1].get("next_token")
            if not token:
                break
        assert [page.get("next_token", "missing") for page in pages][-1] == {
            LastToken.MISSING: "missing",
            LastToken.NULL: None,
            LastToken.EMPTY: "",
        }[last]
        entries = [entry for page in pages for entry in page["entries"]]
        own = [entry for entry in entries if entry["path"] == "gs/data/sub"]
        files = {e["path"]: e["size"] for e in entries if e["type"] == "file"}
        assert len(own) == itself
        assert files == {f"gs/data/sub/{i:02d} #?%.bin": i for i in range(25)}
        assert call.session.get(entries[-1]["download_url"], timeout=20).content == b"x" * 24


def test_a_bucket_shows_nothing_outside_of_its_folder(caller_of: Callable, sample: Truth, folder: Path) -> None:
    with Hub(sample.path, storages={"s3:data": folder}) as hub:
        call = caller_of(hub)
        top = call.get("storage/content/s3/data").json()["entries"]
        assert [(e["path"], e["type"], e["size"], e["download_url"]) for e in top] == [("s3/data/sub", "dir", 0, "")]
        for path in ("out", "..%2fsecret", "sub/..%2f..%2fsecret", "%2e%2e%2fsecret", "sub", "nothing"):
            assert call.get(f"storage/raw/s3/data/{path}").status_code == 404, path
        assert call.get("storage/content/s3/other").status_code == 404
        roots = [e for e in call.listing("main") if e["type"] == "storage"]
        assert [(e["path"], e["versioning"]) for e in roots] == [("s3/data", "bucket")]


def fail_once(fault: Fault) -> Callable[[RequestInfo], Fault | None]:
    return lambda request: fault if request.kind == "raw" and request.number == 0 else None


def test_a_status_fault_replaces_the_answer_once(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(status=503, retry_after="2"))) as hub:
        response, _ = fetch(hub, "README.md")
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
        assert fetch(hub, "README.md")[1] == sample.files["README.md"]
        assert [r.status for r in hub.requests.records] == [503, 200]


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(length=False)])
@pytest.mark.parametrize("after", [0, 100_000])
def test_a_cut_ends_the_connection_after_that_many_bytes(sample: Truth, behaviour: Behaviour, after: int) -> None:
    with Hub(sample.path, behaviour=behaviour, fault=fail_once(Fault(cut_after=after))) as hub:
        with pytest.raises(http.client.IncompleteRead) as cut:
            fetch(hub, "large.bin")
        assert cut.value.partial == sample.files["large.bin"][:after]
        assert hub.requests.bytes("raw") == after
        assert fetch(hub, "large.bin")[1] == sample.files["large.bin"]


def test_a_reset_is_a_reset(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(reset_after=0))) as hub, pytest.raises(ConnectionResetError):
        fetch(hub, "large.bin")


def test_a_stall_sends_nothing_until_its_time_is_over(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(stall_after=10, stall_seconds=0.4))) as hub:
        started = time.monotonic()
        assert fetch(hub, "labels.tsv")[1] == sample.files["labels.tsv"]
        assert time.monotonic() - started >= 0.4


def test_a_stall_without_end_ends_with_the_hub(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(stall_after=10))) as hub:
        client = socket.create_connection(("127.0.0.1", int(hub.host.rsplit(":", 1)[1])), timeout=20)
        client.sendall(f"GET /api/v1/repos/{hub.name}/raw/main/labels.tsv HTTP/1.1\r\n\r\n".encode())
        got = b""
        while not got.endswith(sample.files["labels.tsv"][:10]):
            got += client.recv(1)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
    client.close()


def test_a_flipped_byte_is_the_one_asked_for(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(flip=70_000))) as hub:
        wrong, right = fetch(hub, "large.bin")[1], sample.files["large.bin"]
        assert [i for i in range(len(right)) if wrong[i] != right[i]] == [70_000]


def test_a_wrong_length_is_announced(sample: Truth) -> None:
    size = len(sample.files["labels.tsv"])
    with Hub(sample.path, fault=fail_once(Fault(length_error=5))) as hub:
        with pytest.raises(http.client.IncompleteRead) as short:
            fetch(hub, "labels.tsv")
        assert (len(short.value.partial), short.value.expected) == (size, 5)
    with Hub(sample.path, fault=fail_once(Fault(length_error=-5))) as hub:
        assert len(fetch(hub, "labels.tsv")[1]) == size - 5


def test_a_wrong_start_is_named(sample: Truth) -> None:
    size = len(sample.files["labels.tsv"])
    with Hub(sample.path, fault=fail_once(Fault(start_error=3))) as hub:
        response, body = fetch(hub, "labels.tsv", Range="bytes=10-19")
        assert response.headers["Content-Range"] == f"bytes 13-22/{size}"
        assert body == sample.files["labels.tsv"][10:20]


def test_a_delay_comes_before_the_first_byte(sample: Truth) -> None:
    with Hub(sample.path, fault=fail_once(Fault(delay=0.3))) as hub:
        started = time.monotonic()
        fetch(hub, "labels.tsv")
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("together", [True, False])
def test_bandwidth_is_shared_by_all_or_given_to_each_connection(sample: Truth, together: bool) -> None:
    rate = 1_000_000.0
    options = {"bandwidth": rate} if together else {"behaviour": Behaviour(connection_bandwidth=rate)}
    data = sample.files["model.bin"]
    with Hub(sample.path, **options) as hub, ThreadPoolExecutor(2) as pool:
        started = time.monotonic()
        bodies = list(pool.map(lambda path: fetch(hub, path)[1], ["model.bin", "model.bin"]))
        elapsed = time.monotonic() - started
    assert bodies == [data, data]
    assert elapsed >= len(data) * (2 if together else 1) / rate * 0.95


def test_the_fault_can_be_exchanged_while_the_hub_runs(sample: Truth) -> None:
    with Hub(sample.path) as hub:
        assert fetch(hub, "README.md")[0].status == 200
        hub.fault = lambda _request: Fault(status=429)
        assert fetch(hub, "README.md")[0].status == 429


def test_a_fault_knows_what_it_answers(sample: Truth) -> None:
    seen: list[RequestInfo] = []

    def note(request: RequestInfo) -> None:
        seen.append(request)

    with Hub(sample.path, fault=note) as hub:
        fetch(hub, "images/001.jpg", Range="bytes=0-3")
        fetch(hub, "images/001.jpg")
        fetch(hub, "nothing/there")
    assert seen == [
        RequestInfo("GET", "raw", "images/001.jpg", "bytes=0-3", 0),
        RequestInfo("GET", "raw", "images/001.jpg", None, 1),
        RequestInfo("GET", "raw", "nothing/there", None, 0),
    ]


def test_bytes_may_drip_be_packed_left_out_or_come_from_elsewhere(sample: Truth) -> None:
    data = sample.files["labels.tsv"]
    with Hub(sample.path) as hub:
        hub.fault = fail_once(Fault(drip=4))
        started = time.monotonic()
        assert fetch(hub, "labels.tsv")[1] == data
        assert time.monotonic() - started >= 4 * DRIP_SECONDS
        hub.fault = lambda _request: Fault(gzip=True)
        response, body = fetch(hub, "labels.tsv")
        assert (response.headers["Content-Encoding"], zlib.decompress(body, 31)) == ("gzip", data)
        hub.fault = lambda _request: Fault(truncate=7)
        assert fetch(hub, "labels.tsv")[1] == data[:-7]
        hub.fault = lambda _request: Fault(misplaced=True)
        response, body = fetch(hub, "labels.tsv", Range="bytes=10-19")
        assert response.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
        assert body == data[:10]


def test_a_storage_may_have_a_prefix_in_its_name(caller_of: Callable, sample: Truth, folder: Path) -> None:
    with Hub(sample.path, storages={"s3:lake": folder, "s3:lake/deep/er": folder / "sub"}) as hub:
        call = caller_of(hub)
        assert [(row["protocol"], row["name"]) for row in call.get("storage").json()] == [
            ("s3", "lake"),
            ("s3", "lake/deep/er"),
        ]
        entries = call.get("storage/content/s3/lake/deep/er").json()["entries"]
        assert entries[1]["path"] == "s3/lake/deep/er/01 #?%.bin"
        assert call.session.get(entries[1]["download_url"], timeout=20).content == b"x"
        assert call.get("storage/content/s3/lake/deep").status_code == 404


@pytest.mark.parametrize("paging", [Paging.REPEATED, Paging.ENDLESS, Paging.BARREN])
def test_pages_go_round_in_circles_on_command(caller_of: Callable, sample: Truth, folder: Path, paging: Paging) -> None:
    with Hub(sample.path, storages={"gs:data": folder}, behaviour=Behaviour(paging=paging)) as hub:
        call, token, tokens, sizes = caller_of(hub), "", [], set()
        for _ in range(4):
            answer = call.get("storage/content/gs/data/sub", params={"limit": "10", "from_token": token}).json()
            token = answer["next_token"]
            tokens.append(token)
            sizes.add(len(answer["entries"]))
        assert sizes == {0 if paging is Paging.BARREN else 10}
        assert len(set(tokens)) == (1 if paging is Paging.REPEATED else 4)


def test_a_hub_may_keep_its_storages_out_of_the_root_and_have_no_bucket_of_its_own(
    caller_of: Callable, sample: Truth, folder: Path
) -> None:
    behaviour = Behaviour(root_lists_storages=False, own_bucket=False)
    with Hub(sample.path, storages={"gs:data": folder}, behaviour=behaviour) as hub:
        call = caller_of(hub)
        assert [entry for entry in call.listing("main") if entry["type"] == "storage"] == []
        owner, name = hub.name.split("/")
        answer = call.session.get(f"{hub.host}/api/v1/repo-buckets/s3/{owner}/{name}?list-type=2", timeout=20)
        assert answer.status_code == 404
