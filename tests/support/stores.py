"""Files in a store on disk, as tests put them there, find them and spoil them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.contents import proof

from dagfs.model import Content
from dagfs.store.disk import DiskStore
from dagfs.store.handles import BLOCK

MiB = 1 << 20
LARGE = 10 * BLOCK + 123
Opener = Callable[..., DiskStore]


def keep(store: DiskStore, content: Content, data: bytes, *, flush: bool = True) -> None:
    store.put(content, data, proof(content, data))
    if flush:
        assert store.flush(20)


def read(store: DiskStore, content: Content) -> bytes | None:
    found = store.find(content)
    if found is None:
        return None
    try:
        return found.read(0, found.size + 10)
    finally:
        found.close()


def path_of(store: DiskStore, data: bytes) -> Path:
    md5 = hashlib.md5(data).hexdigest()
    return store.root / "files" / "md5" / md5[:2] / md5[2:]


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


def partial_of(store: DiskStore) -> Path:
    """Give the only incomplete file of a store."""
    (path,) = (path for path in (store.root / "partial").iterdir() if path.suffix != ".log")
    return path


def spoil(path: Path, offset: int) -> None:
    """Overwrite three bytes, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0\1\2")


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagfs.store.lookup.boot_id", lambda: "another boot")
    monkeypatch.setattr("dagfs.store.writer.boot_id", lambda: "another boot")
