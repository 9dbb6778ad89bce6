"""Commits change as fast as they can while programs read: nothing is ever mixed, and nobody goes back in time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from support.generations import generations, sha
from support.mounts import mounted

from dagfs.vfs.memory import MemoryFs

pytestmark = [pytest.mark.mount, pytest.mark.stress]

SECONDS = 10
READERS = 4
READER = """
import json, os, random, sys, time
root, seed, seconds = sys.argv[1:]
noise, end = random.Random(int(seed)), time.monotonic() + float(seconds)
paths = [f"r{i}" for i in range(5)] + [f"d/{i}" for i in range(20)] + [f"d/e/{i}" for i in range(5)] + ["link"]
last = looks = 0
seen = set()

def hear(number, what):
    global last
    assert int(number) >= last, (what, number, last)
    last = int(number)
    seen.add(last)

def only(names):
    assert len(names) == 1, names
    return names[0]

while time.monotonic() < end:
    looks += 1
    way = noise.random()
    if way < 0.8:
        path = noise.choice(paths)
        file = os.open(os.path.join(root, path), os.O_RDONLY)
        hear(os.read(file, 100), path)
        os.close(file)
    elif way < 0.9:
        hear(only([name for name in os.listdir(root) if name[0] == "m"])[1:], "the root")
    elif way < 0.95:
        hear(only(os.listdir(os.path.join(root, "v"))), "a directory")
    else:
        with os.scandir(root) as rows:
            names = [(row.name, row.stat().st_size) for row in rows if row.name in ("r1", "r2")]
        assert len(names) == 2
print(json.dumps([looks, len(seen)]))
"""


class Commits(dict[str, Callable[[], MemoryFs]]):
    """Commit number N, for any N: all files say N."""

    def __missing__(self, key: str) -> Callable[[], MemoryFs]:
        text = str(int(key)).encode()
        names = [*(f"r{i}" for i in range(5)), *(f"d/{i}" for i in range(20)), *(f"d/e/{i}" for i in range(5))]
        marks = {f"m{int(key)}": b"", f"v/{int(key)}": b""}
        return lambda: MemoryFs(dict.fromkeys(names, text) | marks, {"link": "r0"})


@pytest.mark.parametrize("how", [{}, {"counted": True}, {"minor": 43}], ids=["followed", "counted", "an older kernel"])
def test_a_storm_of_commits_is_seen_in_order_and_never_mixed(how):
    with mounted(lambda: generations(Commits(), sha(1)), **how) as one:
        words = [sys.executable, "-c", READER, str(one.path)]
        readers = [
            subprocess.Popen(
                [*words, str(seed), str(SECONDS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for seed in range(READERS)
        ]
        noise, number = random.Random(1), 1
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            number += 1
            one.show(sha(number))
            time.sleep(noise.choice((0.001, 0.003, 0.01, 0.05)))
        for reader in readers:
            out, error = reader.communicate(timeout=30)
            assert reader.returncode == 0, error
            looks, seen = json.loads(out)
            assert looks > 1000
            assert seen > 50
    assert number > 100
