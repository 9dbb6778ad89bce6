from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.builder import build, trusted_size
from dagfs.tree.columns import Columns, sizes_from_bytes, sizes_to_bytes

MD5 = "0123456789abcdef" * 2


def file(path, hash_=MD5, size=None, versioning=Versioning.DVC, kind=Kind.FILE):
    return Entry(path, kind, versioning, hash_, size)


def names(columns):
    return [columns.name(i) for i in range(len(columns))]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40)


@given(st.lists(texts, unique=True, max_size=300))
def test_every_name_is_found_where_its_bytes_sort_and_no_other_is(listed):
    shown = sorted(n.encode() for n in listed if n not in (".", "..") and len(n.encode()) <= 255)
    columns = build("d", [[file(f"d/{name}") for name in listed]])
    assert names(columns) == shown
    assert [columns.find(name) for name in shown] == list(range(len(shown)))
    for name in shown:
        assert (columns.find(name + b"\1") >= 0) == (name + b"\1" in shown)
        assert (columns.find(name[:-1]) >= 0) == (name[:-1] in shown)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256, "é" * 128, "\ud800"])
def test_names_that_no_directory_may_hold_are_hidden_and_counted(name):
    columns = build("d", [[file("d/good"), file(f"d/{name}"), file("d/zz")]])
    assert names(columns) == [b"good", b"zz"]
    assert columns.hidden == 1
    assert columns.hidden_names == (f"d/{name}",)


hashes = st.sampled_from(["", MD5, "f" * 32, "a" * 40, MD5 + ".dir", "A" * 32, "no hex", "12 34 56", "abc"])
entries = st.builds(
    file,
    st.one_of(st.text("abcXYZ019._-", min_size=1, max_size=4), texts, st.just("other/x")).map("d/".__add__),
    hashes,
    st.sampled_from([None, 0, -1, 7, 1 << 40]),
    st.sampled_from(Versioning),
    st.sampled_from(Kind),
)


@given(
    st.lists(
        st.one_of(st.lists(entries, max_size=8), st.lists(entries.map(lambda e: e._replace(hash=MD5)))), max_size=4
    )
)
def test_a_batch_gives_the_same_rows_as_its_entries_one_by_one(batches):
    together, alone = build("d", batches), build("d", [[entry] for batch in batches for entry in batch])
    assert together.to_bytes() == alone.to_bytes()
    assert together.sizes == alone.sizes
    told = [entry for batch in batches for entry in batch]
    assert len(together) + together.hidden == len(told)
    for position in range(len(together)):
        row = (together.kind(position), together.versioning(position), together.hash(position))
        path = "d/" + together.name(position).decode()
        assert row in [(entry.kind, entry.versioning, entry.hash) for entry in told if entry.path == path]


def test_entries_of_another_directory_are_hidden():
    assert build("d", [[file("other/x"), file("dx"), file("d/y")]]).hidden == 2


@pytest.mark.parametrize("turn", [1, -1])
def test_of_a_file_and_a_directory_with_one_name_the_directory_is_shown(turn):
    both = [file("a"), file("b", kind=Kind.DIRECTORY, hash_=""), file("b")][::turn]
    columns = build("", [both])
    assert names(columns) == [b"a", b"b"]
    assert columns.kind(1) is Kind.DIRECTORY
    assert columns.hidden == 1


def test_of_two_files_with_one_name_the_first_is_shown():
    columns = build("", [[file("a", hash_="1" * 32), file("a", hash_="2" * 32)]])
    assert columns.hash(0) == "1" * 32
    assert columns.hidden == 1


def test_the_list_of_hidden_names_is_bounded_and_their_count_is_not():
    columns = build("", [[file("..") for _ in range(1000)]])
    assert columns.hidden == 1000
    assert len(columns.hidden_names) == 100


def test_a_replacement_character_is_a_name_as_any_other():
    assert names(build("", [[file("a\ufffdb")]])) == ["a\ufffdb".encode()]


@pytest.mark.parametrize("text", ["", MD5, MD5 + ".dir", MD5.upper(), "a" * 40, "opaque é", "abc", "12 34", ".dir"])
def test_a_hash_is_given_back_as_the_hub_wrote_it(text):
    kinds = [file("a", text), file("b", text, versioning=Versioning.GIT), file("c", text, kind=Kind.SYMLINK)]
    columns = Columns.from_bytes(build("", [kinds[::-1]]).to_bytes())
    assert [columns.hash(i) for i in range(3)] == [text] * 3
    assert [columns.versioning(i) for i in range(3)] == [Versioning.DVC, Versioning.GIT, Versioning.DVC]
    assert [columns.kind(i) for i in range(3)] == [Kind.FILE, Kind.FILE, Kind.SYMLINK]


def test_a_stored_listing_is_the_listing():
    columns = build("d", [[file("d/b", size=5), file("d/a"), file("d/..", size=7)]])
    again = Columns.from_bytes(columns.to_bytes())
    assert (names(again), again.hidden, again.hidden_names) == ([b"a", b"b"], 1, ("d/..",))
    assert again.find(b"b") == 1


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_damaged_byte_anywhere_makes_a_stored_listing_a_miss(where, flip):
    sealed = bytearray(build("", [[file(f"f{i}") for i in range(20)]]).to_bytes())
    sealed[where % len(sealed)] ^= flip
    assert Columns.from_bytes(bytes(sealed)) is None


def test_a_cut_or_missing_listing_is_a_miss():
    sealed = build("", [[file("a"), file("b")]]).to_bytes()
    assert Columns.from_bytes(None) is None
    assert all(Columns.from_bytes(sealed[:n]) is None for n in range(len(sealed)))


def test_stored_sizes_belong_to_a_listing_of_their_length():
    sealed = sizes_to_bytes(array("q", [3, -1]), True)
    assert sizes_from_bytes(sealed, 2) == (array("q", [3, -1]), True)
    assert sizes_from_bytes(sealed, 3) is None
    assert sizes_from_bytes(sealed[:-1], 2) is None


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        (file("a", MD5, 0), None),  # the hub's way to say that it did not look
        (file("a", MD5, 7), 7),
        (file("a", "d41d8cd98f00b204e9800998ecf8427e", None), 0),
        (file("a", "a" * 40, 0, Versioning.GIT), 0),
        (file("a", "", 0, Versioning.BUCKET), 0),
    ],
)
def test_a_size_of_zero_is_believed_only_where_the_md5_does_not_deny_it(entry, size):
    assert trusted_size(entry) == size


def test_half_a_million_entries_take_52_bytes_each_at_most_beside_their_names():
    count = 20_000
    columns = build("d", ([file(f"d/img{i:06}.jpg", f"{i:032x}")] for i in range(count)))
    assert columns.cost - len(columns.names) <= 52 * count
