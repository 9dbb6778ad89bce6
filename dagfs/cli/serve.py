"""`dagfs serve` and `dagfs demo`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

VARIABLE = "DAGFS_SERVE_TOKEN"


@click.command(short_help="Serve a local git and DVC repository as a hub.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=int, default=0, help="TCP port on 127.0.0.1; a free one if not given.")
@click.option("--name", metavar="OWNER/NAME", help="How the repository is called; found in its remote if not given.")
@click.option("--token", envvar=VARIABLE, help=f"Answer only who sends this token; {VARIABLE} does the same.")
@click.option("--latency-ms", type=float, default=0.0, help="Wait before each answer, as a distant hub does.")
@click.option("--bandwidth-mbps", type=float, help="Share this many Mbit/s over all connections.")
@click.option("--storage", multiple=True, metavar="PROTO:BUCKET=DIR", help="Serve DIR as a connected bucket.")
def serve(
    directory: Path,
    port: int,
    name: str | None,
    token: str | None,
    latency_ms: float,
    bandwidth_mbps: float | None,
    storage: tuple[str, ...],
) -> None:
    """Serve the git repository DIRECTORY and its DVC data as a hub would, read-only.

    The first line printed is the repository's URL, once it answers.
    """
    from dagfs.devhub.serve import serve as run

    if token:
        _begin_again_without(token)
    run(directory, port, name, token, latency_ms, bandwidth_mbps, _storages(storage))


def _begin_again_without(token: str) -> None:
    """Any user of the machine can read a command line, so the token moves to the environment, where only we can."""
    if os.environ.pop(VARIABLE, None) != token:
        words = [word for word in sys.orig_argv[1:] if word != f"--token={token}"]
        if "--token" in words:
            at = words.index("--token")
            del words[at : at + 2]
        environment = {**os.environ, VARIABLE: token}
        os.execve(sys.executable, [sys.executable, *words], environment)  # noqa: S606 -- ourselves, without a shell  # nosec B606


def _storages(pairs: tuple[str, ...]) -> dict[str, Path]:
    split = [pair.partition("=") for pair in pairs]
    for bucket, _, folder in split:
        if not folder or ":" not in bucket:
            raise click.BadParameter("write it like s3:bucket=DIR", param_hint="--storage")
    return {bucket: Path(folder) for bucket, _, folder in split}


@click.command(short_help="Train on a mount of a small repository.")
@click.option("--images", type=click.IntRange(min=32), default=300, help="Images of the demo's repository; 300.")
@click.option("--epochs", type=click.IntRange(min=1), default=3, help="Epochs of each training; 3.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/demo"), help="Weights and plots.")
def demo(images: int, epochs: int, output: Path) -> None:
    """Build a small repository, serve it with 20 ms latency, mount it and train on the mount."""
    from dagfs.demo.run import run

    run(images=images, epochs=epochs, output=output)
