"""What a hub says is a value, or one of the errors that have a name; whatever bytes it is said in."""

from __future__ import annotations

import json
import logging
import string
import threading
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.scripted_hub import Answer, ScriptedHub

from dagfs.errors import AccessDenied, DagfsError, ProtocolError, TooLarge, UsageError
from dagfs.hub import listing, redirects, reply, rest, retry
from dagfs.hub.auth import Token
from dagfs.hub.buckets import s3, storages
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.transport import Transport
from dagfs.hub.listing import ListingParser, Page, Row
from dagfs.hub.network import Network
from dagfs.hub.rest import Rest
from dagfs.hub.revisions import Revisions
from dagfs.hub.urls import origin
from dagfs.kernel.protocol import Owner, encode_entry
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, RepoRef, Span, Versioning
from dagfs.tree.builder import NAME_MAX, build
from dagfs.tree.columns import Columns
from dagfs.tree.listing import Listing
from dagfs.vfs.view import attributes_of

NAMES = st.one_of(
    st.sampled_from(["", ".", "..", "d", "d/", "d/.", "d/..", "/d/a", "d//a", "d/a/b", "d/a\0", "d/" + "n" * 300]),
    st.text(max_size=12),
    st.text(max_size=12).map(lambda name: "d/" + name),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2).map(lambda name: "d/" + name),
)
NUMBERS = st.one_of(st.none(), st.integers(-(1 << 80), 1 << 80), st.floats(), st.just(10**4000))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, NAMES)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))
HASHES = st.one_of(st.text(max_size=8), st.sampled_from(["a" * 32, "A" * 32, "b" * 40, "c" * 32 + ".dir", "\ud800"]))
ROWS = st.fixed_dictionaries(
    {"path": NAMES},
    optional={
        "type": st.one_of(st.sampled_from(["file", "dir", "symlink", "storage", "commit"]), st.text(max_size=5)),
        "size": NUMBERS,
        "hash": HASHES,
        "versioning": st.one_of(st.none(), st.sampled_from(["git", "dvc", "bucket"]), st.text(max_size=4)),
        "extra": JSON,
    },
)
PAGES = st.fixed_dictionaries({"entries": st.lists(ROWS, max_size=4)}, optional={"next_token": SCALARS})


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def hold_to_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


def spelled(value: object, *, plain: bool) -> bytes:
    return json.dumps(value, ensure_ascii=plain).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw, whole):
    """Bytes of a value, then cut, flipped, doubled or mixed with others."""
    body = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        end = draw(st.integers(at, min(len(body), at + 20)))
        body[at:end] = draw(st.one_of(st.binary(max_size=6), st.just(bytes(body[at:end]) * 2), st.just(b"")))
    return bytes(body)


LISTINGS = st.builds(
    lambda value, plain: spelled(value, plain=plain),
    st.one_of(st.lists(ROWS, max_size=6), PAGES, ROWS, JSON),
    st.booleans(),
)


def read_listing(body: bytes, step: int) -> list[Entry]:
    parser = ListingParser()
    rows: list[Row] = []
    for i in range(0, len(body), step):
        rows += parser.feed(body[i : i + step])
    rest_of_it = parser.close()
    if isinstance(rest_of_it, Row):
        listing.entry(rest_of_it, "d", sized=True)
        return []
    rows += (rest_of_it.entries or []) if isinstance(rest_of_it, Page) else rest_of_it
    return listing.entries(rows, "d", sized=True)


@fuzz
@given(st.one_of(LISTINGS, damaged(LISTINGS), st.binary(max_size=60)), st.integers(1, 200))
def test_a_listing_is_rows_that_a_disk_could_hold_or_a_protocol_error(body, step):
    try:
        columns = build("d", [read_listing(body, step)])
    except (ProtocolError, TooLarge):
        return
    names = [columns.name(i) for i in range(len(columns))]
    assert names == sorted(set(names))
    assert all(name not in (b"", b".", b"..") and len(name) <= NAME_MAX for name in names)
    assert not any(b"/" in name or b"\0" in name for name in names)
    kept = Columns.from_bytes(columns.to_bytes())
    assert kept is not None
    assert [kept.hash(i) for i in range(len(kept))] == [columns.hash(i) for i in range(len(columns))]
    json.dumps(columns.hidden_names)
    rows = Listing(Entry("d", columns.kind(0), columns.versioning(0)) if names else Entry("d", 4, 0), 1, columns)
    for position in range(len(names)):
        looks = attributes_of(rows, position, 0.0)
        assert looks is None or encode_entry(looks, Owner(0, 0))


HEADER_NAMES = st.one_of(
    st.sampled_from([b"Content-Length", b"content-range", b"ETag", b"Retry-After", b"Content-Encoding", b"Location"]),
    st.binary(max_size=8),
)
HEADER_VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"bytes 0-9/10", b"bytes */0", b"bytes 5-1/3", b"bytes 0-0/*", b"gzip", b"br", b"Wed, 99 Foo 2024"]
    ),
    st.integers(-(1 << 70), 1 << 70).map(lambda n: str(n).encode()),
    st.text(string.digits + "\u0663\u00b2 -/*", max_size=30).map(str.encode),
)
LINES = st.lists(st.builds(lambda n, v: n + b": " + v + b"\r\n", HEADER_NAMES, HEADER_VALUES), max_size=6)
STATUS = st.one_of(
    st.integers(0, 999).map(lambda n: b"HTTP/1.1 %d OK\r\n" % n), st.binary(max_size=20), st.just(b"HTTP/1.1 206\r\n")
)


