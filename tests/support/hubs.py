"""A hub in a process of its own, with any behaviour: a test that reads a mount must not serve it, too."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dagfs.devhub.behaviour import Behaviour, Gzip, Redirect

START_SECONDS = 30

VARIANTS = {
    "plain": Behaviour(),
    "no ranges": Behaviour(ranges=False),
    "chunked": Behaviour(length=False),
    "chunked, no ranges, no ETag, no HEAD": Behaviour(length=False, ranges=False, etag=False, head=False),
    "no size key, opaque hashes": Behaviour(size_when_unsized=False, blob_hash=False),
    "gzip when accepted": Behaviour(gzip=Gzip.ACCEPTED),
    "gzip always": Behaviour(gzip=Gzip.ALWAYS),
    "redirects": Behaviour(redirect=Redirect.SAME),
    "signed URLs of another origin": Behaviour(redirect=Redirect.OTHER),
    "signed URLs that expire at once": Behaviour(redirect=Redirect.OTHER, signature_seconds=0.05),
}
"""The hubs that the contract allows, as far as they differ for who reads."""


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
