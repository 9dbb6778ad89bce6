"""Builders of real repositories, by real git and real DVC, with the truth about every byte in them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ODD_NAMES = (
    "two  spaces.txt",
    "hash#query?percent%25.txt",
    "plus+and&semi;colon:.txt",
    "quote's\"double`.txt",
    "back\\slash.txt",
    "line\nbreak.txt",
    "emoji \N{GRINNING FACE}.txt",
    "nfc \N{LATIN SMALL LETTER E WITH ACUTE}.txt",
    "nfd e\N{COMBINING ACUTE ACCENT}.txt",
    "[glob]*{a,b}.txt",
    " leading and trailing ",
    "-dash",
    "x" * 251 + ".txt",
)
"""Names that break URLs, shells, globs and JSON; the last has the 255 bytes that a directory entry may have."""

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "DVC_NO_ANALYTICS": "1",
}
FIRST_COMMIT_TIME = 1_700_000_000


@dataclass(frozen=True)
class Truth:
    """What a repository holds.

    `commits`: commit sha -> path -> bytes, for every file of git and of DVC, symlinks as their target's text (as the
    hub serves them). `branches` and `tags`: name -> commit sha; `head` is the default branch's commit. `dvc`: commit
    sha -> the paths that DVC holds. `symlinks`, `submodules`, `executables`: paths, the same in each commit.
    `storages`: folders to be served as connected buckets; the default branch's files have their objects, too.
    """

    path: Path
    head: str
    commits: Mapping[str, Mapping[str, bytes]]
    dvc: Mapping[str, frozenset[str]]
    branches: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    symlinks: frozenset[str] = frozenset()
    submodules: frozenset[str] = frozenset()
    executables: frozenset[str] = frozenset()
    storages: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files of the default branch's commit."""
        return self.commits[self.head]

    @property
    def time(self) -> int:
        """The default branch's commit time in seconds since the epoch."""
        return int(git(self.path, "show", "-s", "--format=%ct", self.head))


def environment(**more: str) -> dict[str, str]:
    """Give an environment in which git and DVC see no configuration of this machine's user."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | IDENTITY | more


def git(path: Path, *arguments: str | bytes, when: int = FIRST_COMMIT_TIME, stdin: bytes | None = None) -> str:
    """Run git in `path`; `when` is the commit's time. Raises CalledProcessError."""
    stamp = f"{when} +0000"
    run = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=path,
        env=environment(GIT_AUTHOR_DATE=stamp, GIT_COMMITTER_DATE=stamp),
        check=True,
        stdout=subprocess.PIPE,
        input=stdin,
    )
    return run.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def new_repository(path: Path) -> Path:
    """Make an empty git repository whose branch is `main`."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q", "-b", "main")
    return path


def commit_all(path: Path, message: str, when: int = FIRST_COMMIT_TIME) -> str:
    """Commit the working tree and give the commit's sha."""
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", message, when=when)
    return git(path, "rev-parse", "HEAD")


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def dvc(path: Path, script: str) -> None:
    """Run Python lines that use DVC's own API in `path`; DVC's Repo class is at hand as `Repo`."""
    head = "from dvc.repo import Repo\nimport dvc.config\n"
    subprocess.run([sys.executable, "-c", head + script], cwd=path, env=environment(), check=True, capture_output=True)


def git_files(path: Path, commit: str) -> dict[str, bytes]:
    """Give every blob of a commit as git itself shows it."""
    files = {}
    for line in git(path, "ls-tree", "-r", "-z", commit).split("\0")[:-1]:
        meta, name = line.split("\t", 1)
        _, kind, oid = meta.split(" ")
        if kind == "blob":
            files[name] = subprocess.run(
                ["git", "cat-file", "blob", oid], cwd=path, check=True, capture_output=True
            ).stdout
    return files


def dos2unix_md5(data: bytes) -> str:
    """Give the MD5 that DVC 2 wrote for text files."""
    return hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest()


