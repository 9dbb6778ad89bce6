"""The daemon's log: one file a mount, bounded, without secrets."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from dagfs.config import private_directory
from dagfs.model import printable

LOG_BYTES = 10 << 20
"""Bytes of one log file; three older ones are kept: days of warnings, and never a full disk."""

_SECRETS = (
    (re.compile(r"(https?://[^\s?#'\"<>]+)[?#][^\s'\"<>)]+"), r"\1?[redacted]"),  # a signature may have any name
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [redacted]"),
    (re.compile(r"(?i)([?&](?:token|signature|x-amz-[a-z-]+|sig|access_token)=)[^&\s'\"]+"), r"\1[redacted]"),
    (re.compile(r"(https?://)[^/\s@]+@"), r"\1[redacted]@"),
)


class Redacting(logging.Formatter):
    """Formats as usual, then removes what looks like a credential, tracebacks included, and the mount's own token.

    Names are a hub's to choose: control characters become escapes, and lines after the first are indented, so that
    none looks like a record of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets: Callable[[], Sequence[str]] = tuple

    def hide(self, secrets: Callable[[], Sequence[str]]) -> None:
        """Remove what `secrets` gives from now on; it is called for each line."""
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return "\n\t".join(map(printable, self.clean(super().format(record)).split("\n")))

    def clean(self, text: str) -> str:
        # Secrets first: the patterns of `redact` might cut one in two; and one may be the beginning of another.
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "[redacted]")
        return redact(text)


class JsonLines(Redacting):
    """One JSON object a line, for what collects logs. Each text is cleaned before JSON could change its characters."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        told: dict[str, str | int] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.clean(record.getMessage()),
            "pid": record.process or 0,
            "thread": record.threadName or "",
        }
        if record.exc_info:
            told["traceback"] = self.clean(self.formatException(record.exc_info))
        return json.dumps(told)


FORMATS: dict[str, type[Redacting]] = {"text": Redacting, "json": JsonLines}


def redact(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def log_path(state_directory: Path, name: str) -> Path:
    return state_directory / "logs" / f"{name}.log"


def start_log(path: Path | None, form: str = "text") -> Redacting:
    """Send the log to `path`, or to stderr when it is None (foreground); gives what formats it, as one of FORMATS."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        private_directory(path.parent)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES, backupCount=3, encoding="utf-8", errors="backslashreplace"
        )  # names of files are bytes, whatever the locale
        path.chmod(0o600)
    formatter = FORMATS[form]()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return formatter
