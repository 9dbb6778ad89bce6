"""The demo's repository: made by real git and real DVC, as a user of a hub would make it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess  # each call is judged where it is  # nosec B404
import sys
from collections.abc import Iterable
from pathlib import Path

from dagfs.demo.pictures import Picture, pictures
from dagfs.errors import UsageError

VERSION = 1
"""Of what is built here; a repository of another version is built again."""
SEED = 7
FIRST_COMMIT_TIME = "1700000000 +0000"
README = """\
# Demo of dagfs

`images/` is tracked by DVC, `labels.tsv` (name, caption, score) by git.

The pictures are cut from photographs that scikit-image ships. **The captions are invented** from the subject and a few
words; about one in ten mentions a squirrel, and no picture shows one. **The scores are computed** from
colourfulness and contrast: nobody has judged these pictures.
"""


def build_repository(path: Path, count: int) -> Path:
    """Make a repository of `count` images at `path`, or find that it is there and complete, and give `path`.

    Raises UsageError when git, DVC or scikit-image is missing, or one of them fails.
    """
    stamp = json.dumps({"version": VERSION, "count": count, "seed": SEED})
    if _stamp_of(path) == stamp:
        return path
    _check_tools()
    # Beside its final place, so that a build that was interrupted is never taken for a repository.
    building = path.with_name(f"{path.name}.building")
    for leftover in (building, path):
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir(parents=True)
    write_pictures(building, pictures(count, SEED))
    (building / "README.md").write_text(README)
    _track(building)
    (building / ".git/dagfs-demo.json").write_text(stamp)
    building.rename(path)
    return path


def write_pictures(directory: Path, chosen: Iterable[Picture]) -> None:
    """Write images/ and labels.tsv: a plain directory that can be trained on."""
    (directory / "images").mkdir(parents=True)
    with (directory / "labels.tsv").open("w", encoding="utf-8") as labels:
        labels.write("name\tcaption\tscore\n")
        for picture in chosen:
            (directory / "images" / picture.name).write_bytes(picture.jpeg)
            labels.write(f"{picture.name}\t{picture.caption}\t{picture.score}\n")


def _stamp_of(path: Path) -> str | None:
    try:
        return (path / ".git/dagfs-demo.json").read_text()
    except OSError:
        return None


def _check_tools() -> None:
    if shutil.which("git") is None:
        raise UsageError("the demo needs git: apt install git")
    if importlib.util.find_spec("dvc") is None:
        raise UsageError("the demo needs DVC: pip install 'dagfs[demo]'")


def _track(root: Path) -> None:
    dvc = (sys.executable, "-m", "dvc")
    _run(root, "git", "init", "-q", "-b", "main")
    _run(root, *dvc, "init", "-q")
    _run(root, *dvc, "config", "core.analytics", "false")
    _run(root, *dvc, "add", "-q", "images")
    _run(root, "git", "add", "-A")
    _run(root, "git", "commit", "-q", "-m", "Images with captions and scores")


def _run(root: Path, *words: str) -> None:
    done = subprocess.run(  # noqa: S603 -- fixed commands  # nosec B603
        words, cwd=root, env=_environment(root), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise UsageError(f"`{' '.join(words[:4])}` failed in {root}: {said[-1]}")


def _environment(root: Path) -> dict[str, str]:
    """Give an environment in which the user's own settings of git and DVC neither disturb nor are changed."""
    private = str(root / ".git/dvc")
    who = {"NAME": "dagfs demo", "EMAIL": "demo@localhost", "DATE": FIRST_COMMIT_TIME}
    signed = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in who.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "DVC_NO_ANALYTICS": "1"}
    dvc_places = {f"DVC_{kind}_DIR": private for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")}
    return kept | signed | settings | dvc_places
