"""What a git hash is worth depends on the hub, and is learnt from its files."""

from __future__ import annotations

import pytest
from support.contents import git, proof

from dagfs.errors import IntegrityError
from dagfs.fetch.blobs import STRANGERS, TRIES, BlobIds

RIGHT, WRONG, WORSE = b"right", b"wrong", b"worse"
OPAQUE = "0" * 40


def bodies_until_believed(blob_ids: BlobIds, content, *bodies: bytes) -> int | None:
    """Give how many bodies came before one was believed, None when none was."""
    before: list[str] = []
    for number, body in enumerate(bodies, start=1):
        try:
            blob_ids.judge(content, proof(content, body), before)
            return number
        except IntegrityError:
            continue
    return None


def test_a_body_that_is_its_blob_is_believed_at_once():
    assert bodies_until_believed(BlobIds(), git(RIGHT), RIGHT) == 1


@pytest.mark.parametrize("known", [True, False])
def test_wrong_bytes_are_not_believed(known):
    blob_ids = BlobIds()
    if known:
        bodies_until_believed(blob_ids, git(b"another"), b"another")
    assert bodies_until_believed(blob_ids, git(RIGHT), WRONG, RIGHT) == 2
    assert bodies_until_believed(blob_ids, git(RIGHT), WRONG, WRONG, RIGHT) == 3
    assert bodies_until_believed(blob_ids, git(RIGHT), WRONG, WORSE, RIGHT) == 3
    assert bodies_until_believed(blob_ids, git(RIGHT), WRONG, WORSE, b"worst") is None


def test_a_hub_that_gives_no_blob_ids_is_found_out_after_a_few_files():
    blob_ids = BlobIds()
    asked = [bodies_until_believed(blob_ids, git(b"%d" % n, claim=f"{n:040}"), *[b"%d" % n] * 9) for n in range(9)]
    assert asked == [TRIES] * STRANGERS + [1] * (9 - STRANGERS)


def test_a_file_that_a_hub_with_blob_ids_sends_otherwise_each_time_alike_is_believed_in_the_end():
    blob_ids = BlobIds()
    bodies_until_believed(blob_ids, git(b"another"), b"another")
    for _ in range(2 * STRANGERS):
        assert bodies_until_believed(blob_ids, git(b"pointer", sized=False), *[b"what it points to"] * 9) == TRIES


def test_a_file_without_a_hash_is_believed():
    content = git(RIGHT)._replace(claim=None)
    assert bodies_until_believed(BlobIds(), content, RIGHT) == 1


def test_a_hub_that_gives_one_hash_to_different_files_is_found_out_at_the_second():
    blob_ids = BlobIds()
    files = [git(b"%d" % n, f"path {n}", claim=OPAQUE) for n in range(9)]
    asked = [bodies_until_believed(blob_ids, content, *[b"%d" % n] * 9) for n, content in enumerate(files)]
    assert asked == [TRIES] + [1] * 8
