"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from dagfs.cli.complete import directories

host = click.option("--host", metavar="URL", help="The hub; DAGSHUB_CLIENT_HOST or https://dagshub.com if not given.")

cache_dir = click.option(
    "--cache-dir",
    metavar="DIR",
    shell_complete=directories,
    help="Where content is kept; DAGFS_CACHE_DIR or ~/.cache/dagfs.",
)

token_file = click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File that holds the access token; else DAGSHUB_USER_TOKEN, or what `dagfs login` has stored.",
)