@fuzz
@given(
    STATUS, LINES, st.one_of(st.none(), st.builds(lambda a, n: Span(a, a + n), st.integers(0, 20), st.integers(1, 20)))
)
def test_headers_are_a_head_or_a_named_error(status, lines, span):
    try:
        told = reply.parse([status, *lines])
        assert told.length is None or 0 <= told.length < 10**18
        assert told.retry_after is None or 0 <= told.retry_after <= reply.MAX_RETRY_AFTER
        head, size = reply.begin(told, span)
    except DagfsError as error:
        hold_to_one_line(error)
        return
    assert size is None or size >= 0
    assert head.start == (span.start if head.ranged and span and told.status == 206 else 0)
    assert head.total is None or head.total >= head.start


@fuzz
@given(st.one_of(st.text(max_size=40), st.from_regex(r"https?://[^/]{0,20}(:\d{0,6})?/.{0,10}", fullmatch=True)))
def test_a_redirect_is_an_origin_or_refused(target):
    hub = origin("https://hub.test")
    try:
        there = redirects.next_hop("https://hub.test/a", target, hub)
    except (ProtocolError, AccessDenied):
        return
    assert there.scheme == "https"
    assert "@" not in there.host
    redirects.literal(there.host)


class Sink:
    def __init__(self) -> None:
        self.order: list[object] = []
        self.ended = threading.Event()

    def head(self, head) -> None:
        self.order.append("head")

    def data(self, chunk) -> None:
        self.order.append(len(chunk))

    def done(self, error) -> None:
        self.order.append(error)
        self.ended.set()


@pytest.fixture(scope="module")
def scripted():
    hub = ScriptedHub()
    transport = Transport(hub.url, Token("a test", "s3cret-token"), Metrics(), Network.of({}), 20.0)
    yield hub, transport
    transport.close()
    hub.stop()


ANSWERS = st.builds(
    lambda status, lines, body: status + b"".join(lines) + b"\r\n" + body, STATUS, LINES, st.binary(max_size=50)
)


@fuzz
@given(st.one_of(ANSWERS, damaged(ANSWERS)), st.sampled_from([None, Span(0, 10), Span(3, 5)]), st.sampled_from(Lane))
def test_any_answer_ends_a_transfer_once_and_nothing_follows_the_end(scripted, wire, span, lane):
    hub, transport = scripted
    sink = Sink()
    url = hub.on("/f", Answer(wire=lambda: [wire]))
    transport.get(Request(url, lane, span), sink)
    assert sink.ended.wait(30)
    *before, last = sink.order
    assert last is None or isinstance(last, DagfsError)
    assert not any(isinstance(step, DagfsError) for step in before)
    assert "head" not in before[1:]
    assert "s3cret" not in str(last)


@fuzz
@given(
    st.one_of(
        JSON, st.fixed_dictionaries({}, optional={"commit": JSON, "id": JSON, "default_branch": JSON, "empty": JSON})
    )
)
def test_a_branch_or_commit_is_one_or_a_usage_error(scripted, document):
    hub, _ = scripted
    body = Answer(body=spelled(document, plain=True))
    api = "/api/v1/repos/o/n"
    for path in (api, f"{api}/branches/b", f"{api}/commits/b", "/api/v1/user"):
        hub.on(path, body)
    asked = Rest(hub.url, Token("a test", None), Metrics(), Network.of({}))
    before, rest.TRIES, retry.PROTOCOL_TRIES = (rest.TRIES, retry.PROTOCOL_TRIES), 1, 1
    try:
        revisions = Revisions(RepoRef(hub.url, "o", "n"), asked)
        for ask in (lambda: revisions.resolve("b"), revisions.whoami):
            try:
                assert isinstance(ask(), Commit | str)
            except (UsageError, ProtocolError) as error:
                hold_to_one_line(error)
    finally:
        rest.TRIES, retry.PROTOCOL_TRIES = before
        asked.close()


KEYS = st.one_of(NAMES, st.text(string.printable, max_size=8)).map(lambda key: escape(key).encode("utf-8", "replace"))
TEXTS = st.one_of(KEYS, st.integers(-9, 1 << 70).map(lambda number: b"%d" % number))
ELEMENTS = st.sampled_from([b"Contents", b"CommonPrefixes", b"NextContinuationToken", b"Name", b"x:Key"])
FIELDS = st.sampled_from([b"Key", b"Size", b"ETag", b"Prefix", b"LastModified"])


def tag(name: bytes, inside: bytes) -> bytes:
    return b"<%s>%s</%s>" % (name, inside, name)


BUCKETS = st.lists(
    st.builds(tag, ELEMENTS, st.lists(st.builds(tag, FIELDS, TEXTS), max_size=3).map(b"".join)), max_size=5
).map(lambda rows: tag(b"ListBucketResult", b"".join(rows)))


@fuzz
@given(st.one_of(BUCKETS, damaged(BUCKETS), st.binary(max_size=60)))
def test_a_page_of_s3_is_objects_or_a_protocol_error(body):
    try:
        page = s3.parse(body)
    except ProtocolError as error:
        hold_to_one_line(error)
        return
    for row in page.objects:
        assert row.size is None or 0 <= row.size < 1 << 63
        row.key.encode("utf-8", "surrogateescape")
    build("d", [[Entry(f"d/{row.key}", Kind.FILE, Versioning.BUCKET, row.etag, row.size) for row in page.objects]])


@fuzz
@given(JSON, JSON)
def test_a_storage_is_parts_of_a_path_or_none(protocol, name):
    for row in (name, {"protocol": protocol, "name": name}, {"protocol": "s3", "name": name}):
        found = storages._storage(row)
        assert found is None or (len(found) > 1 and not {"", ".", ".."}.intersection(found))
