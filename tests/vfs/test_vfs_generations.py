"""Each request goes to the commit that its node id names, and the root's to the one shown now."""

from __future__ import annotations

import threading

import pytest
from support.generations import Ledger, Numbered, generations, sha

from dagfs.answers import wait
from dagfs.errors import ContentChanged
from dagfs.model import Commit
from dagfs.vfs.generations import KEPT, ORDINAL_SHIFT, Generations
from dagfs.vfs.memory import MemoryFs
from dagfs.vfs.seam import ROOT

MANY = 12
COMMITS = {sha(n): lambda n=n: MemoryFs({"a": b"%d" % n, "d/b": b"%d" % n, f"v{n}": b""}) for n in range(1, MANY)}


def build(**more) -> Generations[Numbered]:
    return generations(COMMITS, sha(1), **more)


def show(fs: Generations[Numbered], number: int, may=lambda: True, tell=lambda: None) -> bool:
    return fs.switch(*fs.prepare(Commit(sha(number), 0.0)), may, tell)


def node(fs, path: str) -> int:
    found = ROOT
    for name in path.split("/"):
        found = wait(fs.lookup(found, name.encode())).node
    return found


def names(fs, directory: int) -> list[bytes]:
    return [name for name, _, _ in wait(fs.readdir(directory)).rows(0, 100)]


def test_nodes_stay_in_their_commit_and_the_root_moves_on():
    fs = build()
    nodes = [node(fs, "d/b")]
    root = fs.root_of(ROOT)
    assert show(fs, 2)
    nodes.append(node(fs, "d/b"))
    assert len(set(nodes)) == 2
    assert [wait(fs.read(one, 0, 10)) for one in nodes] == [b"1", b"2"]
    assert names(fs, ROOT) == [b"a", b"d", b"v2"]
    assert names(fs, root) == [b"a", b"d", b"v1"]  # who began to list it goes on so
    assert wait(fs.getattr(ROOT)).node == ROOT
    assert fs.commit.sha == sha(2)


def test_the_roots_listings_are_told_apart_and_have_no_attributes():
    """The kernel would take a name that comes with attributes for one of the commit shown when it reads the reply."""
    fs = build()
    first = wait(fs.readdir(ROOT))
    show(fs, 2)
    second = wait(fs.readdir(ROOT))
    assert first.node != second.node
    assert [second.attributes(row) for row in range(len(second))] == [None] * 3
    assert not second.sizes_known
    assert wait(fs.readdir(node(fs, "d"))).attributes(0) is not None


def test_what_may_not_be_shown_is_not():
    fs = build()
    told = []
    assert not show(fs, 2, may=lambda: False, tell=lambda: told.append(1))
    assert (fs.commit.sha, told) == (sha(1), [])
    assert show(fs, 2, tell=lambda: told.append(1))
    assert (fs.commit.sha, told) == (sha(2), [1])


def test_no_request_for_the_root_is_routed_between_the_change_and_the_kernels_word():
    fs = build()
    answers: list[object] = []
    readers = [
        threading.Thread(target=lambda: answers.append(names(fs, ROOT))),
        threading.Thread(target=lambda: answers.append(wait(fs.lookup(ROOT, b"v2")).node >> ORDINAL_SHIFT)),
    ]

    def tell() -> None:
        for reader in readers:
            reader.start()
            reader.join(0.2)
        assert answers == []
        assert wait(fs.read(inside, 0, 10)) == b"1"  # others are not held up

    inside = node(fs, "a")
    show(fs, 2, tell=tell)
    for reader in readers:
        reader.join(10)
    assert sorted(answers, key=str) == [2, [b"a", b"d", b"v2"]]


def test_few_earlier_commits_stay_in_memory_and_others_come_back_when_asked_for():
    built = []

    def run(job):
        threading.Thread(target=job).start()

    fs = generations({key: lambda key=key: built.append(key) or COMMITS[key]() for key in COMMITS}, sha(1), run)
    kept, made = {n: node(fs, "a") for n in [1] if not built.clear()}, [fs.current]
    for n in range(2, MANY):
        show(fs, n)
        kept[n] = node(fs, "a")
        made.append(fs.current)
    assert built == [sha(n) for n in range(2, MANY)]
    assert len(fs._live) == KEPT + 1
    assert [one for one in made if not one.closed] == made[-KEPT - 1 :]  # each has threads of its own
    live = dict(fs._live)
    assert all(one.resting for ordinal, one in live.items() if ordinal != MANY - 1)
    built.clear()
    asked = [fs.read(kept[1], 0, 10) for _ in range(5)]
    assert [wait(answer, 10) for answer in asked] == [b"1"] * 5
    assert built == [sha(1)]  # once, however many ask
    assert fs.path(kept[1]) == "a"
    assert fs._live[1].resting
    assert len(fs._live) == KEPT + 1
    assert [one.closed for one in live.values()].count(True) == 1
    assert [wait(fs.read(kept[n], 0, 10), 10) for n in range(1, MANY)] == [b"%d" % n for n in range(1, MANY)]


def test_ids_that_were_never_given_are_refused():
    fs = build()
    for strange in (9 << ORDINAL_SHIFT | 77, 2):
        with pytest.raises(ContentChanged):
            wait(fs.getattr(strange))
        assert fs.path(strange) == f"node {strange}"


def test_a_worker_that_takes_over_shows_what_the_last_one_did():
    ledger = Ledger(Commit(sha(1), 0.0))
    fs = build(ledger=ledger)
    old = node(fs, "a")
    show(fs, 2)
    new = node(fs, "a")
    again = build(ledger=ledger)
    assert again.commit.sha == sha(2)
    assert node(again, "a") == new
    assert wait(again.read(old, 0, 10)) == b"1"


def test_a_commit_whose_node_ids_are_lost_gets_new_ones_and_the_old_are_refused():
    ledger = Ledger(Commit(sha(1), 0.0))
    fs = build(ledger=ledger)
    show(fs, 2)
    known = [node(fs, "a"), node(fs, "d")]
    lost = {1, 2}
    again = Generations(
        ledger,
        lambda commit, ordinal: Numbered(COMMITS[commit.sha](), ordinal, lost=ordinal in lost),
        lambda job: job(),
        takes_over=True,
    )
    assert again.commit.sha == sha(2)
    assert node(again, "a") not in known
    for one in (*known, 1 << ORDINAL_SHIFT | 2):
        with pytest.raises(ContentChanged):
            wait(again.getattr(one))


def test_an_opening_is_admitted_only_in_the_commit_that_is_shown():
    fs = build()
    old, noted = node(fs, "a"), []
    assert fs.admit(old, lambda: noted.append(old))
    show(fs, 2)
    assert not fs.admit(old, lambda: noted.append(old))
    assert fs.admit(ROOT, lambda: noted.append(ROOT))
    assert noted == [old, ROOT]


def test_rooms_that_cannot_be_put_away_do_not_hinder_the_change(caplog):
    fs = build()

    def full() -> None:
        raise OSError("no space left")

    fs.current.rest = full
    assert show(fs, 2)
    assert fs.commit.sha == sha(2)
    assert "could not be put away" in caplog.text


def test_everything_is_closed_at_the_end():
    fs = build()
    show(fs, 2)
    live = list(fs._live.values())
    fs.close()
    assert [one.closed for one in live] == [True, True]
