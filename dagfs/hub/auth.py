"""The token: where it is found, and how a mount that runs for weeks notices a new one."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dagfs import system
from dagfs.config import hub_host
from dagfs.errors import UsageError
from dagfs.hub import plain_yaml
from dagfs.hub.git_credential import git_credential
from dagfs.hub.urls import check_host

log = logging.getLogger(__name__)

ENVIRONMENT_NAMES = ("DAGSHUB_USER_TOKEN", "DAGSHUB_TOKEN")
RECHECK_SECONDS = 1.0
"""How old the knowledge of the token file may be: a stat for each of thousands of small transfers is not free."""

KNOWN_MAX = 100
"""Earlier tokens that are still kept out of the log: a hub may quote one, and it may be good for a while yet."""

MAX_FILE_BYTES = 1 << 20
_OPEN_TO_OTHERS = 0o066

Stamp = tuple[int, int, int]


class Token:
    """Gives the token of one hub and re-reads its file when that changed; thread-safe; shows it to nobody.

    `source` says in words where the token comes from; `unused` which one was not taken, and what to do to have it used.
    """

    def __init__(self, source: str, value: str | None, path: Path | None = None, read: Reader | None = None) -> None:
        self.source = source
        self.unused = ""
        self._value = value
        self._known: tuple[str, ...] = () if value is None else (value,)
        self._path = path
        self._read = read
        self._lock = threading.Lock()  # guards the two below, _value and _known; held over a small local read only
        self._checked = time.monotonic()
        self._stamp = _stamp(path)  # of the file's state that _value was read from

    @property
    def rotates(self) -> bool:
        """Whether it lies in a file, where a new one is found; the environment of a process stays as it is."""
        return self._read is not None

    def current(self, *, at_once: bool = False) -> str | None:
        """Give the token, None when there is none; `at_once` looks at the file even if it was looked at just now."""
        if self._read is None or self._path is None:
            return self._value
        now = time.monotonic()
        if not at_once and now - self._checked < RECHECK_SECONDS:
            return self._value
        with self._lock:
            self._checked = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._reread(self._read, self._path)
            return self._value

    def known(self) -> tuple[str, ...]:
        """Give the token as it was read last, and those before it, KNOWN_MAX at most: no look at the file, no lock, so
        that the log can ask at any time."""
        return self._known

    def _reread(self, read: Reader, path: Path) -> None:
        """Take the new token; a file that vanished or is being replaced leaves the old one valid."""
        try:
            value = read(path)
        except UsageError as error:
            log.warning("keeping the token read before: %s", error)
            return
        if value and value != self._value:
            self._value = value
            self._known = (value, *self._known)[: KNOWN_MAX + 1]

    def __repr__(self) -> str:
        return f"Token(from {self.source})"


Reader = Callable[[Path], "str | None"]


def find_token(
    option_file: Path | None, environment: Mapping[str, str], client_tokens: Path, host: str, now: float
) -> Token:
    """Find the token for `host` (a hub's URL): option, environment, token file of the DagsHub client, what git's
    credential helper has; or none.

    A token of the environment belongs to the host of the environment (DAGSHUB_CLIENT_HOST, else the public hub) and is
    not used for others. `now` in seconds since the epoch. Raises UsageError.
    """
    if option_file is not None:
        path = option_file.expanduser().absolute()
        return Token(f"file {path}", _read_private(path), path, _read_private)
    theirs = hub_host(environment)
    name = next((name for name in ENVIRONMENT_NAMES if environment.get(name, "").strip()), None)
    if name is not None and _same_host(host, theirs):
        return Token(f"environment variable {name}", _plain(environment[name].strip(), name))
    token = _kept(client_tokens, host, environment, now)
    if name is not None:
        token.unused = f"{name} was not used: it is for {theirs}; set DAGSHUB_CLIENT_HOST={host} if it is for this hub"
    return token


def _kept(client_tokens: Path, host: str, environment: Mapping[str, str], now: float) -> Token:
    """Give the token that another program keeps for a host."""
    started = time.monotonic()

    def read(path: Path) -> str | None:
        return _read_client_tokens(path, host, now + time.monotonic() - started)

    token = Token(f"token file {client_tokens} of the DagsHub client", read(client_tokens), client_tokens, read)
    credential = git_credential(host, environment) if token.current() is None else None
    return token if credential is None else Token("git's credential helper", credential)


def _same_host(one: str, other: str) -> bool:
    return check_host(one) == check_host(other)


def is_plain(value: str) -> bool:
    """Tell whether a text can stand in a header."""
    return bool(value) and all("!" <= c <= "~" for c in value)


def _read_private(path: Path) -> str:
    """Read a file that holds one token. Raises UsageError, also when others could read or write it."""
    try:
        status, data = read_regular(path)
    except OSError as error:
        raise UsageError(f"cannot read the token file {path}: {error.strerror}") from None
    user = system.user()
    if user is not None and status.st_mode & _OPEN_TO_OTHERS and not _given_by_root(status):
        raise UsageError(f"other users can read or change the token file {path}; run: chmod 600 {path}")
    if user not in (None, 0) and status.st_uid not in (user, 0):
        raise UsageError(f"the token file {path} belongs to user {status.st_uid}; make one of your own")
    return _plain(data.decode("utf-8", "replace").strip(), f"the token file {path}")


def _given_by_root(status: os.stat_result) -> bool:
    """Tell whether root has let our group read a file, and nobody else: a secret of Kubernetes, with an fsGroup."""
    given = (status.st_uid, status.st_gid) == (0, os.getegid()) and os.geteuid() != 0
    return given and status.st_mode & _OPEN_TO_OTHERS == stat.S_IRGRP


def read_regular(path: Path) -> tuple[os.stat_result, bytes]:
    """Read a file of up to MAX_FILE_BYTES, without waiting for who may write into a pipe. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | system.OTHERS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES} bytes")
        with open(fd, "rb", closefd=False) as file:
            return status, file.read(MAX_FILE_BYTES)
    finally:
        os.close(fd)


