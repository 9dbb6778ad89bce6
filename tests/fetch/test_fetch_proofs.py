"""Hashes are DVC's and git's own."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import pytest
from dvc_data.hashfile.hash import fobj_md5
from hypothesis import given
from hypothesis import strategies as st
from support.contents import claimed, git, noise

from dagfs.errors import IntegrityError
from dagfs.model import ContentId
from dagfs.proofs import CHUNK, prove

LINES = st.lists(st.sampled_from([b"word", b"\r\n", b"\n", b"\r", b"\0", b"\xc3\xa9", b"\t", noise(40)]), max_size=60)


@given(LINES)
def test_every_md5_that_dvc_2_gives_a_file_is_proved(parts: list[bytes]) -> None:
    data = b"".join(parts)
    text_md5 = fobj_md5(io.BytesIO(data), name="md5-dos2unix")
    proof = prove(claimed(text_md5), data)
    assert proof.md5 == hashlib.md5(data).hexdigest()
    assert ContentId("md5" if text_md5 == proof.md5 else "md5-dos2unix", text_md5) in proof.proved


def test_a_line_end_across_two_chunks_stays_as_dvc_2_leaves_it() -> None:
    data = b"x" * (CHUNK - 1) + b"\r\n" + b"y\r\n" * 1000
    prove(claimed(fobj_md5(io.BytesIO(data), name="md5-dos2unix")), data)
    with pytest.raises(IntegrityError):
        prove(claimed(hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest()), data)


def test_a_blob_id_is_gits_own(tmp_path: Path) -> None:
    data = noise(5000)
    (tmp_path / "file").write_bytes(data)
    found = subprocess.run(
        ["git", "hash-object", "--no-filters", "file"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    for sized in (True, False):
        assert ContentId("git", found) in prove(git(data, claim=found, sized=sized), data).proved
        assert ContentId("git", found) not in prove(git(data + b"x", claim=found, sized=sized), data + b"x").proved
