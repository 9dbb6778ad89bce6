"""Files that others have written, or that a disk or another program has damaged: a value, or none, or a named error."""

from __future__ import annotations

import json
import logging
import shutil
from array import array
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contents import dvc, noise
from support.fuzzing import EXAMPLES, fuzz

from dagfs.daemon.state import Registry
from dagfs.errors import CacheRefused, ProtocolError, UsageError
from dagfs.hub import plain_yaml
from dagfs.hub.auth import find_token, moment
from dagfs.hub.dvc import is_md5, parse_dvc_file, parse_lock, parse_manifest
from dagfs.metrics import Metrics
from dagfs.model import Entry, Kind, Span, Versioning
from dagfs.proofs import prove
from dagfs.store.disk import DiskStore
from dagfs.store.handles import BLOCK
from dagfs.tree.builder import build
from dagfs.tree.codec import seal
from dagfs.tree.columns import Columns, sizes_from_bytes, sizes_to_bytes
from dagfs.tree.numbers import NumberBook

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
HOST = "https://dagshub.com"
WORDS = st.sampled_from(
    ["outs", "path", "md5", "size", "wdir", "stages", "do", "cache", "hash", "<<", "version", HOST, "access_token", MD5]
)
TEXTS = st.one_of(WORDS, st.text(max_size=8), st.sampled_from(["../x", "/etc/passwd", "s3://b/k", f"{MD5}.dir", "."]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), TEXTS, st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
OUT = st.fixed_dictionaries({"path": TEXTS}, optional={"md5": TEXTS, "size": VALUES, "nfiles": VALUES, "cache": VALUES})
POINTERS = st.fixed_dictionaries({"outs": st.lists(OUT, max_size=3)}, optional={"wdir": TEXTS, "meta": VALUES})
LOCKS = st.fixed_dictionaries({"stages": st.dictionaries(TEXTS, st.one_of(POINTERS, VALUES), max_size=3)})
MARKS = [
    "&a ",
    "*a",
    "<<: *a",
    "? ",
    "- ",
    "{",
    "[",
    "]",
    "}",
    "!!int ",
    "!!binary ",
    "!!python/name:os.system ",
    "|\n",
]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@st.composite
def written(draw, values):
    """YAML of a value, with marks put in anywhere."""
    text = yaml.safe_dump(draw(values), allow_unicode=True, sort_keys=False)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(MARKS)) + text[at + draw(st.integers(0, 3)) :]
    return text


YAMLS = st.one_of(written(POINTERS), written(LOCKS), written(VALUES), st.binary(max_size=60))


@fuzz
@given(YAMLS, st.sampled_from(["", "a", "a/b"]))
def test_a_pointer_or_lock_names_paths_inside_or_is_a_protocol_error(text, directory):
    for parse in (parse_dvc_file, parse_lock, lambda t, d: parse_lock("stages: {}", d, t)):
        try:
            outs = parse(text, directory)
        except ProtocolError:
            continue
        for out in outs:
            assert is_md5(out.md5)
            assert not out.path.startswith("/")
            assert ".." not in out.path.split("/")
            assert out.size is None or 0 <= out.size < 10**plain_yaml.MAX_DIGITS


ENTRIES = st.lists(st.fixed_dictionaries({"md5": TEXTS, "relpath": TEXTS}), max_size=4)


@fuzz
@given(st.one_of(VALUES, ENTRIES), st.binary(max_size=9))
def test_a_manifest_is_a_list_or_a_protocol_error(value, tail):
    for data in (json.dumps(value, default=str).encode("utf-8", "surrogatepass"), tail, b"[" * 100_000):
        try:
            assert all(is_md5(entry.md5) and entry.relpath for entry in parse_manifest(data))
        except ProtocolError:
            pass


EXPIRIES = st.one_of(TEXTS, st.datetimes(), VALUES)
TOKENS = st.fixed_dictionaries({}, optional={"access_token": VALUES, "token_type": VALUES, "expiry": EXPIRIES})
TOKEN_FILES = st.one_of(
    st.builds(lambda tokens, version: {HOST: tokens, "version": version}, st.lists(TOKENS, max_size=3), VALUES), VALUES
)


@fuzz
@given(st.one_of(written(TOKEN_FILES).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=60)))
def test_a_token_file_holds_a_token_that_can_stand_in_a_header_or_none(tmp_path, data):
    path = tmp_path / "tokens"
    path.write_bytes(data)
    path.chmod(0o600)
    token = find_token(None, {}, path, HOST, 0.0).current()
    assert token is None or (token and all("!" <= c <= "~" for c in token))
    try:
        told = find_token(path, {}, path, HOST, 0.0).current()
        assert told == data.decode().strip()
    except UsageError as error:
        hold_to_one_line(error)


def hold_to_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


@fuzz
@given(st.one_of(st.text(max_size=30), st.datetimes().map(str), st.datetimes().map(lambda t: t.isoformat() + "-23:59")))
def test_a_time_is_seconds_or_none(text):
    assert moment(text) is None or isinstance(moment(text), float)


