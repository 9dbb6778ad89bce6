"""Readers that go on for as long as a test breaks things, and count what they saw."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from support.repos import Truth
from support.walks import sha256

READER = """
import collections, errno, hashlib, json, os, random, sys
root, seed, stop, truth = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.load(open(sys.argv[4]))
dice, seen, names = random.Random(seed), collections.Counter(), sorted(truth)
def look(name):
    size, digest = truth[name]
    fd = os.open(os.path.join(root, name), os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # else the kernel answers from memory
        pieces = []
        while piece := os.read(fd, dice.choice((4096, 65536, 1 << 20))):
            pieces.append(piece)
        seen["bytes"] += len(b"".join(pieces))
        right = os.fstat(fd).st_size == size and hashlib.sha256(b"".join(pieces)).hexdigest() == digest
        seen["right" if right else "wrong"] += 1
        os.getxattr(fd, "user.dagfs.commit")  # never remembered by the kernel
    finally:
        os.close(fd)
    try:
        os.stat(os.path.join(root, os.path.dirname(name), "absent-%d" % dice.getrandbits(48)))
        seen["wrong"] += 1
    except FileNotFoundError:
        seen["absent"] += 1
while not os.path.exists(stop):
    try:
        look(dice.choice(names))
    except OSError as error:
        seen["error " + errno.errorcode[error.errno]] += 1
print(json.dumps(seen))
"""


@dataclass
class Storm:
    """Readers at work. `seen` is complete once they have ended: right, wrong, absent, bytes, and `error ERRNO`."""

    readers: list[subprocess.Popen[str]]
    seen: Counter[str] = field(default_factory=Counter)

    def asleep(self) -> list[int]:
        """Give the readers that are in uninterruptible sleep right now."""
        return [reader.pid for reader in self.readers if state_of(reader.pid) == psutil.STATUS_DISK_SLEEP]

    @property
    def failures(self) -> dict[str, int]:
        return {name: n for name, n in self.seen.items() if name == "wrong" or name.startswith("error")}


def state_of(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status())
    return "gone"


@contextlib.contextmanager
def storm(root: Path, truth: Truth, scratch: Path, readers: int = 8) -> Iterator[Storm]:
    """Have programs read files of a mount in random order, and compare each, until the block ends."""
    known, stop = scratch / "truth.json", scratch / "stop"
    known.write_text(json.dumps({name: [len(data), sha256(data)] for name, data in truth.files.items()}))
    words = [[sys.executable, "-c", READER, root, str(seed), stop, known] for seed in range(readers)]
    one = Storm([subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words])
    try:
        yield one
        stop.touch()
        for reader in one.readers:
            one.seen.update(json.loads(reader.communicate(timeout=60)[0]))
    finally:
        for reader in one.readers:
            reader.kill()
            reader.communicate()
        stop.unlink(missing_ok=True)
