"""Read a tree as a program does, in a process of its own: what is there, how large it is, what it hashes to."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.repos import Truth, directories_of

WALK = """
import hashlib, json, os, sys
root, seed = os.fsencode(sys.argv[1]), int(sys.argv[2])
found = {}
def visit(directory, prefix):
    rows = sorted(os.scandir(directory), key=lambda row: hash((row.name, seed)) if seed else row.name)
    for row in rows:
        path = prefix + row.name
        name = path.decode("utf-8", "surrogateescape")
        if row.is_dir(follow_symlinks=False):
            found[name] = ["directory", 0, ""]
            visit(row.path, path + b"/")
        else:
            size = os.lstat(row.path).st_size
            with open(row.path, "rb") as file:
                found[name] = ["file", size, hashlib.sha256(file.read()).hexdigest()]
visit(root, b"")
json.dump(found, sys.stdout)
"""


def start_walk(root: Path, seed: int = 0) -> subprocess.Popen[str]:
    """Start to read everything under `root`; a seed other than 0 shuffles the order."""
    command = [sys.executable, "-c", WALK, str(root), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_walk(walk: subprocess.Popen[str], seconds: float = 90) -> dict[str, list[object]]:
    try:
        out, errors = walk.communicate(timeout=seconds)
    finally:
        walk.kill()
    assert walk.returncode == 0, errors
    return json.loads(out)


def walk(root: Path) -> dict[str, list[object]]:
    return end_walk(start_walk(root))


def looks_of(truth: Truth, commit: str | None = None) -> dict[str, list[object]]:
    """Give what `walk` must find in a mount of a commit."""
    files = truth.commits[commit or truth.head]
    wanted = {path: ["file", len(data), sha256(data)] for path, data in files.items()}
    wanted |= {path: ["directory", 0, ""] for path in directories_of(files) - {""}}
    return wanted | {path: ["directory", 0, ""] for path in directories_of([f"{s}/x" for s in truth.submodules]) - {""}}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Name what differs, in few words."""
    return [
        f"{path!r}: found {found.get(path)}, wanted {wanted.get(path)}"
        for path in sorted({*found, *wanted})
        if found.get(path) != wanted.get(path)
    ]