LISTING = build("d", [[Entry(f"d/f{i}", Kind.FILE, Versioning.GIT, "ab" * 10, i) for i in range(5)]])
SEALED = {
    "listing": LISTING.to_bytes(),
    "sizes": sizes_to_bytes(array("q", range(5)), True),
    "numbers": seal("numbers", b'[["d",4,0,"",null,false]]'),
    "pages": seal("pages", b"1 77"),
    "number": seal("number", b"78"),
}
BODIES = st.one_of(
    st.binary(max_size=90),
    st.sampled_from([b"", b"[]", b"[[]]", b"[" * 5000, b"{}", b"3", b"-1 -1", b"1 x", b"9" * 5000, b"[[1,2,3,4,5,6]]"]),
)


@fuzz
@given(st.sampled_from(sorted(SEALED)), BODIES, st.booleans(), st.integers(0, 200))
def test_a_kept_value_of_any_bytes_is_a_miss(kind, body, sealed, at):
    """Also one whose seal is right: that of another program, or of a later version that forgot to raise its format."""
    value = seal(kind, body) if sealed else SEALED[kind][:at] + body + SEALED[kind][at + len(body) :]
    if value == SEALED[kind]:
        return
    columns = Columns.from_bytes(value)
    assert columns is None or sealed
    sizes = sizes_from_bytes(value, 5)
    assert sizes is None or len(sizes[0]) == 5

    class Values(dict):
        def get_value(self, name):
            place = "pages" if name.endswith("/page/-1") else "numbers" if "/page/" in name else "number"
            return value if place == kind else SEALED[place]

        set_value = dict.__setitem__

    book = NumberBook(Values(), "book")
    assert book.find("d") is None or book.record(book.find("d")).entry.path == "d"
    fresh = Entry("fresh", Kind.DIRECTORY, Versioning.GIT)
    assert book.record(book.give(fresh, early=False)).entry == fresh


WHOLE = {name: noise(size, seed) for seed, (name, size) in enumerate({"a": 10, "b": 5000, "c": 70_000}.items())}
LARGE = noise(2 * BLOCK + 100, 9)
PART = Span(BLOCK, 2 * BLOCK)
VALUE = b"a listing, for example" * 20


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache with whole files, a partial one and a value."""
    root = tmp_path_factory.mktemp("cache") / "root"
    store = DiskStore(root, 1 << 30, Metrics())
    for name, data in WHOLE.items():
        content = dvc(data, name)
        store.put(content, data, prove(content, data))
    part = store.partial(dvc(LARGE), len(LARGE))
    part.write(PART.start, LARGE[PART.start : PART.end])
    part.close()
    store.set_value("value", VALUE)
    assert store.flush(20)
    store.close()
    return root


def damage(path: Path, data: bytes, how: str, at: int) -> None:
    before = path.read_bytes() if path.is_file() else b""
    path.chmod(0o600)
    if how == "gone":
        path.unlink()
    elif how == "link":
        path.unlink()
        path.symlink_to("/etc/passwd")
    elif how == "directory":
        path.unlink()
        path.mkdir()
    else:
        at %= len(before) + 1
        over = before[:at] + data + before[at + len(data) :]
        path.write_bytes({"cut": before[:at], "replaced": data, "over": over, "more": before + data}[how])


@settings(fuzz, max_examples=max(30, EXAMPLES // 3))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 100),
            st.one_of(st.binary(max_size=40), st.just(b"\0" * 4096), st.just(b"[" * 3000)),
            st.sampled_from(["gone", "link", "directory", "cut", "replaced", "over", "more"]),
            st.integers(0, 100_000),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_cache_gives_right_bytes_or_none(cache, tmp_path_factory, damages):
    root = tmp_path_factory.mktemp("damaged") / "root"
    shutil.copytree(cache, root)
    for number, data, how, at in damages:
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        damage(files[number % len(files)], data, how, at)
    try:
        store = DiskStore(root, 1 << 30, Metrics())
    except CacheRefused:  # its format is not known any more
        shutil.rmtree(root)
        return
    try:
        for name, data in WHOLE.items():
            found = store.find(dvc(data, name))
            if found is not None:
                assert found.read(0, len(data)) == data
                found.close()
            store.size(dvc(data, name, sized=False))
        part = store.partial(dvc(LARGE), len(LARGE))
        assert part.read(PART.start, PART.size) in (None, LARGE[PART.start : PART.end])
        part.write(0, LARGE)
        assert part.read(0, len(LARGE)) in (None, LARGE)
        part.close()
        assert store.get_value("value") in (None, VALUE)
        store.set_value("value", VALUE)
        store.info()
        list(store.verify())
    finally:
        store.close()
        shutil.rmtree(root)


STATES = st.one_of(
    st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value, default=str).encode()), st.just(b"[" * 99_999)
)


@fuzz
@given(STATES)
def test_a_state_file_of_any_bytes_is_no_mount(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    assert Registry(tmp_path).states() == {}
