"""Tables that are small on the disk of a hub and without bounds in memory are not made."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from dagfs.prefetch import table

SIDE = 1000
BOMBS = {
    "wide.csv": b"," * SIDE + b"\n" + b"x\n" * SIDE,
    "wide.tsv": b"\t" * SIDE + b"\n" + b"x\n" * SIDE,
    "wide.json": json.dumps([{f"k{i}": "a.jpg" for i in range(SIDE)}] + [{}] * SIDE).encode(),
    "wide.jsonl": json.dumps({f"k{i}": "a.jpg" for i in range(SIDE)}).encode() + b"\n{}" * SIDE,
    "many.json": b"[" + b"[]," * 200_000 + b"[]]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_no_table(monkeypatch, name):
    monkeypatch.setattr(table, "CELLS_MAX", 100_000)
    tracemalloc.start()
    try:
        assert table.parse(name, BOMBS[name]) == []
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_long_table_is_one():
    rows = b"".join(b"img/%06d.jpg,%d\n" % (i, i % 7) for i in range(20_000))
    assert len(table.parse("labels.csv", rows)[0]) == 20_000
