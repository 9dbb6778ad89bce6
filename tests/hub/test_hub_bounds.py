"""What a hub may send without end, end it does: by a count, an error that says so, and little memory."""

from __future__ import annotations

import json
import threading
from itertools import count

import pytest
from support.hostile_hub import Endless, packed
from support.scripted_hub import Answer

from dagfs.errors import ProtocolError, RemoteError, TooLarge
from dagfs.hub import api, retry
from dagfs.hub import pages as pages_room
from dagfs.hub.curl import body, exchange, inflate
from dagfs.hub.curl.exchange import Exchange, Lane, Request
from dagfs.model import Commit
from dagfs.tree import builder

MiB = 1 << 20
SHA = "0123456789abcdef0123456789abcdef01234567"
COMMIT = Commit(SHA, 0.0)
LISTING = f"/api/v1/repos/owner/name/content/{SHA}/"
GZIP = {"Content-Encoding": "gzip"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


def listed(source):
    return builder.build("", source.list_directory(COMMIT, "", sized=False))


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    ],
    ids=["headers", "one header", "100", "103"],
)
def test_headers_without_end_are_given_up(hub, fetch, head, more):
    endless = Endless(lambda _: more * 20, head)
    sink = fetch(hub.on("/f", endless.answer))
    assert isinstance(sink.error, RemoteError)
    assert not sink.body
    assert endless.sent < 16 * MiB  # what the sockets' buffers hold included


def test_the_headers_of_one_answer_are_bounded_whatever_curl_lets_through():
    one = Exchange(Request("http://hub.test/f", Lane.RAW), None, None)
    line = b"X: " + b"x" * 997
    taken = next(i for i in range(1000) if one.on_header(line) == exchange.ABORT)
    assert taken * 1000 <= exchange.HEAD_BYTES
    assert isinstance(one.failed, ProtocolError)


def test_a_bomb_in_a_body_goes_on_in_small_pieces_and_waits_for_a_slow_reader(hub, transport, sink_type):
    bomb = b"".join(packed(b"\0" * MiB, 512))
    hub.on("/f", Answer(body=bomb, headers=GZIP))
    sizes: list[int] = []
    begun = threading.Event()

    class Slow(sink_type):
        def data(self, chunk: bytes) -> None:
            sizes.append(len(chunk))
            transfer.pause()
            begun.set()

    sink = Slow()
    transfer = transport.get(Request(f"{hub.url}/f", Lane.RAW), sink)
    assert begun.wait(20)
    transfer.cancel()
    assert sink.error is not None
    assert max(sizes) <= inflate.PIECE_BYTES
    assert sum(sizes) <= 20 * MiB < 512 * MiB  # what one chunk of the network unfolds to


def test_a_bomb_in_a_listing_is_refused(hub, source, metrics):
    bomb = b"".join(packed(b'{"path":"a"},' * 50_000, 400))
    hub.on(LISTING, Answer(body=bomb, headers=GZIP))
    with pytest.raises(ProtocolError, match="unfolds"):
        listed(source)
    assert metrics.snapshot()["hub.listing_bytes"] < retry.PROTOCOL_TRIES * (20 * MiB + body.RATIO_GRACE)


def test_a_listing_of_similar_names_is_no_bomb(hub, source):
    rows = [
        {"path": f"image_{i:09d}.png", "type": "file", "hash": "", "download_url": "u" * 300} for i in range(50_000)
    ]
    body = b"".join(packed(json.dumps(rows).encode(), 1))
    hub.on(LISTING, Answer(body=body, headers=GZIP))
    assert len(listed(source)) == 50_000


def pages(hub, monkeypatch, entries):
    """Script pages without end, each with its own token."""
    numbers = count(1)

    def next_page():
        body = json.dumps({"entries": entries, "next_token": f"t{next(numbers)}"}).encode()
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]

    asked: list[str] = []
    answer = Answer(wire=next_page)
    monkeypatch.setattr(hub, "_answers", _Always(answer, asked))
    return asked


class _Always(dict):
    """One answer, whatever is asked for."""

    def __init__(self, answer: Answer, asked: list[str]) -> None:
        self._answer = answer
        self._asked = asked

    def get(self, path: str, *_default):
        self._asked.append(path)
        return [self._answer]


@pytest.mark.parametrize("entries", [[], [{"path": "bucket", "type": "storage"}]], ids=["empty", "nothing to list"])
def test_pages_without_entries_come_to_an_end(hub, source, monkeypatch, entries):
    monkeypatch.setattr(api, "MAX_BARREN", 20)
    asked = pages(hub, monkeypatch, entries)
    with pytest.raises(ProtocolError, match="without an entry"):
        listed(source)
    assert len(asked) == retry.PROTOCOL_TRIES * 21


def test_pages_with_an_entry_each_come_to_an_end(hub, source, monkeypatch):
    monkeypatch.setattr(pages_room, "MAX_PAGES", 30)
    asked = pages(hub, monkeypatch, [{"path": "a"}])
    with pytest.raises(ProtocolError, match="pages"):
        listed(source)
    assert len(asked) <= retry.PROTOCOL_TRIES * 30


def test_a_page_that_is_called_by_a_novel_is_not_asked_for(hub, source):
    hub.on(LISTING, Answer(body=json.dumps({"entries": [{"path": "a"}], "next_token": "t" * 20_000}).encode()))
    with pytest.raises(ProtocolError, match="nowhere"):
        listed(source)


def test_a_listing_of_what_is_not_listed_comes_to_an_end(hub, source, monkeypatch):
    monkeypatch.setattr(api, "MAX_BARREN", 3)
    row = b'{"path":"b","type":"storage"},'
    endless = Endless(lambda _: row * 1000, b"HTTP/1.1 200 OK\r\n\r\n[")
    hub.on(LISTING, endless.answer)
    with pytest.raises(ProtocolError, match="without an entry"):
        listed(source)
    assert endless.sent < 40 * MiB


@pytest.mark.parametrize("name", ["f%07d", "../%07d"], ids=["names", "hidden names"])
def test_a_listing_without_end_is_too_large_and_is_asked_for_once(hub, source, monkeypatch, name):
    monkeypatch.setattr(builder, "ROWS_MAX", 20_000)
    endless = Endless(lambda n: b'{"path":"%s","hash":""},' % (name % n).encode(), b"HTTP/1.1 200 OK\r\n\r\n[")
    hub.on(LISTING, endless.answer)
    with pytest.raises(TooLarge, match="more entries"):
        listed(source)
    assert endless.sent < 16 * MiB
    assert hub.count(LISTING) == 1


def test_a_listing_of_long_names_is_bounded_by_its_bytes(hub, source, monkeypatch):
    monkeypatch.setattr(builder, "BYTES_MAX", 1 * MiB)
    endless = Endless(lambda n: b'{"path":"%0250d"},' % n, b"HTTP/1.1 200 OK\r\n\r\n[")
    hub.on(LISTING, endless.answer)
    with pytest.raises(TooLarge):
        listed(source)
    assert endless.sent < 16 * MiB
