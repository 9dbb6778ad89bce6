"""Build a repository, serve it, mount it, train on it, and tell what it cost."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from dagfs.config import places, private_directory
from dagfs.demo.interrupts import Interrupted, Interrupts
from dagfs.demo.report import Place, Results, show
from dagfs.demo.stage import LATENCY_MS, Stage
from dagfs.demo.traffic import traffic
from dagfs.errors import DagfsError, UsageError

PACKAGES = ("torch", "PIL", "numpy", "matplotlib", "tqdm", "efficientnet_lite_pytorch", "skimage", "dvc")


def run(images: int, epochs: int, output: Path) -> None:
    """Run the demo and print its table; ended by a signal, exit with the shell's status for it.

    Raises UsageError for what is missing on this machine, and DagfsError if the mount misled the training.
    """
    _check_packages()
    console = Console(highlight=False)
    console.print(f"1/4 a git and DVC repository of {images} images")
    repository = _repository(images)
    try:
        with Interrupts() as interrupts, _stage(interrupts) as stage:
            results = _results(console, stage, repository, epochs, output.absolute())
    except Interrupted as signal:
        console.print(f"ended by {signal}")
        sys.exit(signal.exit_status)
    show(console, results)
    if not results.identical:
        raise DagfsError("training on the mount and on the copy differ: this is a bug of dagfs, please report it")


def _results(console: Console, stage: Stage, repository: Path, epochs: int, output: Path) -> Results:
    console.print(f"2/4 serve it with {LATENCY_MS} ms latency, mount it, read all images")
    with stage.served(repository) as url:
        with stage.mounted(url, "reading") as mount:
            reading = [stage.reading_seconds(data) for data in (mount, mount, repository)]
        console.print(f"3/4 mount it again with a new cache, train {epochs} epochs, and once more")
        with stage.mounted(url, "training") as mount:
            before = traffic(url)
            first = stage.train(mount, output / "mount", epochs)
            between = traffic(url)
            again = stage.train(mount, stage.scratch / "again", epochs)
            after = traffic(url)
    console.print("4/4 unmounted; the same training on the plain directory that was served")
    copy = stage.train(repository, output / "copy", epochs)
    titles = ("mount, first time", "mount, again", "plain copy")
    found = (Place(*row) for row in zip(titles, (first, again, copy), reading, strict=True))
    return Results(tuple(found), between.since(before), after.since(between), output)


@contextlib.contextmanager
def _stage(interrupts: Interrupts) -> Iterator[Stage]:
    """Give a stage whose directory goes with it, unless something is still mounted there."""
    scratch = Path(tempfile.mkdtemp(prefix="dagfs-demo-"))
    stage = Stage(scratch, interrupts)
    try:
        yield stage
    finally:
        for mountpoint in stage.left_behind:
            print(f"dagfs: still mounted; run `dagfs unmount {mountpoint}`", file=sys.stderr)  # noqa: T201 -- also after an error
        if not stage.left_behind:
            shutil.rmtree(scratch, ignore_errors=True)


def _repository(images: int) -> Path:
    from dagfs.demo.dataset import build_repository  # noqa: PLC0415 -- needs packages that were looked for first

    return build_repository(private_directory(places(os.environ).cache) / f"demo-{images}", images)


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the demo needs {', '.join(missing)}: pip install 'dagfs[demo]'")
