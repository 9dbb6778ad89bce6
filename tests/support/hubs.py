"""A hub in a process of its own, with any behaviour: a test that reads a mount must not serve it, too."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

START_SECONDS = 30


@contextlib.contextmanager
def hub(directory: Path, **options: Any) -> Iterator[str]:
    """Run `devhub.serve.Hub(directory, **options)`; gives the repository's URL."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, directory, options), daemon=True)
    process.start()
    try:
        assert ours.poll(START_SECONDS), "the hub did not start"
        yield ours.recv()
    finally:
        ours.close()
        theirs.close()
        process.terminate()
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, directory: Path, options: dict[str, Any]) -> None:
    from dagfs.devhub.serve import Hub

    with Hub(directory, **options) as running:
        pipe.send(running.url)
        pipe.poll(None)
