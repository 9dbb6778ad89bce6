"""Which directory is DVC's cache: as it is given, or as a DVC repository names it."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

from dagfs.errors import UsageError

_CONFIGS = ("config", "config.local")  # the later has the last word


def dvc_cache(directory: Path) -> Path:
    """Give the cache of the DVC repository `directory`, or `directory` itself where it is none. Raises UsageError."""
    directory = directory.expanduser().absolute()
    settings = directory / ".dvc"
    if not settings.is_dir():
        if not directory.is_dir():
            raise UsageError(f"--dvc-cache {directory}: there is no such directory")
        return directory
    cache = Path(os.path.normpath(settings / _named(settings)))
    try:
        cache.mkdir(parents=True, exist_ok=True)  # DVC makes it when it has the first file
    except OSError as error:
        raise UsageError(f"--dvc-cache {directory}: its cache at {cache} cannot be used: {error.strerror}") from None
    return cache


def _named(settings: Path) -> str:
    """Give `cache.dir` of a DVC repository; a relative one starts at the file that has it, in `.dvc`."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read([settings / name for name in _CONFIGS], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{settings}: its settings cannot be read: {str(error).splitlines()[0]}") from None
    return parser.get("cache", "dir", fallback="cache")
