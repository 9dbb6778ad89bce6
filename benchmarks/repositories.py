"""The repositories that the benchmarks serve, made quickly."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import measuring  # noqa: F401 -- makes tests/support known
from support.repos import big_directory, commit_all, new_repository, put_legacy, write_files

MiB = 1 << 20
LARGE = "model.bin"


def images(root: Path, files: int, size: int) -> list[str]:
    """Make a repository of so many different files in `data`; give their paths."""
    big_directory(root, files, size=size, distinct=files)
    return [f"data/{i:06d}.bin" for i in range(files)]


def plain_copy(repository: Path, target: Path, names: list[str], size: int) -> Path:
    """Write the files that `images` made as plain files: each from its own bytes, without a link to the hub's."""
    for number, name in enumerate(names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        body = b"%08d" % number + b"." * (size - 8)
        shutil.copyfile(_stored(repository, body), target / name)
        let_go(target / name)
    return target


def let_go(path: Path) -> None:
    """Take what was just written out of the page cache, so that it is read from the disk as any data set is.

    Pages that were written lie in larger folios than pages that were read: a file just written is copied to its reader
    1.5 times as fast as the same file ever after.
    """
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _stored(repository: Path, body: bytes) -> Path:
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return repository / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def large_file(root: Path, size: int) -> Path:
    """Make a repository whose DVC file `model.bin` has `size` bytes; give its directory."""
    new_repository(root)
    body = os.urandom(size)
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    put_legacy(root / ".dvc/cache/files/md5", digest, body)
    pointer = f"outs:\n- md5: {digest}\n  size: {size}\n  hash: md5\n  path: {LARGE}\n"
    write_files(root, {f"{LARGE}.dvc": pointer.encode(), ".gitignore": f"/{LARGE}\n".encode()})
    write_files(root, {".dvc/config": b"[core]\n    analytics = false\n", ".dvc/.gitignore": b"/cache\n/tmp\n"})
    commit_all(root, "one large file")
    return root


def large_copy(repository: Path, target: Path) -> Path:
    """Copy the large file beside the repository; give the directory it is in."""
    target.mkdir(parents=True)
    (stored,) = (path for path in (repository / ".dvc/cache/files/md5").rglob("*") if path.is_file())
    shutil.copyfile(stored, target / LARGE)
    let_go(target / LARGE)
    return target