def put_legacy(cache: Path, digest: str, data: bytes) -> None:
    """Store an object in DVC 2's cache layout."""
    target = cache / digest[:2] / digest[2:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def add_legacy_file(root: Path, name: str, data: bytes, digest: str | None = None) -> None:
    """Track a file as DVC 2 did: no `hash:` key, and the object directly under .dvc/cache."""
    digest = digest or hashlib.md5(data).hexdigest()
    put_legacy(root / ".dvc/cache", digest, data)
    base = Path(name).name
    write_files(root, {f"{name}.dvc": f"outs:\n- md5: {digest}\n  size: {len(data)}\n  path: {base}\n".encode()})
    _ignore(root / Path(name).parent, base)


def add_legacy_directory(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Track a directory as DVC 2 did; `files` are relative to it."""
    rows = [{"md5": hashlib.md5(data).hexdigest(), "relpath": path} for path, data in sorted(files.items())]
    for row in rows:
        put_legacy(root / ".dvc/cache", row["md5"], files[row["relpath"]])
    manifest = json.dumps(rows).encode()
    digest = hashlib.md5(manifest).hexdigest() + ".dir"
    put_legacy(root / ".dvc/cache", digest, manifest)
    size = sum(map(len, files.values()))
    text = f"outs:\n- md5: {digest}\n  size: {size}\n  nfiles: {len(rows)}\n  path: {Path(name).name}\n"
    write_files(root, {f"{name}.dvc": text.encode()})
    _ignore(root / Path(name).parent, Path(name).name)


def sample_repository(path: Path) -> Truth:
    """Make a repository of two commits with all that a hub has to serve: see the constants and calls below."""
    root = new_repository(path)
    noise = random.Random(20)
    held = _write_first(root, noise)
    first = commit_all(root, "First commit\n\nWith a body.")
    git(root, "tag", "-a", "v1", "-m", "release one")
    git(root, "branch", "deadbeef")
    files = {first: git_files(root, first) | held}
    second_held = _write_second(root, noise, held)
    second = commit_all(root, "Second commit", FIRST_COMMIT_TIME + 86_400)
    files[second] = git_files(root, second) | second_held
    git(root, "branch", "feature/with/slashes", first)
    git(root, "tag", "light")
    return Truth(
        path=root,
        head=second,
        commits=files,
        dvc={first: frozenset(held), second: frozenset(second_held)},
        branches={"main": second, "feature/with/slashes": first, "deadbeef": first},
        tags={"v1": first, "light": second},
        symlinks=frozenset({"links/to-readme", "links/dangling", "links/to-directory"}),
        submodules=frozenset({"vendor/library"}),
        executables=frozenset({"bin/run.sh"}),
    )


def _write_first(root: Path, noise: random.Random) -> dict[str, bytes]:
    """Fill the working tree and DVC's cache; give what DVC holds."""
    write_files(root, _git_side(noise))
    (root / "bin/run.sh").chmod(0o755)
    (root / "links").mkdir()
    (root / "links/to-readme").symlink_to("../README.md")
    (root / "links/dangling").symlink_to("nowhere/at all")
    (root / "links/to-directory").symlink_to("../deep")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/library")
    (root / "vendor/library").mkdir(parents=True)
    tracked = _dvc_side(noise)
    write_files(root, tracked)
    write_files(root, {"pipeline/dvc.yaml": PIPELINE})
    targets = ["model.bin", "empty.dat", "images", "only/by/dvc/weights.bin", "odd dvc"]
    dvc(root, f"{DVC_INIT}repo.add({targets!r}); repo.reproduce('pipeline/dvc.yaml')")
    made = {"pipeline/out/upper.txt": b"MADE BY A STAGE\n", "pipeline/out/sub/copy.txt": b"made by a stage\n"}
    legacy = _legacy_side(noise)
    for name, data in legacy.items():
        if not name.startswith("legacy/tree/"):
            add_legacy_file(root, name, data, dos2unix_md5(data) if name.endswith(".txt") else None)
    inside = {k.removeprefix("legacy/tree/"): v for k, v in legacy.items() if k.startswith("legacy/tree/")}
    add_legacy_directory(root, "legacy/tree", inside)
    return tracked | made | legacy


def _write_second(root: Path, noise: random.Random, held: Mapping[str, bytes]) -> dict[str, bytes]:
    """Change, add and remove, in git and in DVC."""
    changed = {"model.bin": noise.randbytes(300_001), "images/new/latest.jpg": noise.randbytes(30_000)}
    write_files(root, changed | {"README.md": b"# sample, second\n", "added.txt": b"added\n"})
    (root / "docs/notes.md").unlink()
    (root / "images/000.jpg").unlink()
    dvc(root, "repo = Repo(); repo.add(['model.bin', 'images'])")
    return {k: v for k, v in held.items() if k != "images/000.jpg"} | changed


def _git_side(noise: random.Random) -> dict[str, bytes]:
    return {
        "README.md": b"# sample\n",
        "empty": b"",
        "docs/notes.md": b"notes\n",
        "bin/run.sh": b"#!/bin/sh\necho run\n",
        "deep/a/b/c/d/e/leaf.txt": b"leaf\n",
        "large.bin": noise.randbytes((3 << 20) + 17),
        "text/crlf.csv": b"name,score\r\nsquirrel,5\r\n",
        "labels.tsv": b"".join(b"%03d.jpg\ta squirrel\t%d\n" % (i, i % 9) for i in range(40)),
    } | {f"odd git/{name}": name.encode() for name in ODD_NAMES}


def _dvc_side(noise: random.Random) -> dict[str, bytes]:
    return (
        {
            "model.bin": noise.randbytes((2 << 20) + 3),
            "empty.dat": b"",
            "only/by/dvc/weights.bin": noise.randbytes(70_000),
        }
        | {f"images/{i:03d}.jpg": noise.randbytes(1 + 700 * i) for i in range(40)}
        | {"images/sub/deeper/one.png": noise.randbytes(5_000), "images/sub/empty.png": b""}
        | {f"odd dvc/{name}": b"dvc " + name.encode() for name in ODD_NAMES}
    )


def _legacy_side(noise: random.Random) -> dict[str, bytes]:
    return {
        "legacy/dos.txt": b"first\r\nsecond\r\n",
        "legacy/blob.bin": noise.randbytes(12_345),
        "legacy/tree/a.bin": noise.randbytes(1_000),
        "legacy/tree/sub/b.bin": noise.randbytes(2_000),
    }


PIPELINE = b"""\
stages:
  make:
    cmd: mkdir -p out/sub && echo 'made by a stage' > out/sub/copy.txt && tr a-z A-Z < out/sub/copy.txt > out/upper.txt
      && echo 1 > metrics.txt
    outs:
    - out
    - metrics.txt:
        cache: false
"""

DVC_INIT = """\
repo = Repo.init()
with repo.config.edit() as settings:
    settings["core"]["analytics"] = False
"""


def big_directory(
    path: Path, n: int, *, size: int = 200, per_directory: int | None = None, distinct: int = 10_000
) -> Truth:
    """Make a repository whose DVC directory `data` has `n` small files, quickly.

    Each has `size` bytes or the few more that its number needs; at most `distinct` contents are different.
    `per_directory` spreads them over sub-directories `000000`, `000001`...
    """
    root = new_repository(path)
    bodies = [b"%08d" % i + b"." * (size - 8) for i in range(min(n, distinct))]
    digests = [hashlib.md5(body).hexdigest() for body in bodies]
    cache = root / ".dvc/cache/files/md5"
    for digest, body in zip(digests, bodies, strict=True):
        put_legacy(cache, digest, body)
    names = [numbered(i, per_directory) for i in range(n)]
    rows = [{"md5": digests[i % len(digests)], "relpath": name} for i, name in enumerate(names)]
    manifest = json.dumps(rows).encode()
    digest = hashlib.md5(manifest).hexdigest() + ".dir"
    put_legacy(cache, digest, manifest)
    total = sum(len(bodies[i % len(bodies)]) for i in range(n))
    pointer = f"outs:\n- md5: {digest}\n  size: {total}\n  nfiles: {n}\n  hash: md5\n  path: data\n"
    write_files(root, {"data.dvc": pointer.encode(), ".gitignore": b"/data\n", ".dvc/.gitignore": b"/cache\n/tmp\n"})
    write_files(root, {".dvc/config": b"[core]\n    analytics = false\n"})
    head = commit_all(root, f"{n} files")
    held = {f"data/{name}": bodies[i % len(bodies)] for i, name in enumerate(names)}
    return Truth(root, head, {head: git_files(root, head) | held}, {head: frozenset(held)}, {"main": head})


def directories_of(paths: Iterable[str]) -> set[str]:
    """Give every directory that a set of paths implies; the root is ""."""
    return {str(parent) if str(parent) != "." else "" for path in paths for parent in Path(path).parents}


def put_dvc_directory(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Track a directory as DVC 3 does, without running it; `files` are relative to it."""
    cache = root / ".dvc/cache/files/md5"
    rows = [{"md5": hashlib.md5(data).hexdigest(), "relpath": path} for path, data in sorted(files.items())]
    manifest = json.dumps(rows).encode()
    digest = hashlib.md5(manifest).hexdigest() + ".dir"
    for key, data in [(digest, manifest), *((row["md5"], files[row["relpath"]]) for row in rows)]:
        put_legacy(cache, key, data)
    size = sum(map(len, files.values()))
    pointer = f"outs:\n- md5: {digest}\n  size: {size}\n  nfiles: {len(rows)}\n  hash: md5\n  path: {name}\n"
    write_files(root, {f"{name}.dvc": pointer.encode(), ".dvc/.gitignore": b"/cache\n/tmp\n"})


def numbered(i: int, per_directory: int | None) -> str:
    """Give the name of file number `i` in a `big_directory`."""
    return f"{i:06d}.bin" if per_directory is None else f"{i // per_directory:06d}/{i:06d}.bin"


def _ignore(directory: Path, name: str) -> None:
    with (directory / ".gitignore").open("a") as ignore:
        ignore.write(f"/{name}\n")
