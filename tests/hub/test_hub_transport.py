"""A body arrives whole and right, or the sink hears why not."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from email.utils import formatdate

import pytest
from support.scripted_hub import CERTIFICATE, Answer, ScriptedHub

from dagfs import __version__
from dagfs.errors import AccessDenied, NotFound, ProtocolError, RemoteUnavailable, Stalled
from dagfs.hub.auth import Token
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.lanes import LaneLoop
from dagfs.hub.curl.transport import Transport
from dagfs.hub.network import Network
from dagfs.hub.source import BodyHead
from dagfs.metrics import Metrics
from dagfs.model import Span

BODY = bytes(range(256)) * 1000
SILENCE = 1.0
"""Seconds after which the tests of silence give up."""


def test_a_whole_body_comes_with_its_length_and_validator(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=BODY, headers={"ETag": '"v1"'})))
    assert sink.error is None
    assert sink.body == BODY
    assert sink.heads == [BodyHead(0, len(BODY), False, '"v1"')]


def test_requests_say_who_asks_and_want_bytes_as_they_are(hub, fetch):
    fetch(hub.on("/f", Answer(body=b"x")))
    fetch(hub.on("/l", Answer(body=b"[]")), lane=Lane.LISTING)
    raw, listing = hub.asked
    assert raw.headers["authorization"] == "Bearer s3cret-token"
    assert raw.headers["user-agent"] == f"dagfs/{__version__}"
    assert raw.headers["accept-encoding"] == "identity"
    assert listing.headers["accept-encoding"] == "gzip"
    assert "range" not in raw.headers


@pytest.mark.parametrize("answer", [Answer(body=BODY, chunked=True), Answer(body=BODY, length=False)])
def test_a_body_without_announced_length_comes_whole(hub, fetch, answer):
    sink = fetch(hub.on("/f", answer))
    assert sink.error is None
    assert sink.body == BODY
    assert sink.heads == [BodyHead(0, None, False)]


def test_an_empty_body_has_a_head_and_no_data(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=b"")))
    assert sink.order == ["head", "done"]
    assert sink.heads == [BodyHead(0, 0, False)]
    assert sink.error is None


def test_a_span_brings_these_bytes_and_the_files_size(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=BODY, ranges=True)), Span(1000, 70_000))
    assert hub.asked[0].headers["range"] == "bytes=1000-69999"
    assert sink.heads == [BodyHead(1000, len(BODY), True)]
    assert sink.body == BODY[1000:70_000]
    assert sink.error is None


def test_a_span_over_the_end_brings_what_there_is(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=BODY, ranges=True)), Span(len(BODY) - 5, len(BODY) + 5))
    assert sink.body == BODY[-5:]
    assert sink.error is None


def test_a_hub_without_ranges_sends_all_and_says_so(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=BODY)), Span(1000, 2000))
    assert sink.heads == [BodyHead(0, len(BODY), False)]
    assert sink.body == BODY


def test_a_span_of_an_empty_file_is_an_empty_body(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=b"", ranges=True)), Span(0, 100))
    assert sink.order == ["head", "done"]
    assert sink.heads == [BodyHead(0, 0, True)]
    assert sink.error is None


def test_a_span_beyond_the_end_of_a_file_is_an_error(hub, fetch):
    assert isinstance(fetch(hub.on("/f", Answer(body=b"abc", ranges=True)), Span(3, 9)).error, ProtocolError)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-9/100",
        "bytes 6-15/100",
        "bytes 5-4/100",
        "bytes 5-200/100",
        "bytes */100",
        "bytes 5-x/100",
        "items 5-14/100",
    ],
)
def test_a_206_of_another_span_than_asked_is_an_error(hub, fetch, content_range):
    sink = fetch(hub.on("/f", Answer(206, b"0123456789", {"Content-Range": content_range})), Span(5, 15))
    assert isinstance(sink.error, ProtocolError)
    assert not sink.body


def test_a_206_without_content_range_is_an_error(hub, fetch):
    sink = fetch(hub.on("/f", Answer(206, b"0123456789", {"Content-Type": "multipart/byteranges"})), Span(5, 15))
    assert isinstance(sink.error, ProtocolError)


def test_a_206_with_unknown_total_is_taken(hub, fetch):
    sink = fetch(hub.on("/f", Answer(206, b"0123456789", {"Content-Range": "bytes 5-14/*"})), Span(5, 15))
    assert sink.heads == [BodyHead(5, None, True)]
    assert sink.error is None


@pytest.mark.parametrize("total", ["100", "*"])
@pytest.mark.parametrize("body", [b"012345678", b"0123456789a"])
def test_a_206_whose_body_is_not_what_its_head_says_is_an_error(hub, fetch, body, total):
    sink = fetch(hub.on("/f", Answer(206, body, {"Content-Range": f"bytes 5-14/{total}"})), Span(5, 15))
    assert isinstance(sink.error, (ProtocolError, RemoteUnavailable))


def test_a_206_that_stops_before_the_end_of_the_span_is_an_error_after_its_bytes(hub, fetch):
    sink = fetch(hub.on("/f", Answer(206, b"01234", {"Content-Range": "bytes 5-9/100"})), Span(5, 15))
    assert sink.body == b"01234"
    assert isinstance(sink.error, ProtocolError)


def test_gzip_that_nobody_asked_for_is_decoded_and_its_length_not_believed(hub, fetch):
    packed = Answer(body=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
    sink = fetch(hub.on("/f", packed))
    assert sink.body == BODY
    assert sink.heads == [BodyHead(0, None, False, compressed=True)]
    assert sink.error is None


def test_damaged_gzip_is_a_protocol_error(hub, fetch):
    packed = bytearray(gzip.compress(BODY))
    packed[200:210] = b"\xff" * 10
    sink = fetch(hub.on("/f", Answer(body=bytes(packed), headers={"Content-Encoding": "gzip"})))
    assert isinstance(sink.error, ProtocolError)


def test_gzip_members_that_follow_one_another_are_one_body(hub, fetch):
    packed = gzip.compress(BODY) + gzip.compress(b"tail")
    assert fetch(hub.on("/f", Answer(body=packed, headers={"Content-Encoding": "gzip"}))).body == BODY + b"tail"


def test_an_encoding_that_was_not_asked_for_is_an_error_before_any_byte(hub, fetch):
    sink = fetch(hub.on("/f", Answer(body=BODY, headers={"Content-Encoding": "br"})))
    assert isinstance(sink.error, ProtocolError)
    assert sink.order == ["done"]


def test_gzip_cut_within_a_complete_answer_is_an_error(hub, fetch):
    packed = gzip.compress(BODY)
    sink = fetch(hub.on("/f", Answer(body=packed[:-30], headers={"Content-Encoding": "gzip"})))
    assert sink.error is not None


@pytest.mark.parametrize(
    "answer", [Answer(body=BODY, cut=70_000), Answer(body=BODY, cut=70_000, chunked=True), Answer(body=BODY, cut=0)]
)
def test_a_cut_body_is_never_a_success(hub, fetch, answer):
    sink = fetch(hub.on("/f", answer))
    assert isinstance(sink.error, RemoteUnavailable)
    assert len(sink.body) <= 70_000


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFound), (410, NotFound), (401, AccessDenied), (403, AccessDenied), (408, RemoteUnavailable),
        (429, RemoteUnavailable), (500, RemoteUnavailable), (502, RemoteUnavailable), (503, RemoteUnavailable),
        (400, ProtocolError), (204, ProtocolError), (304, ProtocolError), (300, ProtocolError), (302, ProtocolError),
    ],
)  # fmt: skip
def test_each_status_has_its_error_and_no_body(hub, fetch, status, kind):
    body = b"" if status in (204, 304) else b"an explanation"
    sink = fetch(hub.on("/f", Answer(status, body)))
    assert type(sink.error) is kind
    assert sink.order == ["done"]


def test_an_endless_error_text_is_not_read(hub, fetch):
    sink = fetch(hub.on("/f", Answer(404, b"x" * (8 << 20))))
    assert isinstance(sink.error, NotFound)


def test_retry_after_is_read_as_seconds_or_date(hub, fetch):
    seconds = fetch(hub.on("/s", Answer(503, headers={"Retry-After": "7"}))).error
    date = fetch(hub.on("/d", Answer(429, headers={"Retry-After": formatdate(time.time() + 100, usegmt=True)}))).error
    nonsense = fetch(hub.on("/n", Answer(429, headers={"Retry-After": "soon"}))).error
    assert seconds.retry_after == 7
    assert 60 < date.retry_after <= 100
    assert nonsense.retry_after is None


@pytest.mark.parametrize("stall_after", [SILENCE])
def test_a_silent_hub_is_stalled_before_and_within_a_body(hub, fetch, fetch_from):
    gate = threading.Event()
    within = fetch(hub.on("/w", Answer(body=BODY, gate=gate, before_gate=100)))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        before = fetch_from(f"http://127.0.0.1:{silent.getsockname()[1]}")
    gate.set()
    assert isinstance(within.error, Stalled)
    assert within.body == BODY[:100]
    assert isinstance(before.error, Stalled)


def test_nobody_listening_is_unavailable(fetch_from):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert isinstance(fetch_from(f"http://127.0.0.1:{port}").error, RemoteUnavailable)


@pytest.mark.parametrize(
    "noise", [b"", b"\x00\x01\x02garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]
)
def test_an_answer_that_is_not_http_is_a_remote_error(fetch_from, noise):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            for _ in range(2):  # curl may try again when the first connection says nothing
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                client.recv(4096)
                client.sendall(noise)
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        sink = fetch_from(f"http://127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert isinstance(sink.error, (ProtocolError, RemoteUnavailable))
    assert not sink.heads


def test_connections_are_kept(hub, fetch):
    url = hub.on("/f", Answer(body=BODY))
    for _ in range(10):
        fetch(url)
    fetch(hub.on("/404", Answer(404, b"no")))
    fetch(url)
    assert hub.connections == 1


def test_a_kept_connection_that_the_hub_has_closed_is_replaced(hub, fetch):
    url = hub.on("/f", Answer(body=BODY, length=False))
    assert [fetch(url).error for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("tls", [False, True])
def test_many_transfers_run_at_once_from_the_first_moment(sink_type, tls):
    trusted = Network.of({"SSL_CERT_FILE": str(CERTIFICATE)})
    for _ in range(8):  # whether one waits for the connection of another depends on who is first
        hub = ScriptedHub(tls=tls)
        transport = Transport(hub.url, Token("a test", None), Metrics(), trusted)
        gate = threading.Event()
        held = hub.on("/held", Answer(body=BODY, gate=gate, before_gate=1))
        sinks = [sink_type() for _ in range(20)]
        for sink in sinks:
            transport.get(Request(held, Lane.RAW), sink)
        together = [sink.got_data.wait(20) for sink in sinks]
        gate.set()
        errors = [sink.error for sink in sinks]
        transport.close()
        hub.stop()
        assert all(together)
        assert errors == [None] * 20
        assert all(sink.body == BODY for sink in sinks)


def test_a_listing_passes_bodies_that_stand_still(hub, transport, fetch, sink_type):
    gate = threading.Event()
    sinks = [sink_type() for _ in range(20)]
    for sink in sinks:
        transport.get(Request(hub.on("/held", Answer(body=BODY, gate=gate)), Lane.RAW), sink)
    assert fetch(hub.on("/l", Answer(body=b"[]")), lane=Lane.LISTING).body == b"[]"
    assert not any(sink.ended.is_set() for sink in sinks)
    gate.set()


def test_cancel_ends_a_transfer_once_with_an_error(hub, transport, sink_type):
    gate = threading.Event()
    sink = sink_type()
    transfer = transport.get(Request(hub.on("/f", Answer(body=BODY, gate=gate, before_gate=10)), Lane.RAW), sink)
    assert sink.got_data.wait(10)
    transfer.cancel()
    transfer.cancel()
    assert isinstance(sink.error, RemoteUnavailable)
    gate.set()
    transport.close()
    assert sink.order[-1] == "done"
    assert len(sink.errors) == 1


def test_a_sink_may_cancel_from_within(hub, transport, sink_type):
    class Fussy(sink_type):
        def data(self, chunk: bytes) -> None:
            super().data(chunk)
            self.transfer.cancel()

    sink = Fussy()
    gate = threading.Event()
    sink.transfer = transport.get(Request(hub.on("/f", Answer(body=BODY, gate=gate)), Lane.RAW), sink)
    gate.set()
    assert isinstance(sink.error, RemoteUnavailable)
    assert sink.order.count("data") == 1


def test_a_sink_that_raises_ends_only_its_own_transfer(hub, transport, fetch, sink_type):
    class Broken(sink_type):
        def data(self, chunk: bytes) -> None:
            raise RuntimeError("no room")

    sink = Broken()
    transport.get(Request(hub.on("/f", Answer(body=BODY)), Lane.RAW), sink)
    assert isinstance(sink.error, ProtocolError)
    assert fetch(hub.on("/f", Answer(body=BODY))).error is None


def test_a_sink_may_start_the_next_transfer_from_its_end(hub, transport, sink_type):
    url = hub.on("/f", Answer(body=BODY))
    second = sink_type()

    class First(sink_type):
        def done(self, error) -> None:
            transport.get(Request(url, Lane.RAW), second)
            super().done(error)

    transport.get(Request(url, Lane.RAW), First())
    assert second.error is None
    assert second.body == BODY


@pytest.mark.parametrize("stall_after", [SILENCE])
def test_a_paused_body_waits_without_stalling_and_loses_nothing(hub, transport, sink_type):
    class Slow(sink_type):
        def data(self, chunk: bytes) -> None:
            super().data(chunk)
            self.transfer.pause()

    sink = Slow()
    gate = threading.Event()
    big = BODY * 40
    sink.transfer = transport.get(Request(hub.on("/f", Answer(body=big, gate=gate)), Lane.LISTING), sink)
    gate.set()
    assert sink.got_data.wait(10)
    time.sleep(1.5 * SILENCE)  # which must not count, as the sink wants it
    assert not sink.ended.is_set()
    assert sink.order.count("data") == 1
    while not sink.ended.wait(0.0005):
        sink.transfer.resume()
    assert sink.error is None
    assert sink.body == big


def test_close_ends_every_transfer_and_none_begins_after_it(hub, metrics, sink_type):
    transport = Transport(hub.url, Token("a test", None), metrics, Network.of({}))
    gate = threading.Event()
    url = hub.on("/f", Answer(body=BODY, gate=gate, before_gate=10))
    sinks = [sink_type() for _ in range(3)]
    transfers = [transport.get(Request(url, Lane.RAW), sink) for sink in sinks]
    assert sinks[0].got_data.wait(10)
    transport.close()
    transport.close()
    gate.set()
    assert [type(sink.errors[0]) for sink in sinks] == [RemoteUnavailable] * 3
    with pytest.raises(RemoteUnavailable):
        transport.get(Request(url, Lane.RAW), sink_type())
    for transfer in transfers:
        transfer.cancel()
    assert [len(sink.errors) for sink in sinks] == [1, 1, 1]


def test_a_transport_may_be_closed_by_a_sink(hub, metrics, sink_type):
    transport = Transport(hub.url, Token("a test", None), metrics, Network.of({}))

    class Last(sink_type):
        def done(self, error) -> None:
            transport.close()
            super().done(error)

    sink = Last()
    transport.get(Request(hub.on("/f", Answer(body=b"x")), Lane.RAW), sink)
    assert sink.error is None


def test_requests_and_bytes_are_counted_by_lane(hub, fetch, metrics):
    fetch(hub.on("/f", Answer(body=BODY)))
    fetch(hub.on("/l", Answer(body=b"[]")), lane=Lane.LISTING)
    counts = metrics.snapshot()
    assert (counts["hub.requests.raw"], counts["hub.raw_bytes"]) == (1, len(BODY))
    assert (counts["hub.requests.listing"], counts["hub.listing_bytes"]) == (1, 2)


def test_a_url_that_cannot_be_asked_is_a_protocol_error(fetch):
    for url in ("file:///etc/passwd", "http://u:p@127.0.0.1/", "http://127.0.0.1:99999/", "nonsense"):
        assert isinstance(fetch(url).error, ProtocolError)


def test_errors_name_the_page_without_query_or_token(hub, fetch):
    error = fetch(hub.on("/f?token=s3cret-token&x=1", Answer(503))).error
    assert f"{hub.url}/f" in str(error)
    assert "s3cret-token" not in str(error)
    assert "x=1" not in str(error)


def test_a_proxy_is_asked_for_the_hub_and_its_answer_is_not_the_hubs(hub, elsewhere, sink_type):
    elsewhere.on(f"{hub.url}/f", Answer(body=b"through the proxy"))
    transport = Transport(hub.url, Token("a test", None), Metrics(), Network.of({"http_proxy": elsewhere.url}))
    sink = sink_type()
    transport.get(Request(f"{hub.url}/f", Lane.RAW), sink)
    assert sink.error is None
    transport.close()
    assert sink.body == b"through the proxy"
    assert not hub.asked


def test_no_proxy_excepts_the_hub(hub, elsewhere, sink_type):
    environment = {"http_proxy": elsewhere.url, "no_proxy": "example.org, 127.0.0.0/8"}
    transport = Transport(hub.url, Token("a test", None), Metrics(), Network.of(environment))
    sink = sink_type()
    transport.get(Request(hub.on("/f", Answer(body=b"direct")), Lane.RAW), sink)
    assert sink.error is None
    transport.close()
    assert sink.body == b"direct"
    assert not elsewhere.asked


class Halting:
    """Rests after its first chunk, and fails at the next."""

    def __init__(self):
        self.exchange = None
        self.chunks = 0
        self.resting = threading.Event()
        self.errors = []
        self.ended = threading.Event()

    def head(self, head):
        pass

    def data(self, chunk):
        self.chunks += 1
        if self.chunks > 1:
            raise ValueError("unexpected")
        self.exchange.pause()
        self.resting.set()

    def done(self, error):
        self.errors.append(error)
        self.ended.set()


def test_a_receiver_that_fails_when_it_goes_on_after_a_rest_ends_alone(hub, transport, fetch):
    gate, sink = threading.Event(), Halting()
    answer = Answer(body=bytes(8 << 20), gate=gate, before_gate=1000)
    sink.exchange = transport.get(Request(hub.on("/l", answer), Lane.RAW), sink)
    assert sink.resting.wait(20)
    gate.set()
    time.sleep(0.3)  # curl has a chunk for it by now, and keeps it
    sink.exchange.resume()
    assert sink.ended.wait(20)
    assert isinstance(sink.errors[0], ProtocolError)
    assert fetch(hub.on("/f", Answer(body=BODY))).body == BODY


def test_the_transport_outlives_an_unexpected_failure(hub, transport, fetch, monkeypatch):
    ready, left = LaneLoop.ready, [1]

    def fail(lane, fd, events):
        if left and left.pop():
            raise RuntimeError("unexpected")
        ready(lane, fd, events)

    monkeypatch.setattr(LaneLoop, "ready", fail)
    assert isinstance(fetch(hub.on("/f", Answer(body=BODY))).error, RemoteUnavailable)
    assert fetch(f"{hub.url}/f").body == BODY


@pytest.mark.parametrize("first", [0, 1000])
def test_a_span_of_compressed_bytes_is_refused_before_its_size_is_believed(hub, fetch, first):
    packed = gzip.compress(BODY)
    headers = {"Content-Encoding": "gzip", "Content-Range": f"bytes {first}-{len(packed) - 1}/{len(packed)}"}
    sink = fetch(hub.on("/f", Answer(status=206, body=packed[first:], headers=headers)), Span(first, 1 << 20))
    assert isinstance(sink.error, ProtocolError)
    assert sink.heads == []
