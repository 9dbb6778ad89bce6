"""The listing parser gives the same rows however its bytes are cut, and keeps only a batch of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagfs.errors import ProtocolError
from dagfs.hub import listing
from dagfs.hub.listing import ListingParser, Page, Row

NASTY = st.text(st.sampled_from('{}[],:"\\ \n}ab\u00e9😀'), max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries({"path": NASTY, "note": st.one_of(NASTY, st.dictionaries(NASTY, NASTY, max_size=2))})
)


def fed_until_refused(chunk: bytes) -> int:
    """Feed the same bytes for ever and give how many were taken before the error."""
    parser = ListingParser()
    for fed in range(0, 100 << 20, len(chunk)):
        try:
            parser.feed(chunk)
        except ProtocolError:
            return fed
    raise AssertionError("100 MiB of nonsense were taken")


def parse(body: bytes, step: int) -> list[str]:
    parser = ListingParser()
    rows = [row for i in range(0, len(body), step) for row in parser.feed(body[i : i + step])]
    rest = parser.close()
    assert isinstance(rest, list)
    return [row.path for row in rows + rest]


@given(ROWS, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 60))
def test_rows_do_not_depend_on_where_the_bytes_are_cut(rows, step, indent, plain, batch):
    before = listing.FIRST_BATCH_BYTES, listing.BATCH_BYTES
    listing.FIRST_BATCH_BYTES = listing.BATCH_BYTES = batch
    try:
        body = json.dumps(rows, indent=indent, ensure_ascii=plain).encode()
        assert parse(body, step) == [row["path"] for row in rows]
    finally:
        listing.FIRST_BATCH_BYTES, listing.BATCH_BYTES = before


@given(st.binary(max_size=200), st.integers(1, 50))
def test_no_bytes_do_anything_but_parse_or_raise_protocol_error(body, step):
    try:
        for prefix in (b"", b"[", b'[{"path":"a"},'):
            parser = ListingParser()
            for i in range(0, len(body), step):
                parser.feed(prefix + body[i : i + step])
            parser.close()
    except ProtocolError:
        pass


@given(ROWS.filter(bool), st.data())
def test_a_listing_without_its_end_is_always_an_error(rows, data):
    body = json.dumps(rows).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    parser = ListingParser()
    parser.feed(body[:cut])
    with pytest.raises(ProtocolError):
        parser.close()


def test_a_long_listing_is_given_out_while_it_comes_and_little_is_kept():
    parser = ListingParser()
    given = kept = 0
    parser.feed(b"[")
    for i in range(60_000):
        entry = json.dumps({"path": f"images/{i:07}.jpg", "type": "file", "size": 0, "download_url": "u" * 150})
        given += len(parser.feed((("," if i else "") + entry).encode()))
        kept = max(kept, len(parser._buffer))
    parser.feed(b"]")
    assert kept < 2 * listing.BATCH_BYTES
    assert given > 58_000
    assert given + len(parser.close()) == 60_000


def test_an_entry_without_end_is_given_up():
    assert fed_until_refused(b'[{"path":"' + b"x" * 1000) < 2 * listing.MAX_ENTRY_BYTES


def test_an_object_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(listing, "MAX_OBJECT_BYTES", 100_000)
    assert fed_until_refused(b'{"path":"' + b"x" * 1000) < 110_000


def test_a_name_of_nothing_but_braces_waits_and_comes():
    name = "},{" * 50_000
    body = json.dumps([{"path": name}, {"path": "b"}]).encode()
    assert parse(body, 16_384) == [name, "b"]


def test_endless_space_before_a_listing_is_given_up():
    assert fed_until_refused(b" " * 1000) < 100_000


def test_an_object_is_a_page_or_a_row():
    def told(body: bytes) -> object:
        parser = ListingParser()
        parser.feed(body)
        return parser.close()

    assert told(b'{"path":"a","size":3}') == Row("a", size=3)
    assert told(b'{"next_token":"x","limit":100,"entries":[{"path":"a"}]}') == Page([Row("a")], "x")
    assert told(b'{"path":"\\udc80"}') == Row("\udc80")


def test_a_size_may_be_written_as_a_float_and_an_impossible_one_is_none():
    rows = [Row("a", size=3.0), Row("b", size=1 << 70), Row("c", size=0.0), Row("d", size=0.5)]
    found = listing.entries(rows, "", sized=True)
    assert [entry.size for entry in found] == [3, None, 0, None]


def test_a_hash_that_is_a_novel_is_none():
    rows = [Row("a", hash="x" * listing.MAX_HASH), Row("b", hash="x" * (listing.MAX_HASH + 1))]
    assert [entry.hash for entry in listing.entries(rows, "", sized=False)] == ["x" * listing.MAX_HASH, ""]