def _plain(value: str, where: str) -> str:
    """Refuse what cannot stand in a header; never show it."""
    if not is_plain(value):
        raise UsageError(f"{where} does not hold a token: one line of printable characters is expected")
    return value


def _read_client_tokens(path: Path, host: str, now: float) -> str | None:
    """Give the client's best valid token for a host: long-lived before OAuth ones, expired ones left out."""
    try:
        status, data = read_regular(path)
        document = plain_yaml.load(data)
    except OSError:
        return None
    except ValueError:
        log.warning("ignoring %s: it is not YAML", path)
        return None
    if system.user() is not None and status.st_mode & _OPEN_TO_OTHERS:
        log.warning("other users may read or change %s; run: chmod 600 %s", path, path)
    if not isinstance(document, dict) or document.get("version", "1") not in ("1", 1):
        return None
    tokens = document.get(host.rstrip("/"))
    usable = [t for t in tokens if _is_usable(t, now)] if isinstance(tokens, list) else []
    usable.sort(key=lambda token: token.get("token_type") != "app-token")  # stable: the file's order within a type
    return str(usable[0]["access_token"]) if usable else None


def _is_usable(token: Any, now: float) -> bool:
    if not isinstance(token, dict) or not isinstance(token.get("access_token"), str):
        return False
    if not is_plain(token["access_token"]):
        return False
    expiry = _seconds(token.get("expiry"))
    return expiry is None or expiry > now


def _seconds(expiry: object) -> float | None:
    """Read the client's expiry date, in seconds since the epoch; None is never, or not known."""
    return moment(expiry) if isinstance(expiry, str) else None


def moment(text: str) -> float | None:
    """Read an RFC 3339 time, with up to 9 fraction digits; None when it is none. Without a zone it is UTC."""
    head, dot, tail = text.strip().replace("Z", "+00:00").partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    try:  # before Python 3.11 the fraction must have 3 or 6 digits
        time = datetime.fromisoformat(f"{head}.{tail[:digits][:6]:0<6}{tail[digits:]}" if dot else head)
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def _stamp(path: Path | None) -> Stamp | None:
    """Give what changes when a file is rewritten or replaced; None without a file."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino, status.st_size
