"""The eviction policy alone: which share of a data set stays useful, and that an old one leaves."""

from __future__ import annotations

import hashlib
import random

import pytest

from dagfs.store.evict import Residents

SIZE = 1000
FILES_THAT_FIT = 500


class Shelf:
    """A store without a disk that obeys the policy."""

    def __init__(self, files: int = FILES_THAT_FIT) -> None:
        self.limit = files * SIZE
        self.files: dict[str, int] = {}
        self.total = 0
        self.peak = 0
        self.policy = Residents(self.limit, lambda: iter(sorted(self.files.items())))

    def use(self, digest: str, size: int = SIZE) -> bool:
        if digest in self.files:
            self.policy.touch(digest, size)
            return True
        while self.total + size > self.limit:
            victim = self.policy.victim(frozenset(), size)
            if victim is None:
                break
            self.policy.forget(victim[0])
            self.total -= self.files.pop(victim[0])
        self.files[digest] = size
        self.total += size
        self.peak = max(self.peak, self.total)
        self.policy.insert(digest, size)
        self.policy.settle()
        return False

    def epoch(self, digests: list[str], shuffle: random.Random | None) -> float:
        order = digests[:]
        if shuffle is not None:
            shuffle.shuffle(order)
        return sum(self.use(digest) for digest in order) / len(order)


def data_set(count: int, seed: int) -> list[str]:
    return [hashlib.md5(b"%d %d" % (seed, number)).hexdigest() for number in range(count)]


@pytest.mark.parametrize("shuffle", [None, random.Random(1)], ids=["cyclic", "shuffled"])
@pytest.mark.parametrize("times", [1.25, 2, 3])
def test_an_epoch_larger_than_the_store_hits_on_the_part_that_fits(times: float, shuffle: random.Random | None) -> None:
    shelf, digests = Shelf(), data_set(int(times * FILES_THAT_FIT), 1)
    shelf.epoch(digests, shuffle)
    hits = [shelf.epoch(digests, shuffle) for _ in range(4)]
    asked = 0.9 / times if times <= 2 else 0.6 / times
    assert min(hits) >= asked, hits
    assert min(hits[2:]) >= 0.9 / times, hits


@pytest.mark.parametrize("shuffle", [None, random.Random(2)], ids=["cyclic", "shuffled"])
@pytest.mark.parametrize("times", [1, 2, 8])
def test_an_old_working_set_is_gone_after_eight_epochs_of_the_new_one(
    times: float, shuffle: random.Random | None
) -> None:
    shelf, old = Shelf(), data_set(int(times * FILES_THAT_FIT), 1)
    for _ in range(4):
        shelf.epoch(old, shuffle)
    new = data_set(FILES_THAT_FIT, 2)
    hits = [shelf.epoch(new, shuffle) for _ in range(8)]
    assert hits[-1] >= 0.95, hits
    assert sum(digest in shelf.files for digest in old) <= 0.05 * FILES_THAT_FIT


def test_a_file_used_in_every_epoch_survives_a_scan() -> None:
    shelf = Shelf()
    favourites = data_set(50, 3)
    for _ in range(3):
        shelf.epoch(favourites + data_set(200, 4), None)
    scan = data_set(4 * FILES_THAT_FIT, 5)
    for start in range(0, len(scan), 100):
        shelf.epoch(scan[start : start + 100], None)
        shelf.epoch(favourites, None)
    assert all(digest in shelf.files for digest in favourites)


def test_the_limit_holds_and_the_newest_file_stays() -> None:
    shelf = Shelf(10)
    for digest in data_set(500, 6):
        shelf.use(digest)
        assert digest in shelf.files
    assert shelf.peak <= shelf.limit


def test_what_is_kept_is_never_chosen() -> None:
    shelf = Shelf(4)
    digests = data_set(4, 7)
    for digest in digests:
        shelf.use(digest)
    victim = shelf.policy.victim(frozenset(digests[:3]), SIZE)
    assert victim is None or victim[0] == digests[3]
    assert shelf.policy.victim(frozenset(digests), SIZE) is None
