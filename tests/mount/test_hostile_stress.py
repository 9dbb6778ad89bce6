"""Ten million entries, really sent: minutes, so `make stress` runs them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile_hub import HostileHub
from support.scripted_hub import Answer

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900)]

MiB = 1 << 20
ENTRIES = 10_000_000
GOOD = b"what the user came for\n"


@pytest.fixture
def hostile() -> Iterator[HostileHub]:
    hub = HostileHub()
    yield hub
    hub.stop()


def peak(home) -> int:
    """Give the largest resident size that any process of the mount has had, in bytes."""
    report = home.status()[0]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in [report["pid"], *report["workers"]]]
    return max(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) << 10 for text in texts)


def test_the_largest_listing_that_is_taken_comes_in_bounded_memory(hostile, home, tmp_path):
    """In an order that has to be sorted, with names so short that their number is the bound, and kept on disk."""
    entries = 1_990_000
    body = b",".join(b'{"path":"huge/%08x"}' % (i * 2654435761 % (1 << 32)) for i in range(entries))
    hostile.list("", [{"path": "huge", "type": "dir"}])
    hostile.answer_listing("huge", Answer(body=b"[" + body + b"]"))
    with home.mounted(hostile.repository, tmp_path / "data", "--no-prefetch") as data:
        assert sum(1 for _ in os.scandir(data / "huge")) == entries
        print(f"the largest: {peak(home) / MiB:.0f} MiB at most")
        assert peak(home) < 600 * MiB


@pytest.mark.parametrize(
    ("name", "bound"),
    [("image_%08d.jpg", 250), ("%08x", 250), ("bad/%08d", 100)],
    ids=["in order", "short, in no order", "bad names"],
)
def test_ten_million_entries_are_refused_in_bounded_memory(hostile, home, tmp_path, name, bound):
    def wire():
        yield b"HTTP/1.1 200 OK\r\n\r\n["
        for start in range(0, ENTRIES, 1000):
            numbers = range(start, start + 1000)
            if "x" in name:
                numbers = (i * 2654435761 % (1 << 32) for i in numbers)
            yield b"".join(
                b'{"path":"huge/%s","type":"file","hash":"%032x"},' % ((name % i).encode(), i) for i in numbers
            )
        yield b'{"path":"huge/last"}]'

    hostile.list("", [hostile.file("good.txt", GOOD), {"path": "huge", "type": "dir"}])
    hostile.answer_listing("huge", Answer(wire=wire))
    hostile.file("huge/by-name", GOOD)
    with home.mounted(hostile.repository, tmp_path / "data", "--no-prefetch") as data:
        with pytest.raises(OSError, match="File too large") as refused:
            os.listdir(data / "huge")
        assert refused.value.errno == errno.EFBIG
        assert (data / "good.txt").read_bytes() == (data / "huge/by-name").read_bytes() == GOOD
        print(f"{name}: {peak(home) / MiB:.0f} MiB at most")
        assert peak(home) < bound * MiB
