"""Folders that a hub shows as connected buckets."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from support.repos import write_files

TOP = ".dagshub/storage"


def bucket(folder: Path, files: dict[str, bytes]) -> Path:
    """Make the folder of a bucket with these objects."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, files)
    return folder


def put(path: Path, data: bytes) -> None:
    """Replace an object, as an object store does: another version is there at once, never a mix."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)


def files_under(root: Path) -> dict[str, bytes]:
    """Give every file below a directory of a mount."""
    return {
        os.path.relpath(os.path.join(where, name), root): Path(where, name).read_bytes()
        for where, _, names in os.walk(root)
        for name in names
    }


def requests_of(url: str, kind: str) -> int:
    """Count what a hub was asked of one kind."""
    base = url.rsplit("/", 2)[0]
    with urllib.request.urlopen(f"{base}/-/requests", timeout=10) as answer:
        return json.load(answer)["requests"].get(kind, 0)
