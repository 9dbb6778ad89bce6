"""Readers in processes of their own that go on after an error, and tell which."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from support.walks import sha256

SURVEY = """
import errno, hashlib, json, os, random, sys
seed, root, *directories = sys.argv[1:]
found = {}
def attempt(path, step):
    try:
        return step()
    except OSError as error:
        found[path] = errno.errorcode[error.errno]
def read(path):
    size = os.stat(path).st_size
    digest, length = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(200_000):
            digest.update(piece)
            length += len(piece)
    found[path] = [size, length, digest.hexdigest()]
for directory in directories:
    names = attempt(directory, lambda: sorted(os.listdir(os.path.join(root, directory)))) or []
    random.Random(int(seed)).shuffle(names)
    os.chdir(root)
    for name in names:
        attempt(f"{directory}/{name}", lambda: read(f"{directory}/{name}"))
json.dump(found, sys.stdout)
"""


@dataclass
class Survey:
    """What some readers found: path -> [size by stat, bytes read, SHA-256], or the name of an errno."""

    found: list[dict[str, object]]

    @property
    def errors(self) -> set[str]:
        return {seen for one in self.found for seen in one.values() if isinstance(seen, str)}

    def differences(self, wanted: dict[str, bytes], *, errors: Iterable[str] = ()) -> list[str]:
        """Name what is not as wanted; `errors` may come instead of bytes."""
        rows = {path: [len(data), len(data), sha256(data)] for path, data in wanted.items()}
        rows |= {path.rpartition("/")[0]: [] for path in wanted}  # a directory is found only when it has an error
        return [
            f"{path}: {seen}, wanted {rows.get(path)}"
            for one in self.found
            for path, seen in one.items()
            if seen != rows.get(path) and seen not in errors
        ] + [
            f"{path} is missing"
            for one in self.found
            for path in wanted
            if path not in one and one.get(path.rpartition("/")[0]) not in errors
        ]


def survey(root: Path, *directories: str, readers: int = 1, seconds: float = 90) -> Survey:
    """Have `readers` processes list the directories and read all files in them, each in an order of its own."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SURVEY, str(seed), root, *directories],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(readers)
    ]
    found = []
    try:
        for reader in running:
            out, errors = reader.communicate(timeout=seconds)
            assert reader.returncode == 0, errors
            found.append(json.loads(out))
    finally:
        for reader in running:
            reader.kill()
    return Survey(found)
