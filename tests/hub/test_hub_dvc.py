"""DVC's metadata, as DVC 2 and DVC 3 write it, and as an enemy would."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dagfs.errors import ProtocolError
from dagfs.hub import plain_yaml
from dagfs.hub.dvc import ManifestEntry, Out, parse_dvc_file, parse_lock, parse_manifest

MD5 = "8586da76f372efa83d832a9d0e664817"


def only(outs: list[Out]) -> Out:
    assert len(outs) == 1
    return outs[0]


def test_a_file_of_dvc_3():
    text = f"outs:\n- md5: {MD5}\n  size: 14\n  hash: md5\n  path: a b.txt\n"
    assert only(parse_dvc_file(text, "data")) == Out("data/a b.txt", MD5, 14, None, False, False, True)


def test_a_directory_of_dvc_2():
    text = f"outs:\n- md5: {MD5}.dir\n  size: 1400\n  nfiles: 3\n  path: images\n"
    assert only(parse_dvc_file(text, "")) == Out("images", MD5, 1400, 3, True, True, True)


def test_a_working_directory_moves_the_path():
    text = f"wdir: ../shared\nouts:\n- md5: {MD5}\n  path: x/../a.txt\n"
    assert only(parse_dvc_file(text, "data/deep")).path == "data/shared/a.txt"


@pytest.mark.parametrize("path", ["../a", "x/../../a", "/etc/passwd", "s3://bucket/key", "", ".", "remote://r/k"])
def test_outs_outside_of_the_repository_are_left_out(path):
    assert parse_dvc_file(yaml.safe_dump({"outs": [{"path": path, "md5": MD5}]}), "") == []


def test_an_import_that_was_not_downloaded_has_no_out():
    assert parse_dvc_file("outs:\n- path: a\n  hash: md5\n", "") == []
    assert parse_dvc_file("deps: []\n", "") == []


def test_uncached_outs_say_so():
    assert not only(parse_dvc_file(f"outs:\n- md5: {MD5}\n  path: a\n  cache: false\n", "")).cached


LOCK = f"""schema: '2.0'
stages:
  prepare@train:
    cmd: python prepare.py
    deps:
    - path: raw
      md5: {MD5}.dir
    outs:
    - path: out
      hash: md5
      md5: {MD5}.dir
      size: 10
      nfiles: 2
    - path: metrics.json
      hash: md5
      md5: {MD5}
      size: 5
  other:
    cmd: x
    outs:
    - path: plain
      md5: {MD5}
"""

PIPELINE = """stages:
  prepare:
    foreach: [train]
    do:
      wdir: sub
      cmd: python prepare.py
      outs: [out]
      metrics:
      - metrics.json:
          cache: false
  other:
    cmd: x
"""


def test_a_lock_gives_the_outs_of_all_stages():
    outs = parse_lock(LOCK, "pipe")
    assert [(out.path, out.is_dir, out.legacy) for out in outs] == [
        ("pipe/out", True, False),
        ("pipe/metrics.json", False, False),
        ("pipe/plain", False, True),
    ]


def test_the_pipeline_beside_a_lock_tells_working_directory_and_cache():
    outs = parse_lock(LOCK, "pipe", PIPELINE)
    assert [(out.path, out.cached) for out in outs] == [
        ("pipe/sub/out", True),
        ("pipe/sub/metrics.json", False),
        ("pipe/plain", True),
    ]


def test_a_lock_without_schema_has_its_stages_at_the_top():
    assert only(parse_lock(f"train:\n  cmd: x\n  outs:\n  - path: a\n    md5: {MD5}\n", "")).path == "a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        "outs: 3",
        "outs: [3]",
        "outs: [{path: 3, md5: x}]",
        "outs: [{path: a, md5: 3}]",
        "outs: [{md5: x}]",
        "outs: [{path: a, md5: zz}]",
        "wdir: 3",
        "outs: {a: b}",
        "a: b: c",
        "\x00",
        "[" * 100_000,
        "- " * 100_000,
        "{a: " * 5000,
        "\n".join(" " * i + "a:" for i in range(3000)),
        "!!python/object/apply:os.system [ls]",
        "? - ? - ? - x\n" + "? " * 9999,
        "a: &a [&b [*a], *b]\nouts: 3",
        "x: 1e99999999\nouts: 3",
        "outs: [{path: a, md5: '../../../x'}]",
    ],
    ids=lambda text: text[:20],
)
def test_hostile_metadata_is_a_protocol_error(text):
    with pytest.raises(ProtocolError):
        parse_dvc_file(text, "")


@pytest.mark.parametrize(
    "value", ["2020-99-99", "1" + ":1" * 10_000, "9" * 10_000, "0x" + "f" * 10_000, "1e999", ".inf"]
)
def test_what_other_readers_take_for_dates_and_numbers_is_text(value):
    text = f"meta: {value}\nouts: [{{path: a, md5: {MD5}, size: {value}}}]\n"
    assert only(parse_dvc_file(text, "")).size is None


def test_what_merges_bring_is_bounded():
    """Each may merge what others have merged: nine levels of nine were a billion pairs before PyYAML 6.0.4."""
    many = ", ".join(f"k{i}: 1" for i in range(plain_yaml.MAX_MERGED + 2))
    with pytest.raises(ProtocolError, match="<<"):
        parse_dvc_file(f"a: &a {{{many}}}\nb: {{<<: *a}}\n", "")
    assert parse_dvc_file(f"a: {{{many}}}\nouts: []\n", "") == []


def test_aliases_do_not_multiply():
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 7))
    assert parse_dvc_file(f"a0: &a0 [x]\n{levels}outs: []\n", "") == []


def test_metadata_beyond_its_limit_is_refused(monkeypatch):
    monkeypatch.setattr("dagfs.hub.dvc.MAX_YAML_BYTES", 10)
    with pytest.raises(ProtocolError):
        parse_lock("schema: '2.0'\n", "")


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_raise_protocol_error(text):
    for parse in (parse_dvc_file, parse_lock):
        try:
            parse(text, "")
        except ProtocolError:
            pass


def test_a_manifest_gives_paths_and_hashes():
    data = f'[{{"md5":"{MD5}","relpath":"sub/002.png"}},{{"relpath":"a","md5":"{MD5}","size":3}}]'.encode()
    assert parse_manifest(data) == [ManifestEntry("sub/002.png", MD5), ManifestEntry("a", MD5)]
    assert parse_manifest(b"[]") == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[",
        b"[3]",
        b'[{"md5":"x","relpath":"a"}]',
        b'[{"md5":3,"relpath":"a"}]',
        b'[{"relpath":"a"}]',
        b"\xff",
        b'[{"md5":"8586da76f372efa83d832a9d0e664817","relpath":""}]',
        b'[{"x":' + b"[" * 100_000,
    ],
    ids=lambda data: str(data[:30]),
)
def test_a_manifest_that_makes_no_sense_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        parse_manifest(data)
