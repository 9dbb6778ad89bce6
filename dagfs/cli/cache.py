"""`dagfs cache info|verify|clear`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dagfs.cli import options
from dagfs.cli.values import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from dagfs.store.disk import DiskStore


NO_LIMIT = 1 << 62


@click.group()
@options.cache_dir
@click.pass_context
def cache(ctx: click.Context, cache_dir: str | None) -> None:
    """Look at the cache, check it, or empty it."""
    ctx.obj = cache_dir


@cache.command()
@click.pass_obj
def info(cache_dir: str | None) -> None:
    """Tell how much is kept, and where."""
    for store in _stores(cache_dir):
        found = store.info()
        click.echo(f"{store.root}: {found.files:,} files, {found.partials:,} incomplete, {size_text(found.bytes)}")


@cache.command()
@click.pass_obj
def verify(cache_dir: str | None) -> None:
    """Read every file that is kept, compare it with its hash, and remove what is damaged."""
    damaged = 0
    for store in _stores(cache_dir):
        for path in store.verify():
            damaged += 1
            click.echo(f"damaged, removed: {path}")
    click.echo(f"{damaged:,} damaged" if damaged else "everything is as it was fetched")
    if damaged:
        sys.exit(1)


@cache.command()
@click.pass_obj
def clear(cache_dir: str | None) -> None:
    """Remove what is kept; mounts go on and fetch again."""
    for store in _stores(cache_dir):
        freed = store.clear()
        click.echo(f"{store.root}: {size_text(freed)} freed")


def _stores(cache_dir: str | None) -> Iterator[DiskStore]:
    """Open the store of each hub under the cache directory, one after another."""
    from dagfs.config import places

    cache = places(os.environ, cache_dir).cache
    count = 0
    for count, store in enumerate(_opened(cache), start=1):  # noqa: B007 -- told below
        yield store
    if not count:
        click.echo(f"nothing is kept in {cache}")


def _opened(cache: Path) -> Iterator[DiskStore]:
    """Open each without a limit: nothing is evicted by looking. What is no store is left alone: opening it would make
    it one, and change its mode."""
    from dagfs.metrics import Metrics
    from dagfs.store.disk import DiskStore

    for root in sorted(mark.parent for mark in cache.glob("*/format")):
        store = DiskStore(root, NO_LIMIT, Metrics())
        try:
            yield store
        finally:
            store.close()
